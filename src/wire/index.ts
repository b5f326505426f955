/*
 * Entry point of `userdma/wire`: RoCEv2 packets as bytes and as records, their ICRC, Ethernet frames, messages of the
 * connection manager, and capture files. The tables are in `userdma/spec`. No file of the package imports this one.
 */
export { type Arena, arenaOver, plainArena } from './arena.ts'
export * from './bth.ts'
export { type CrcEngine, crc32, crcEngineName, useCrcEngine } from './crc.ts'
export * from './extensions.ts'
export * from './frame.ts'
export * from './icrc.ts'
export * from './mad/mad.ts'
export * from './packet.ts'
export * from './pcap.ts'
