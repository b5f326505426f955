/*
 * Entry point of `userdma/wire`: RoCEv2 packets, ICRC, Ethernet frames, and messages of the connection manager.
 */
export { type Arena, arenaOver, plainArena } from './arena.ts'
export * from './bth.ts'
export { type CrcEngine, crc32, crcEngineName, useCrcEngine } from './crc.ts'
export * from './extensions.ts'
export * from './frame.ts'
export * from './icrc.ts'
export * from './mad/mad.ts'
export * from './packet.ts'
