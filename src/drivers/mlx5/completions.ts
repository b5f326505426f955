/*
 * Completion queues in the program's memory. An entry belongs to the program when its owner bit is that of the round.
 * The program stores the number of polled completions, and its armings, in the doorbell record.
 */
import { arm, completedSome } from '../../core/events/events.ts'
import { bufferMemory, type ClockPage, type MappedChunk } from '../../core/memory/mappable-memory.ts'
import { type Ring, storeConsumer } from '../../core/memory/rings.ts'
import { Armed } from '../../core/model.ts'
import { compactLayout } from '../../spec/drivers/compact-rings.ts'
import {
  ArmWord,
  CONSUMED_MASK,
  CompletionEntry,
  CompletionKind,
  DoorbellRecord,
  GENERAL_SYNDROME,
  syndromes,
  vendorSyndromes,
} from '../../spec/drivers/mlx5-queues.ts'
import { CqKind } from '../../spec/enums.ts'
import { TWO_32 } from '../../spec/memory.ts'
import { WcFlags, WcOpcode, WcStatus } from '../../spec/work.ts'
import { Completion } from '../../transport/engine/types.ts'
import type { CqRing } from '../rxe/rings/completion-ring.ts'
import type { CqObject } from '../rxe/state.ts'
import { clockCount } from './clock.ts'
import type { ProgramRecord } from './program-memory.ts'

const { SUCCESS } = WcStatus.values
const { RECV, RECV_RDMA_WITH_IMM } = WcOpcode.values
const { GRH, WITH_IMM, WITH_INV } = WcFlags.values

/** The state of a CQ object. */
export interface Mlx5Cq extends CqRing {
  /** The program's entries; replaced when the queue is resized. */
  buffer: MappedChunk
  entryBytes: number
  readonly record: ProgramRecord
  readonly hasChannel: boolean
  /** The clock that the program reads. */
  readonly clock: ClockPage | undefined
  /** Number of the completions up to the last event. */
  reported: number
}

/** What a completion says of its queue pair: its number in completions, and the opcode of the request at a block. */
export interface CompletedQueues {
  readonly uidx: number
  /** Its number, if completions of a row with another number belong to it. */
  readonly qpn?: number
  /** Its receives are raw packets. */
  readonly hasFrames?: boolean
  opcodeOf(counter: number): number
}

/** The queue pair of a completion, or the SRQ of an XRC target's; undefined if it was destroyed. */
export type FindQueues = (qpn: number) => CompletedQueues | undefined

/** More than a CQ's 2^22 entries. */
const NEVER_FULL = 0x7fff_ffff

/**
 * The ring of a CQ with this number of entries, a power of two. The program's index is read from the record. With
 * `ignoresOverrun` the CQ never counts as full: the program stores its index only when it arms the CQ.
 */
const createRing = (entries: number, record: ProgramRecord, ignoresOverrun: boolean): Ring => {
  const area = bufferMemory().allocate(compactLayout.header.DATA)
  const ring: Ring = {
    area,
    headerAt: 0,
    elementsAt: 0,
    layout: compactLayout,
    mask: entries - 1,
    log2Element: 0,
    wrap: CONSUMED_MASK,
    capacity: ignoresOverrun ? NEVER_FULL : entries,
    refresh: () => storeConsumer(ring, record.load(DoorbellRecord.CONSUMED)),
  }
  return ring
}

export interface CqDescription {
  readonly entries: number
  readonly entryBytes: number
  readonly buffer: MappedChunk
  readonly record: ProgramRecord
  readonly compVector: number
  readonly hasChannel: boolean
  readonly ignoresOverrun: boolean
  readonly clock: ClockPage | undefined
}

/** `queuesOf`: finds the queues of a completion. The arm word of the record is ArmWord.TAKEN. */
export const createCq = (
  { entries, entryBytes, buffer, record, compVector, hasChannel, ignoresOverrun, clock }: CqDescription,
  queuesOf: FindQueues,
): Mlx5Cq => ({
  write: (cq, words, now) => writeEntry(cq as Mlx5Cq, words, now, queuesOf(words[Completion.QPN]!)),
  kind: CqKind.values.ENTRIES,
  compVector,
  number: -1,
  ring: createRing(entries, record, ignoresOverrun),
  producer: 0,
  consumer: 0,
  outstanding: 0,
  hasOverrun: false,
  ignoresOverrun,
  completions: 0,
  errors: 0,
  buffer,
  entryBytes,
  record,
  hasChannel,
  clock,
  reported: 0,
})

/** Offset of the 64 bytes of the next entry. */
const nextEntry = ({ buffer, entryBytes, producer, ring }: Mlx5Cq): number =>
  buffer.at + (producer & ring.mask) * entryBytes + entryBytes - CompletionEntry.BYTES

/** Gives the next entry to the program. `kind`: `CompletionKind`. */
const publish = ({ buffer, producer, ring }: Mlx5Cq, at: number, kind: number, counter: number): void => {
  const owner = (kind << 4) | ((producer & (ring.mask + 1)) === 0 ? 0 : 1)
  const word = ((counter >>> 8) & 0xff) | ((counter & 0xff) << 8) | (owner << 24)
  // the last store: the program takes the entry as soon as the owner bit changes
  Atomics.store(buffer.words, (at + CompletionEntry.COUNTER) >> 2, word)
}

const kindOf = (status: number, opcode: number, flags: number): number => {
  const isReceive = (opcode & RECV) !== 0
  if (status !== SUCCESS) return isReceive ? CompletionKind.RECEIVE_ERROR : CompletionKind.REQUEST_ERROR
  if (!isReceive) return CompletionKind.REQUEST
  if (opcode === RECV_RDMA_WITH_IMM) return CompletionKind.RECEIVE_WRITE_IMM
  if ((flags & WITH_IMM) !== 0) return CompletionKind.RECEIVE_IMM
  return (flags & WITH_INV) !== 0 ? CompletionKind.RECEIVE_INVALIDATE : CompletionKind.RECEIVE
}

const writeEntry = (cq: Mlx5Cq, words: Uint32Array, now: () => number, queues: CompletedQueues | undefined): void => {
  const { view } = cq.buffer
  const at = nextEntry(cq)
  const status = words[Completion.STATUS]!
  const flags = words[Completion.FLAGS]!
  const counter = words[Completion.ID_LO]!
  const kind = kindOf(status, words[Completion.OPCODE]!, flags)
  const opcode =
    kind === CompletionKind.REQUEST || kind === CompletionKind.REQUEST_ERROR ? queues?.opcodeOf(counter) : 0
  view.setUint32(at + CompletionEntry.UIDX, queues?.uidx ?? 0)
  view.setUint32(
    at + CompletionEntry.OPCODE_QPN,
    (((opcode ?? 0) << 24) | (queues?.qpn ?? words[Completion.QPN]!)) >>> 0,
  )
  if (status === SUCCESS) {
    const grh = (flags & GRH) === 0 ? 0 : 1 << 28
    view.setUint8(at + CompletionEntry.PATH, 0)
    view.setUint16(at + CompletionEntry.SLID, 0)
    const isFrame = queues?.hasFrames === true && kind === CompletionKind.RECEIVE
    view.setUint16(at + CompletionEntry.FRAME_HEADERS, isFrame ? words[Completion.SL]! : 0)
    if (isFrame) view.setUint32(at + CompletionEntry.OPCODE_QPN, words[Completion.IMM]!)
    const source = grh | ((words[Completion.SL]! & 15) << 24) | words[Completion.SRC_QPN]!
    view.setUint32(at + CompletionEntry.SOURCE, isFrame ? 0 : source)
    view.setUint32(at + CompletionEntry.IMM, isFrame ? 0 : words[Completion.IMM]!)
    view.setUint32(at + CompletionEntry.LENGTH, words[Completion.BYTES]!)
    const time = clockCount(now)
    view.setUint32(at + CompletionEntry.TIMESTAMP, time / TWO_32)
    view.setUint32(at + CompletionEntry.TIMESTAMP + 4, time)
    // the program must not read an earlier time when it has polled this completion
    if (cq.clock?.isReadable === true) cq.clock.tick()
  } else {
    view.setUint8(at + CompletionEntry.VENDOR_SYNDROME, vendorSyndromes[status] ?? words[Completion.VENDOR]!)
    view.setUint8(at + CompletionEntry.SYNDROME, syndromes[status] ?? GENERAL_SYNDROME)
  }
  if (cq.hasChannel) {
    takeArming(cq)
    if (objects.get(cq)?.events?.armed === Armed.NEXT) cq.reported = cq.completions + 1
  }
  publish(cq, at, kind, counter)
}

/** The arming that the program has stored, once; undefined: none. */
const armingOf = ({ record }: Mlx5Cq): number | undefined => {
  const word = record.load(DoorbellRecord.ARM) >>> 0
  if (word === ArmWord.TAKEN) return undefined
  record.replace(DoorbellRecord.ARM, word, ArmWord.TAKEN)
  return word
}

const objects = new WeakMap<Mlx5Cq, CqObject>()

/** Call this when the CQ's object has its events. */
export const watchArmings = (object: CqObject): void => {
  objects.set(object.state as Mlx5Cq, object)
}

/**
 * Arms the CQ if the program has stored an arming. Completions after the position in it and after the last event raise
 * an event immediately, unless only solicited ones shall: programs poll again after an arming. If events are moderated,
 * these completions count. True if there was an arming.
 */
export const takeArming = (cq: Mlx5Cq): boolean => {
  const object = objects.get(cq)
  const word = object === undefined ? undefined : armingOf(cq)
  if (object === undefined || word === undefined) return false
  const isSolicitedOnly = (word & ArmWord.SOLICITED) !== 0
  arm(object, isSolicitedOnly)
  const unpolled = (cq.producer - word) & ArmWord.INDEX_MASK
  const later = unpolled <= cq.ring.mask + 1 ? Math.min(unpolled, cq.completions - cq.reported) : 0
  if (!isSolicitedOnly && later > 0 && object.events !== undefined) {
    cq.reported = cq.completions
    completedSome(object.events, true, later)
  }
  return true
}

/** Moves the CQ to `buffer` with `entries` entries: the last entry in the old one tells the program. */
export const resizeCq = (cq: Mlx5Cq, entries: number, entryBytes: number, buffer: MappedChunk): void => {
  publish(cq, nextEntry(cq), CompletionKind.RESIZED, 0)
  cq.producer = (cq.producer + 1) & CONSUMED_MASK
  cq.outstanding++
  cq.ring = createRing(entries, cq.record, cq.ring.capacity === NEVER_FULL)
  cq.buffer = buffer
  cq.entryBytes = entryBytes
}
