/*
 * Entry point of `userdma/trace`: packets and calls as text, as JSON and as pcapng. Nothing in the package imports this
 * file.
 */
export { callJson, callLine } from './calls.ts'
export { packetJson, packetLine, packetText, syndromeText } from './packets.ts'
export { createPcapng, frameOf, type PacketFlow, type PcapngOptions, type PcapngPacket } from './pcapng.ts'
