/*
 * Programs for the engine's fuzz target (engine.ts): sequences of records, each for one queue pair. Any bytes are a
 * valid program. Fields of a packet that the receiver checks first (queue pair, PSN, key) can be corrected, so that
 * random packets pass these checks.
 */
import { OP_REQUEST, opcodeFlags } from '../../../src/spec/wire/opcodes.ts'
import { captureNames, recordedPackets } from './codecs.ts'

export const RecordKind = {
  /** A packet arrives. */
  PACKET: 0,
  /** A send is posted. */
  SEND: 1,
  /** Receives are posted. */
  RECEIVE: 2,
  /** The engine sends. */
  TRANSMIT: 3,
  /** Time passes. */
  TIME: 4,
  /** The queue pair moves to another state. */
  STATE: 5,
  /** Attributes of the queue pair are modified. */
  ATTRIBUTES: 6,
  /** The queue pair is destroyed and created again. */
  RECREATE: 7,
} as const
const RECORD_KINDS = 8

/** Bits of a packet record: the fields to correct. JOINS: the next packet may arrive together with this packet. */
export const PacketFlag = { QPN: 1, PSN: 2, KEY: 4, PKEY: 8, SERVICE: 16, VERSION: 32, JOINS: 64 } as const

/** Maximum packet bytes in a record: the longest headers and a little payload. */
export const HEAD_BYTES = 48

/**
 * The number of argument bytes of each kind. The arguments follow the byte with kind and queue pair.
 * - PACKET: see `packetRecord`; the packet's bytes follow
 * - SEND: opcode, flags, number of elements, length (2 bytes), offset of the remote address, key or immediate data,
 *   compare value, swap value or window
 * - RECEIVE: number of requests, length / 16, key
 * - TRANSMIT: not used
 * - TIME: mantissa and exponent of the microseconds that pass
 * - STATE: choice of the next state and its attributes
 * - ATTRIBUTES: access flags, minRnrTimer, maxDestRdAtomic, maxRdAtomic
 * - RECREATE: done only if the low three bits are 0
 */
const ARGUMENT_BYTES: readonly number[] = [5, 9, 3, 1, 2, 1, 4, 1]

export interface Step {
  readonly kind: number
  /** Index of the queue pair, from 0 to 31. */
  readonly queuePair: number
  /** Offset in the program of the first byte of the arguments. */
  readonly start: number
  /** Offset after the last byte of the record that the program has. */
  readonly end: number
}

/** The records of a program. The first byte has the kind in the lower three bits, the queue pair in the upper five. */
export const stepsOf = (bytes: Uint8Array): Step[] => {
  const steps: Step[] = []
  for (let offset = 0; offset < bytes.length; ) {
    const kind = bytes[offset] % RECORD_KINDS
    const queuePair = bytes[offset] >> 3
    let end = offset + 1 + ARGUMENT_BYTES[kind]
    if (kind === RecordKind.PACKET) end += Math.min(bytes[offset + 5] ?? 0, HEAD_BYTES)
    steps.push({ kind, queuePair, start: offset + 1, end: Math.min(end, bytes.length) })
    offset = end
  }
  return steps
}

/** The bytes of each record of a program. */
export const splitProgram = (bytes: Uint8Array): Uint8Array[] =>
  stepsOf(bytes).map(({ start, end }) => bytes.slice(start - 1, end))

const firstByte = (queuePair: number, kind: number): number => (queuePair << 3) | kind
const transmitRecord = (queuePair: number): number[] => [firstByte(queuePair, RecordKind.TRANSMIT), 0]

/**
 * Arguments of a packet record: PacketFlag; the packet's PSN minus the expected PSN (a signed byte); the packet's
 * length in units of four bytes (u16); the number of packet bytes that follow.
 */
const packetRecord = (queuePair: number, flags: number, psnDelta: number, packet: Uint8Array): number[] => {
  const head = packet.subarray(0, HEAD_BYTES)
  const words = packet.length >> 2
  return [firstByte(queuePair, RecordKind.PACKET), flags, psnDelta, words >> 8, words, head.length, ...head]
}

/** Indexes of queue pairs in `SERVICES` (engine.ts), by the upper three bits of BTH.opcode. */
const QUEUE_PAIR_OF_SERVICE = [0, 2, 0, 3, 0, 5]
const ALL_CORRECTIONS = PacketFlag.QPN | PacketFlag.PSN | PacketFlag.KEY | PacketFlag.PKEY | PacketFlag.VERSION

/**
 * A program from a capture: its packets go to queue pairs of their services; a request is posted before each response.
 */
const programOf = (name: string): Uint8Array => {
  const program: number[] = []
  const packets = recordedPackets(name).slice(0, 16)
  for (let queuePair = 0; queuePair < 6; queuePair++) program.push(firstByte(queuePair, RecordKind.RECEIVE), 3, 200, 0)
  packets.forEach((packet, i) => {
    const queuePair = QUEUE_PAIR_OF_SERVICE[packet[0] >> 5] ?? 0
    if ((opcodeFlags[packet[0]] & OP_REQUEST) === 0)
      program.push(
        ...[firstByte(queuePair, RecordKind.SEND), i % 10, 2, 1, 0, 60, 1, i, 0, 0],
        ...transmitRecord(queuePair),
      )
    program.push(...packetRecord(queuePair, ALL_CORRECTIONS, 0, packet))
    if (i % 4 === 3) program.push(...transmitRecord(queuePair))
  })
  return Uint8Array.from([...program, firstByte(0, RecordKind.TIME), 200, 4, ...transmitRecord(0)])
}

/** Initial programs: one from each capture, and one for each request opcode up to 16, unused ones too. */
export const seedPrograms = (): Uint8Array[] => [
  ...captureNames.map(programOf),
  ...Array.from({ length: 17 }, (_, opcode) =>
    Uint8Array.from([
      ...[firstByte(0, RecordKind.RECEIVE), 2, 100, 0],
      ...[firstByte(0, RecordKind.SEND), opcode, 2, 2, 8, 0, 1, 3, 0, 0],
      ...transmitRecord(0),
    ]),
  ),
]
