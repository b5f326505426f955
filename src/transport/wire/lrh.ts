/*
 * The headers before the BTH of an InfiniBand packet, LRH and GRH (InfiniBand Architecture Specification, clauses 7.7
 * and 8.3), and the variant CRC behind its ICRC (7.8.2). Ports carry packets from the BTH to the ICRC: these bytes are
 * made for those who look. Data packets are on VL 0.
 */
import type { PacketFlow } from '../../spec/wire/flow.ts'
import { lidOf } from './address.ts'

export const LRH_BYTES = 8
export const LOCAL_AND_GLOBAL_BYTES = 48
export const VCRC_BYTES = 2
/** LRH.LNH: what follows. */
const NEXT_BTH = 2
const NEXT_GRH = 3
/** GRH.NxtHdr: a header of InfiniBand's transport. */
const NEXT_TRANSPORT = 0x1b

/** Whether the flow is one of InfiniBand, by its addresses. */
export const hasLids = ({ source, destination }: Pick<PacketFlow, 'source' | 'destination'>): boolean =>
  lidOf(source) >= 0 && lidOf(destination) >= 0

/** Whether the flow is one of RoCE v1: a GRH behind the Ethernet header, without IP and UDP. */
export const isRoceV1 = (flow: Pick<PacketFlow, 'source' | 'destination' | 'grh'>): boolean =>
  flow.grh !== undefined && !hasLids(flow)

/** Writes the GRH of a packet with `length` bytes from the BTH to the ICRC. */
export const putGrh = (
  bytes: Uint8Array,
  at: number,
  { trafficClass, hopLimit, flowLabel, grh }: PacketFlow,
  length: number,
): void => {
  bytes[at] = 0x60 | (trafficClass >> 4)
  bytes[at + 1] = ((trafficClass & 15) << 4) | (flowLabel >> 16)
  bytes[at + 2] = flowLabel >> 8
  bytes[at + 3] = flowLabel
  bytes[at + 4] = length >> 8
  bytes[at + 5] = length
  bytes[at + 6] = NEXT_TRANSPORT
  bytes[at + 7] = hopLimit
  if (grh !== undefined) {
    bytes.set(grh.source, at + 8)
    bytes.set(grh.destination, at + 24)
  }
}

/** LRH, and GRH if the flow has one, of a packet with `length` bytes from the BTH to the ICRC. */
export const fabricHeaders = (flow: PacketFlow, length: number): Uint8Array => {
  const { grh, sl = 0 } = flow
  const bytes = new Uint8Array(grh === undefined ? LRH_BYTES : LOCAL_AND_GLOBAL_BYTES)
  const words = (bytes.length + length) >> 2
  const slid = lidOf(flow.source)
  const dlid = lidOf(flow.destination)
  bytes.set([
    0,
    (sl << 4) | (grh === undefined ? NEXT_BTH : NEXT_GRH),
    dlid >> 8,
    dlid,
    words >> 8,
    words,
    slid >> 8,
    slid,
  ])
  if (grh !== undefined) putGrh(bytes, LRH_BYTES, flow, length)
  return bytes
}

/** x^16 + x^12 + x^3 + x + 1, reflected. */
const VCRC_POLYNOMIAL = 0xd008
const vcrcTable = Uint16Array.from({ length: 256 }, (_, byte) => {
  let register = byte
  for (let bit = 0; bit < 8; bit++) register = (register & 1) === 0 ? register >> 1 : (register >> 1) ^ VCRC_POLYNOMIAL
  return register
})

/** The variant CRC over everything from the LRH to the ICRC, in the order of its bytes on the wire (low byte first). */
export const vcrcOf = (packet: Uint8Array): number => {
  let register = 0xffff
  for (const byte of packet) register = (register >> 8) ^ vcrcTable[(register ^ byte) & 0xff]
  return register ^ 0xffff
}
