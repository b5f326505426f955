/*
 * The input of the engine's fuzz target (engine.ts) is a program: a sequence of records, each for one of the queue
 * pairs. Any bytes are a valid program. A packet record has the first bytes of the packet and its length; the fields
 * that the receiver checks first (queue pair, PSN, key) can be corrected, so that random packets pass these checks. The
 * initial programs are made from captures.
 */
import { OP_REQUEST, opcodeFlags } from '../../src/spec/wire/opcodes.ts'
import { captureNames, recordedPackets } from './codecs.ts'

/**
 * Kinds of records. PACKET: a packet arrives; SEND, RECEIVE: requests are posted; TRANSMIT: the engine sends; TIME:
 * time passes; STATE, ATTRIBUTES: the queue pair is modified; RENEW: it is destroyed and created again.
 */
export const Record = {
  PACKET: 0,
  SEND: 1,
  RECEIVE: 2,
  TRANSMIT: 3,
  TIME: 4,
  STATE: 5,
  ATTRIBUTES: 6,
  RENEW: 7,
} as const
const RECORDS = 8

/** Bits of a packet record: the fields to correct; JOINS: the next packet may arrive together with this one. */
export const Fix = { QPN: 1, PSN: 2, KEY: 4, PKEY: 8, SERVICE: 16, VERSION: 32, JOINS: 64 } as const

/** Maximum packet bytes in a record: the longest headers and a little payload. */
export const HEAD_BYTES = 48

/**
 * By kind: bytes of arguments, which follow the byte with kind and row.
 * - PACKET: see `packetRecord`; the packet's bytes follow
 * - SEND: opcode, flags, number of elements, length (2 bytes), offset of the remote address, key or immediate data,
 *   compare value, swap value or window
 * - RECEIVE: number of requests, length / 16, key
 * - TRANSMIT: not used
 * - TIME: mantissa and exponent of the microseconds that pass
 * - STATE: choice of the next state and its attributes
 * - ATTRIBUTES: access flags, minRnrTimer, maxDestRdAtomic, maxRdAtomic
 * - RENEW: only if the low three bits are 0
 */
const ARGUMENT_BYTES: readonly number[] = [5, 9, 3, 1, 2, 1, 4, 1]

export interface Step {
  readonly kind: number
  /** Index of the queue pair. */
  readonly row: number
  /** Offsets of the first byte of the arguments, and after the last one that the input has. */
  readonly at: number
  readonly end: number
}

/** The records of a program. The first byte of each: kind modulo RECORDS, and row in the upper five bits. */
export const stepsOf = (bytes: Uint8Array): Step[] => {
  const steps: Step[] = []
  for (let at = 0; at < bytes.length; ) {
    const kind = bytes[at] % RECORDS
    const row = bytes[at] >> 3
    let end = at + 1 + ARGUMENT_BYTES[kind]
    if (kind === Record.PACKET) end += Math.min(bytes[at + 5] ?? 0, HEAD_BYTES)
    steps.push({ kind, row, at: at + 1, end: Math.min(end, bytes.length) })
    at = end
  }
  return steps
}

export const splitProgram = (bytes: Uint8Array): Uint8Array[] =>
  stepsOf(bytes).map(({ at, end }) => bytes.slice(at - 1, end))

/**
 * A packet record. Arguments: `fixes`; `delta`, the difference between the packet's PSN and the expected one; the
 * packet's length in units of four bytes (u16); the number of the packet's bytes that follow.
 */
export const packetRecord = (row: number, fixes: number, delta: number, packet: Uint8Array): number[] => {
  const head = packet.subarray(0, HEAD_BYTES)
  const words = packet.length >> 2
  return [(row << 3) | Record.PACKET, fixes, delta, words >> 8, words, head.length, ...head]
}

/** By the upper three bits of BTH.opcode: the queue pair (`SERVICES` in engine.ts) that gets the packet. */
const ROW_OF = [0, 2, 0, 3, 0, 5]
const ALL_FIXES = Fix.QPN | Fix.PSN | Fix.KEY | Fix.PKEY | Fix.VERSION

/** A program from a capture: its packets go to queue pairs that have posted matching requests. */
const programOf = (name: string): Uint8Array => {
  const program: number[] = []
  const packets = recordedPackets(name).slice(0, 16)
  for (let row = 0; row < 6; row++) program.push((row << 3) | Record.RECEIVE, 3, 200, 0)
  packets.forEach((packet, i) => {
    const row = ROW_OF[packet[0] >> 5] ?? 0
    if ((opcodeFlags[packet[0]] & OP_REQUEST) === 0)
      program.push((row << 3) | Record.SEND, i % 10, 2, 1, 0, 60, 1, i, 0, 0, (row << 3) | Record.TRANSMIT, 9)
    program.push(...packetRecord(row, ALL_FIXES, 0, packet))
    if (i % 4 === 3) program.push((row << 3) | Record.TRANSMIT, 9)
  })
  return Uint8Array.from([...program, Record.TIME, 200, 4, Record.TRANSMIT, 9])
}

/** Initial programs: one from each capture, and each kind of request once. */
export const seedPrograms = (): Uint8Array[] => [
  ...captureNames.map(programOf),
  ...Array.from({ length: 17 }, (_, opcode) =>
    Uint8Array.from([Record.RECEIVE, 2, 100, 0, Record.SEND, opcode, 2, 2, 8, 0, 1, 3, 0, 0, Record.TRANSMIT, 9]),
  ),
]
