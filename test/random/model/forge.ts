/*
 * The attacker of the model test forges packets from observed ones. Most have a wrong field, and must have no effect;
 * some are right in everything that a receiver can check, and make the outcome unpredictable (`whyUnpredictable`).
 */

import { QpState } from '../../../src/spec/enums.ts'
import { DEFAULT_PKEY } from '../../../src/spec/wire/headers.ts'
import {
  headerAt,
  OP_READ,
  OP_REQUEST,
  OP_RESPONSE,
  OP_START,
  opcodeByNumber,
  opcodeFlags,
  TRANSPORT_MASK,
} from '../../../src/spec/wire/opcodes.ts'
import { serviceBits } from '../../../src/spec/wire/services.ts'
import { SHORTEST_PACKET } from '../../../src/transport/phy/runs/limits.ts'
import { checkPacket } from '../../../src/transport/wire/packet.ts'
import type { Packet } from './link.ts'
import { type End, isDatagram, isReliable, serviceOf } from './pair.ts'
import type { RandomSource } from './random.ts'

// Bytes of the BTH (IBA 9.2): 0 opcode; 1 solicited event, MigReq, pad count, TVer; 2 and 3 P_Key; 5 to 7 destination
// queue pair; 8 AckReq (0x80); 9 to 11 PSN.
const QPN_AT = 5
const PSN_AT = 9

const { RTR, RTS, SQD, ERR } = QpState.values
const PSN_MASK = 0xff_ffff

const get24 = (bytes: Uint8Array, at: number): number => (bytes[at] << 16) | (bytes[at + 1] << 8) | bytes[at + 2]
export const qpnOf = (bytes: Uint8Array): number => get24(bytes, QPN_AT)
const psnOf = (bytes: Uint8Array): number => get24(bytes, PSN_AT)
const put24 = (bytes: Uint8Array, at: number, value: number): void => {
  bytes[at] = value >> 16
  bytes[at + 1] = value >> 8
  bytes[at + 2] = value
}
const put32 = (bytes: Uint8Array, at: number, value: number): void => {
  bytes[at] = value >>> 24
  put24(bytes, at + 1, value)
}

interface Knowledge {
  readonly ends: readonly End[]
  readonly nodes: number
  /** The live queue pair with this number; undefined if there is none. */
  find(node: number, qpn: number): End | undefined
}

interface Mutation {
  readonly name: string
  readonly weight: number
  /** Changes the packet in place, or returns another packet. */
  apply(packet: Packet, knowledge: Knowledge, random: RandomSource): Packet | undefined
}

const change =
  (edit: (bytes: Uint8Array, random: RandomSource) => unknown): Mutation['apply'] =>
  (packet, _knowledge, random) => {
    edit(packet.bytes, random)
    return packet
  }
/** Changes 8 or 32 bits of an extension header. */
const inHeader = (header: 'RETH' | 'AtomicETH' | 'AETH' | 'IETH' | 'DETH', offset: number, bits: 8 | 32) =>
  change((bytes, random) => {
    const at = headerAt[header][bytes[0]]
    if (at === 0 || at + offset + 4 > bytes.length) return
    if (bits === 8) bytes[at + offset] = random.u32()
    else put32(bytes, at + offset, random.hits(0.5) ? random.u32() : random.int(64))
  })
/** Sets the PSN that the receiver expects. */
const expectedPsn: Mutation['apply'] = (packet, { find }) => {
  const end = find(packet.to, qpnOf(packet.bytes))
  if (end === undefined) return undefined
  const flags = opcodeFlags[packet.bytes[0]]
  const { rqPsn, sqPsn } = end.host.engine.query(end.row)
  put24(packet.bytes, PSN_AT, (flags & OP_REQUEST) !== 0 ? rqPsn : sqPsn - 1)
  return packet
}

const mutations: readonly Mutation[] = [
  { name: 'same', weight: 2, apply: packet => packet },
  {
    name: 'near PSN',
    weight: 6,
    apply: change((bytes, random) => put24(bytes, PSN_AT, psnOf(bytes) + random.int(64) - 32)),
  },
  { name: 'any PSN', weight: 6, apply: change((bytes, random) => put24(bytes, PSN_AT, random.u32())) },
  { name: 'right PSN', weight: 4, apply: expectedPsn },
  {
    name: 'other queue pair',
    weight: 4,
    apply: (packet, { ends }, random) => {
      const end = random.pick(ends)
      put24(packet.bytes, QPN_AT, end.qpn)
      return { ...packet, to: end.node, from: end.peer.node }
    },
  },
  { name: 'any queue pair', weight: 1, apply: change((bytes, random) => put24(bytes, QPN_AT, random.u32())) },
  {
    name: 'other source',
    weight: 4,
    apply: (packet, { nodes }, random) => ({ ...packet, from: random.int(nodes) }),
  },
  { name: 'rkey', weight: 3, apply: inHeader('RETH', 8, 32) },
  { name: 'address', weight: 3, apply: inHeader('RETH', 4, 32) },
  { name: 'length', weight: 3, apply: inHeader('RETH', 12, 32) },
  { name: "atomic's key", weight: 2, apply: inHeader('AtomicETH', 8, 32) },
  { name: 'invalidated key', weight: 1, apply: inHeader('IETH', 0, 32) },
  { name: 'Q_Key', weight: 2, apply: inHeader('DETH', 0, 32) },
  { name: 'syndrome', weight: 3, apply: inHeader('AETH', 0, 8) },
  { name: 'opcode', weight: 4, apply: change((bytes, random) => bytes.fill(random.u32(), 0, 1)) },
  {
    name: 'opcode of the same service',
    weight: 4,
    apply: change((bytes, random) => bytes.fill((bytes[0] & TRANSPORT_MASK) | random.int(0x20), 0, 1)),
  },
  { name: 'flags, pad, version', weight: 3, apply: change((bytes, random) => bytes.fill(random.u32(), 1, 2)) },
  { name: 'P_Key', weight: 2, apply: change((bytes, random) => bytes.fill(random.u32(), 2, 3 + random.int(2))) },
  { name: 'ackReq', weight: 1, apply: change(bytes => bytes.fill(bytes[8] ^ 0x80, 8, 9)) },
  {
    name: 'shorter',
    weight: 2,
    apply: (packet, _, random) => ({
      ...packet,
      bytes: packet.bytes.slice(0, SHORTEST_PACKET + (random.int(packet.bytes.length - SHORTEST_PACKET + 1) & ~3)),
    }),
  },
  {
    name: 'longer',
    weight: 2,
    apply: (packet, _, random) => {
      const bytes = new Uint8Array(packet.bytes.length + 4 * random.int(8))
      bytes.set(packet.bytes)
      return { ...packet, bytes }
    },
  },
]

export const forge = (seen: Packet, knowledge: Knowledge, random: RandomSource): Packet | undefined => {
  let packet: Packet | undefined = { ...seen, bytes: seen.bytes.slice() }
  for (let count = 1 + random.int(2); count > 0 && packet !== undefined; count--)
    packet = random.weighted(mutations).apply(packet, knowledge, random)
  return packet
}

/** Whether the PSN belongs to a request of `requester` that has not ended. */
const isInFlight = (requester: End, psn: number): boolean => {
  const { sqPsn } = requester.host.engine.query(requester.row)
  const distance = (psn - requester.psn) & PSN_MASK
  return distance >= requester.ackedPsns && distance < ((sqPsn - requester.psn) & PSN_MASK)
}

/** Why a forged packet for `end` makes the outcome unpredictable; undefined if it must have no effect. */
export const whyUnpredictable = (packet: Packet, end: End): string | undefined => {
  const { bytes, from } = packet
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (checkPacket(view, 0, bytes.length) !== 0) return undefined
  // The TVer must be 0, and the P_Key the default, with or without its membership bit.
  if ((bytes[1] & 15) !== 0 || ((view.getUint16(2) ^ DEFAULT_PKEY) & 0x7fff) !== 0) return undefined
  const opcode = bytes[0]
  if (isDatagram(end.pair)) {
    const deth = headerAt.DETH[opcode]
    return deth > 0 && view.getUint32(deth) === end.qkey ? 'a datagram with the Q_Key' : undefined
  }
  if (from !== end.peer.node) return undefined
  if ((opcode & TRANSPORT_MASK) !== serviceBits[serviceOf(end)]) return undefined
  const { state, rqPsn } = end.host.engine.query(end.row)
  const flags = opcodeFlags[opcode]
  const psn = psnOf(bytes)
  const name = opcodeByNumber[opcode]?.name
  if ((flags & OP_REQUEST) !== 0 && state >= RTR && state !== ERR) {
    if (psn === rqPsn) return `${name} with the expected PSN`
    if (!isReliable(end.pair)) return (flags & OP_START) !== 0 ? `${name} begins a message` : undefined
    // A duplicate READ with other arguments gets another response.
    if ((flags & OP_READ) !== 0 && isInFlight(end.peer, psn)) return `${name} again`
  }
  if ((flags & OP_RESPONSE) !== 0 && (state === RTS || state === SQD) && isInFlight(end, psn))
    return `${name} for a request in flight`
  return undefined
}
