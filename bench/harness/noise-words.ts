/* Indexes of words in the memory that the noise probe (noise.ts) and its spinner (spinner.ts) share. */

/** 1: the spinner spins; 0: it sleeps. */
export const GO = 0
/** The probe stores a number in PING; the spinner copies it to PONG. */
export const PING = 1
export const PONG = 2
export const WORDS = 3
