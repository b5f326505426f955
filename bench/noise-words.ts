/* The words of the memory that the noise probe shares with its spinner. */

/** 1: the spinner spins; 0: it sleeps. */
export const GO = 0
export const PING = 1
export const PONG = 2
export const WORDS = 3
