/*
 * The request that a NAK refused, as its packets say it.
 */
import { counted, hex } from '../../../base/text.ts'
import {
  headerAt,
  OP_READ,
  type Opcode,
  opcodeByNumber,
  opcodeFlags,
  type Position,
} from '../../../spec/wire/opcodes.ts'
import type { WrOpcode } from '../../../spec/work.ts'
import { type RecentPackets, Sent } from './recent.ts'

/** PSNs back from a refused one within which the READ is looked for of which it is a response. */
const MAX_BACK = 256

type WrOpcodeName = keyof typeof WrOpcode.values

export interface Refused {
  /** The frame of the packet with the refused PSN. */
  readonly frame: number
  readonly opcode: WrOpcodeName
  /** Of the packet with the refused PSN. */
  readonly position: Position
  /** Packets of the message before it; undefined: the first one was not captured. */
  readonly packetsBefore: number | undefined
  /** Remote memory; undefined: the operation has none, or it was not captured. */
  readonly remote: { readonly rkey: number; readonly address: bigint } | undefined
  /** Bytes of the message; undefined: not captured. */
  readonly length: number | undefined
}

/** Bytes of a message that its first packet does not say. */
export const UNKNOWN_LENGTH = 0xffff_ffff

/** The request of an opcode. A first packet does not say whether its last has immediate data. */
export const requestOf = ({ kind, headers, name }: Opcode): WrOpcodeName => {
  switch (kind) {
    case 'atomic':
      return name.includes('COMPARE_SWAP') ? 'ATOMIC_CMP_AND_SWP' : 'ATOMIC_FETCH_AND_ADD'
    case 'atomic_write':
      return 'ATOMIC_WRITE'
    case 'flush':
      return 'FLUSH'
    case 'read':
      return 'RDMA_READ'
    case 'write':
      return headers.includes('ImmDt') ? 'RDMA_WRITE_WITH_IMM' : 'RDMA_WRITE'
    default:
      return headers.includes('IETH') ? 'SEND_WITH_INV' : headers.includes('ImmDt') ? 'SEND_WITH_IMM' : 'SEND'
  }
}

/**
 * The entry of the request packet with a PSN, or of the READ one of whose responses has it; -1: not in the capture, or
 * long ago. `flow`: its number.
 */
export const requestWith = (recent: RecentPackets, flow: number, psn: number): number => {
  for (let back = 0; back < MAX_BACK; back++) {
    const slot = recent.find(flow, Sent.REQUEST, (psn - back) & 0xff_ffff)
    // Only a READ has PSNs of which no packet is sent.
    if (slot >= 0) return back === 0 || (opcodeFlags[recent.opcodeOf(slot)] & OP_READ) !== 0 ? slot : -1
  }
  return -1
}

/** What the flow with a number sent with a PSN; undefined: not in the capture, or long ago. */
export const refusedRequest = (recent: RecentPackets, flow: number, psn: number): Refused | undefined => {
  const slot = requestWith(recent, flow, psn)
  if (slot < 0) return undefined
  const opcode = opcodeByNumber[recent.opcodeOf(slot)]!
  const start = recent.startOf(slot)
  const first = start < 0 ? -1 : recent.find(flow, Sent.REQUEST, start)
  const firstOpcode = first < 0 ? 0 : recent.opcodeOf(first)
  const hasRemote = first >= 0 && (headerAt.RETH[firstOpcode] > 0 || headerAt.AtomicETH[firstOpcode] > 0)
  const length = first < 0 ? UNKNOWN_LENGTH : recent.remoteOf(first, 3)
  return {
    frame: recent.frameOf(slot),
    opcode: requestOf(opcode),
    position: opcode.position,
    packetsBefore: start < 0 ? undefined : (psn - start) & 0xff_ffff,
    remote: hasRemote
      ? {
          rkey: recent.remoteOf(first, 2),
          address: BigInt(recent.remoteOf(first, 0)) * 2n ** 32n + BigInt(recent.remoteOf(first, 1)),
        }
      : undefined,
    length: length === UNKNOWN_LENGTH ? undefined : length,
  }
}

/** The request in words: `RDMA_WRITE of 4096 bytes at 0x7f00 with rkey 0x12`. */
export const refusedText = ({ opcode, remote, length }: Refused): string =>
  `${opcode}${length === undefined ? '' : ` of ${counted(length, 'byte')}`}${
    remote === undefined ? '' : ` at ${hex(remote.address)} with rkey ${hex(remote.rkey)}`
  }`
