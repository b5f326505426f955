/*
 * What `userdma/trace` publishes: packets and calls as text, as JSON and as pcapng. Nothing inside the package imports
 * this file.
 */
export { callJson, callLine } from './calls.ts'
export { packetJson, packetLine, packetText, syndromeText } from './packets.ts'
export { createPcapng, frameOf, type PacketFlow, type PcapngOptions, type PcapngPacket } from './pcapng.ts'
