/*
 * Work completions, read in place (R45). Each CQ has one object for the completion that was polled last; the object's
 * accessors read the ring. Nothing is allocated or copied.
 */
import { type CauseName, causeOfCode } from '../../../spec/check/causes.ts'
import { swap32, TWO_32 } from '../../../spec/memory.ts'
import { WcFlags, WcOpcode, WcStatus } from '../../../spec/work.ts'
import { withoutObject } from '../error.ts'
import { showAs } from '../objects/show.ts'
import type { ProgramRing } from '../ring.ts'

/** ibv_wc_status by name. */
export type StatusName = keyof typeof WcStatus.values
/** ibv_wc_opcode by name. */
export type OpcodeName = keyof typeof WcOpcode.values

/** The values of a work completion (ibv_wc). */
export interface CompletionRecord {
  /** wr_id of the request, an integer from 0 to 2^53 - 1. */
  readonly id: number
  /** Whether the status is SUCCESS. */
  readonly ok: boolean
  /** ibv_wc_status. */
  readonly status: number
  /** `status` by name: 'SUCCESS', 'RETRY_EXC_ERR' … */
  readonly statusName: StatusName
  /** ibv_wc_opcode; valid only if `ok`. */
  readonly opcode: number
  /** `opcode` by name: 'SEND', 'RECV' … */
  readonly opcodeName: OpcodeName
  /** Name of the cause of a failure (docs/reference/vendor-errors.md); undefined if `ok`, or if no cause is known. */
  readonly cause: CauseName | undefined
  /** vendor_err: number of the cause (docs/reference/vendor-errors.md); 0 on success. */
  readonly vendorError: number
  /** Bytes received or read. */
  readonly bytes: number
  /** Number of the queue pair, 24 bits. */
  readonly qpn: number
  /** Immediate data of a received message, u32; undefined without immediate data. */
  readonly immediate: number | undefined
  /** The rkey that a received message has invalidated; undefined if there is none. */
  readonly invalidated: number | undefined
  /** Queue pair number of a received datagram's sender. */
  readonly sourceQpn: number
  /** LID of a received datagram's sender, on InfiniBand; otherwise 0. */
  readonly sourceLid: number
  /** Whether a received datagram's buffer begins with 40 bytes of GRH or IP header (`senderOf`). */
  readonly hasGrh: boolean
  /**
   * Time of the completion in nanoseconds of `device.clock()`, exact up to 2^53; undefined unless the CQ has the kind
   * 'timed'.
   */
  readonly timestamp: number | undefined
}

/** A work completion (ibv_wc), valid until the next `poll`, `wait` or `resize` of its CQ, or the close of the CQ. */
export interface Completion extends CompletionRecord {
  /** A copy to keep: a plain object. */
  copy(): CompletionRecord
}

const { GRH, WITH_IMM, WITH_INV } = WcFlags.values
/** The names of an enum by their values. */
const namesOf = <N extends string>(values: Readonly<Record<N, number>>): readonly N[] => {
  const names: N[] = []
  for (const [name, value] of Object.entries(values)) names[value as number] = name as N
  return names
}
const statusNames = namesOf(WcStatus.values)
const opcodeNames = namesOf(WcOpcode.values)
const SUCCESS = WcStatus.values.SUCCESS

/** The u32 at byte offset `at`. */
const wordAt = (words: Int32Array, at: number): number => words[at >> 2]! >>> 0

/** The completion object of one CQ. */
export class CompletionCursor implements Completion {
  // Private: hidden from programs that spread or compare the object.
  #ring: ProgramRing
  #at = -1
  readonly #hasTimestamps: boolean

  constructor(ring: ProgramRing, hasTimestamps = false) {
    this.#ring = ring
    this.#hasTimestamps = hasTimestamps
  }

  get ring(): ProgramRing {
    return this.#ring
  }

  set ring(ring: ProgramRing) {
    this.#ring = ring
  }

  /** Byte offset of the completion in the ring; -1 before the first. */
  get at(): number {
    return this.#at
  }

  set at(at: number) {
    this.#at = at
  }

  copy(): CompletionRecord {
    if (!(this instanceof CompletionCursor)) throw withoutObject('wc.copy')
    const { id, ok, status, statusName, opcode, opcodeName, cause, vendorError } = this
    const { bytes, qpn, immediate, invalidated, sourceQpn, sourceLid, hasGrh, timestamp } = this
    return {
      id,
      ok,
      status,
      statusName,
      opcode,
      opcodeName,
      cause,
      vendorError,
      bytes,
      qpn,
      immediate,
      invalidated,
      sourceQpn,
      sourceLid,
      hasGrh,
      timestamp,
    }
  }

  get id(): number {
    const { words, layout } = this.#ring
    return wordAt(words, this.#at + layout.wc.WR_ID) + wordAt(words, this.#at + layout.wc.WR_ID + 4) * TWO_32
  }

  get ok(): boolean {
    return this.status === SUCCESS
  }

  get status(): number {
    const { words, layout } = this.#ring
    return wordAt(words, this.#at + layout.wc.STATUS)
  }

  get statusName(): StatusName {
    return statusNames[this.status] ?? 'GENERAL_ERR'
  }

  get opcode(): number {
    const { words, layout } = this.#ring
    return wordAt(words, this.#at + layout.wc.OPCODE)
  }

  get opcodeName(): OpcodeName {
    return opcodeNames[this.opcode]!
  }

  get vendorError(): number {
    const { words, layout } = this.#ring
    return this.ok ? 0 : wordAt(words, this.#at + layout.wc.VENDOR_ERR)
  }

  get cause(): CauseName | undefined {
    return causeOfCode(this.vendorError)
  }

  get bytes(): number {
    const { words, layout } = this.#ring
    return wordAt(words, this.#at + layout.wc.BYTE_LEN)
  }

  get qpn(): number {
    const { words, layout } = this.#ring
    return wordAt(words, this.#at + layout.wc.QP_NUM)
  }

  get immediate(): number | undefined {
    const { words, layout } = this.#ring
    const flags = wordAt(words, this.#at + layout.wc.FLAGS)
    return (flags & WITH_IMM) === 0 ? undefined : swap32(wordAt(words, this.#at + layout.wc.IMM))
  }

  get invalidated(): number | undefined {
    const { words, layout } = this.#ring
    const flags = wordAt(words, this.#at + layout.wc.FLAGS)
    return (flags & WITH_INV) === 0 ? undefined : wordAt(words, this.#at + layout.wc.IMM)
  }

  get sourceQpn(): number {
    const { words, layout } = this.#ring
    return wordAt(words, this.#at + layout.wc.SRC_QP)
  }

  get sourceLid(): number {
    const { words, layout } = this.#ring
    // One word: P_Key index and SLID.
    return wordAt(words, this.#at + layout.wc.PKEY_INDEX) >>> 16
  }

  get hasGrh(): boolean {
    const { words, layout } = this.#ring
    return (wordAt(words, this.#at + layout.wc.FLAGS) & GRH) !== 0
  }

  get timestamp(): number | undefined {
    if (!this.#hasTimestamps) return undefined
    const { words, layout } = this.#ring
    return wordAt(words, this.#at + layout.wc.TIMESTAMP) + wordAt(words, this.#at + layout.wc.TIMESTAMP + 4) * TWO_32
  }
}

showAs<CompletionCursor>(
  CompletionCursor.prototype,
  'Completion',
  ({ at, ring, id, statusName, opcodeName, ok, cause, bytes, qpn, immediate, invalidated, timestamp }) =>
    // The CQ has no completion yet, or no ring because it is closed.
    at < 0 || ring.capacity === 0
      ? {}
      : {
          id,
          status: statusName,
          opcode: opcodeName,
          ...(!ok && { cause }),
          bytes,
          qpn,
          ...(immediate !== undefined && { immediate }),
          ...(invalidated !== undefined && { invalidated }),
          ...(timestamp !== undefined && { timestamp }),
        },
  // false for the prototype
  ({ ring }) => ring !== undefined,
)
