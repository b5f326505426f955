/*
 * Completion queues in the program's memory. An entry belongs to the program when its owner bit is that of the round.
 * The program stores the number of polled completions, and its armings, in the doorbell record.
 */
import { arm, completedSome } from '../../core/events/events.ts'
import type { ClockPage } from '../../core/memory/mappable-memory.ts'
import { Armed, type CoreObject } from '../../core/model.ts'
import {
  ArmWord,
  CONSUMED_MASK,
  CompletionEntry,
  CompletionKind,
  DoorbellRecord,
  GENERAL_SYNDROME,
  receiveSyndromes,
  syndromes,
  vendorSyndromes,
} from '../../spec/drivers/mlx5-queues.ts'
import { CqKind } from '../../spec/enums.ts'
import { TWO_32 } from '../../spec/memory.ts'
import { WcFlags, WcOpcode, WcStatus } from '../../spec/work.ts'
import { Completion, DatagramPath } from '../../transport/engine/types.ts'
import { CompletionQueue } from '../soft/completion-queue.ts'
import { clockCount } from './clock.ts'
import type { ProgramRecord, SharedPart } from './program-memory.ts'
import { SignatureError } from './signature/layout.ts'
import { SigFault, type SignatureFault } from './signature/signature.ts'

const { SUCCESS } = WcStatus.values
const { RECV, RECV_RDMA_WITH_IMM } = WcOpcode.values
const { GRH, WITH_IMM, WITH_INV } = WcFlags.values

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
type FindQueues = (qpn: number) => CompletedQueues | undefined

/** More than a CQ's 2^22 entries. */
const NEVER_FULL = 0x7fff_ffff
const QPN_MASK = 0xff_ffff

interface CqDescription {
  /** A power of two. */
  readonly entries: number
  readonly entryBytes: number
  /** The first half of an entry is written, too. */
  readonly isPadded: boolean
  readonly buffer: SharedPart
  /** Its arm word is ArmWord.TAKEN. */
  readonly record: ProgramRecord
  readonly compVector: number
  readonly hasChannel: boolean
  /** The CQ never counts as full: the program stores its index only when it arms the CQ. */
  readonly ignoresOverrun: boolean
  /** The clock that the program reads. */
  readonly clock: ClockPage | undefined
}

/** The state of a CQ object. */
export class Mlx5Cq extends CompletionQueue {
  /** libmlx5 takes only the status from an entry in error. */
  readonly showsAllFields = false
  readonly record: ProgramRecord
  readonly hasChannel: boolean
  readonly isPadded: boolean
  readonly clock: ClockPage | undefined
  /** Its events; undefined before it has any. */
  object: CoreObject | undefined
  /** The program's entries; replaced when the queue is resized. */
  buffer: SharedPart
  entries: number
  entryBytes: number
  /** Number of the completions up to the last event. */
  reported = 0
  /** Entries of a new buffer that have nothing, not even the sign that they are invalid. */
  blank = 0
  /** The error of a signature that the next entry tells of. */
  fault: SignatureFault | undefined
  readonly #queuesOf: FindQueues

  /** `queuesOf`: finds the queues of a completion. */
  constructor(description: CqDescription, queuesOf: FindQueues) {
    const { compVector, ignoresOverrun } = description
    super({ kind: CqKind.values.ENTRIES, compVector, ignoresOverrun })
    this.record = description.record
    this.hasChannel = description.hasChannel
    this.isPadded = description.isPadded
    this.clock = description.clock
    this.buffer = description.buffer
    this.entries = description.entries
    this.entryBytes = description.entryBytes
    this.#queuesOf = queuesOf
  }

  override get hidesPolls(): boolean {
    return this.ignoresOverrun
  }

  get capacity(): number {
    return this.ignoresOverrun ? NEVER_FULL : this.entries
  }

  get wrap(): number {
    return CONSUMED_MASK
  }

  loadConsumer(): number {
    return this.record.load(DoorbellRecord.CONSUMED) & CONSUMED_MASK
  }

  write(words: Uint32Array, now: () => number): void {
    const { fault } = this
    if (fault === undefined) writeEntry(this, words, now, this.#queuesOf(words[Completion.QPN]!))
    else writeFault(this, fault, words[Completion.QPN]!)
  }

  /** The owner bit of the entry has told the program. */
  publish(): void {}

  lastReceiver(max: number): number | undefined {
    const { view, words } = this.buffer
    for (let i = 1; i <= Math.min(max, this.entries); i++) {
      const at = entryAt(this, this.producer - i)
      const kind = words[(at + CompletionEntry.COUNTER) >> 2]! >>> 28
      if (isMessage(kind)) return view.getUint32(at + CompletionEntry.OPCODE_QPN) & QPN_MASK
    }
    return undefined
  }
}

/** Offset of the 64 bytes of an entry. */
const entryAt = ({ buffer, entryBytes, entries }: Mlx5Cq, index: number): number =>
  buffer.at + (index & (entries - 1)) * entryBytes + entryBytes - CompletionEntry.BYTES

/** Makes an entry one that the program does not take. */
const invalidate = (cq: Mlx5Cq, index: number): void => {
  cq.buffer.bytes[entryAt(cq, index) + CompletionEntry.COUNTER + 3] = CompletionKind.INVALID << 4
}

/** Gives the next entry to the program. `kind`: `CompletionKind`. */
const publish = (cq: Mlx5Cq, at: number, kind: number, counter: number): void => {
  const { buffer, producer, entries } = cq
  if (cq.blank > 0) {
    cq.blank--
    // not if that one still has a completion that waits
    if (cq.outstanding + 1 < entries) invalidate(cq, producer + 1)
  }
  const owner = (kind << 4) | ((producer & entries) === 0 ? 0 : 1)
  const word = ((counter >>> 8) & 0xff) | ((counter & 0xff) << 8) | (owner << 24)
  // the last store: the program takes the entry as soon as the owner bit changes
  Atomics.store(buffer.words, (at + CompletionEntry.COUNTER) >> 2, word)
}

const messages: readonly number[] = [
  CompletionKind.RECEIVE_WRITE_IMM,
  CompletionKind.RECEIVE,
  CompletionKind.RECEIVE_IMM,
  CompletionKind.RECEIVE_INVALIDATE,
]
const isMessage = (kind: number): boolean => messages.includes(kind)

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
  const at = entryAt(cq, cq.producer)
  const status = words[Completion.STATUS]!
  const flags = words[Completion.FLAGS]!
  const counter = words[Completion.ID_LO]!
  const kind = kindOf(status, words[Completion.OPCODE]!, flags)
  const opcode =
    kind === CompletionKind.REQUEST || kind === CompletionKind.REQUEST_ERROR ? queues?.opcodeOf(counter) : 0
  if (cq.isPadded) cq.buffer.bytes.fill(0, at - CompletionEntry.BYTES, at)
  view.setUint32(at + CompletionEntry.UIDX, queues?.uidx ?? 0)
  view.setUint32(
    at + CompletionEntry.OPCODE_QPN,
    (((opcode ?? 0) << 24) | (queues?.qpn ?? words[Completion.QPN]!)) >>> 0,
  )
  if (status === SUCCESS) {
    const grh = (flags & GRH) === 0 ? 0 : 1 << 28
    view.setUint8(at + CompletionEntry.PATH, 0)
    const isFrame = queues?.hasFrames === true && kind === CompletionKind.RECEIVE
    view.setUint16(at + CompletionEntry.SLID, isFrame ? 0 : words[Completion.SL]! >>> DatagramPath.LID_SHIFT)
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
    const known = kind === CompletionKind.RECEIVE_ERROR ? receiveSyndromes : vendorSyndromes
    view.setUint8(at + CompletionEntry.VENDOR_SYNDROME, known[status] ?? 0)
    view.setUint8(at + CompletionEntry.SYNDROME, syndromes[status] ?? GENERAL_SYNDROME)
  }
  noteArming(cq)
  publish(cq, at, kind, counter)
}

/** Before an entry: its event, if the CQ is armed, is that of all completions so far. */
const noteArming = (cq: Mlx5Cq): void => {
  if (!cq.hasChannel) return
  takeArming(cq)
  if (cq.object?.events?.armed === Armed.NEXT) cq.reported = cq.completions + 1
}

const syndromeOfFault = {
  [SigFault.NONE]: 0,
  [SigFault.GUARD]: SignatureError.GUARD,
  [SigFault.APPLICATION_TAG]: SignatureError.APPLICATION_TAG,
  [SigFault.REFERENCE_TAG]: SignatureError.REFERENCE_TAG,
} as const

const writeFault = (
  cq: Mlx5Cq,
  { fault, key, isWire, expected, actual, offset }: SignatureFault,
  qpn: number,
): void => {
  const { view } = cq.buffer
  const at = entryAt(cq, cq.producer)
  view.setUint32(at + SignatureError.EXPECTED, expected[0])
  view.setUint32(at + SignatureError.ACTUAL, actual[0])
  view.setUint32(at + SignatureError.EXPECTED_REFERENCE, expected[1])
  view.setUint32(at + SignatureError.ACTUAL_REFERENCE, actual[1])
  view.setUint32(at + SignatureError.SYNDROME, syndromeOfFault[fault] << 16)
  view.setUint8(at + SignatureError.DOMAIN, isWire ? SignatureError.WIRE : SignatureError.MEMORY)
  view.setUint32(at + SignatureError.KEY, key)
  view.setUint32(at + SignatureError.OFFSET, offset / TWO_32)
  view.setUint32(at + SignatureError.OFFSET + 4, offset)
  view.setUint32(at + CompletionEntry.OPCODE_QPN, qpn)
  noteArming(cq)
  publish(cq, at, CompletionKind.SIGNATURE_ERROR, 0)
}

/** The arming that the program has stored, once; undefined: none. */
const armingOf = ({ record }: Mlx5Cq): number | undefined => {
  const word = record.load(DoorbellRecord.ARM) >>> 0
  if (word === ArmWord.TAKEN) return undefined
  record.replace(DoorbellRecord.ARM, word, ArmWord.TAKEN)
  return word
}

/**
 * Arms the CQ if the program has stored an arming. Completions after the position in it and after the last event raise
 * an event immediately, unless only solicited ones shall: programs poll again after an arming. If events are moderated,
 * these completions count. True if there was an arming.
 */
export const takeArming = (cq: Mlx5Cq): boolean => {
  const { object } = cq
  const word = object === undefined ? undefined : armingOf(cq)
  if (object === undefined || word === undefined) return false
  const isSolicitedOnly = (word & ArmWord.SOLICITED) !== 0
  arm(object, isSolicitedOnly)
  const unpolled = (cq.producer - word) & ArmWord.INDEX_MASK
  const later = unpolled <= cq.entries ? Math.min(unpolled, cq.completions - cq.reported) : 0
  if (!isSolicitedOnly && later > 0 && object.events !== undefined) {
    cq.reported = cq.completions
    completedSome(object.events, true, later)
  }
  return true
}

/** Moves the CQ to `buffer` with `entries` entries: the last entry in the old one tells the program. */
export const resizeCq = (cq: Mlx5Cq, entries: number, entryBytes: number, buffer: SharedPart): void => {
  publish(cq, entryAt(cq, cq.producer), CompletionKind.RESIZED, 0)
  cq.producer = (cq.producer + 1) & CONSUMED_MASK
  cq.outstanding++
  cq.entries = entries
  cq.buffer = buffer
  cq.entryBytes = entryBytes
  cq.blank = entries
  invalidate(cq, cq.producer)
}
