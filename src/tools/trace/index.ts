/*
 * The entry point `userdma/trace` of the package: packets and calls as text and as JSON, and packets as pcapng.
 */

export type { PacketFlow } from '../../spec/wire/flow.ts'
export { callJson, callLine } from './calls.ts'
export { packetJson, packetLine, packetText, syndromeText } from './packets.ts'
export { createPcapng, frameOf, type PcapngOptions, type PcapngPacket } from './pcapng.ts'
