/*
 * Work completions, read in place (R45): a base record that every completion has, and optional parts that are undefined
 * if absent. One object per CQ represents the oldest completion; nothing is allocated or copied, so its values are
 * valid until the next step of the CQ.
 */
import { type CauseName, causeOfCode } from '../../spec/check/causes.ts'
import { swap32, TWO_32 } from '../../spec/memory.ts'
import { WcFlags, WcOpcode, WcStatus } from '../../spec/work.ts'
import { showAs } from '../objects/show.ts'
import type { ProgramRing } from '../ring.ts'

/** ibv_wc_status by name. */
export type StatusName = keyof typeof WcStatus.values
/** ibv_wc_opcode by name. */
export type OpcodeName = keyof typeof WcOpcode.values

/** A work completion, read in place: valid until the next step of its CQ. */
export interface Completion {
  /** wr_id of the request, an integer up to 2^53. */
  readonly id: number
  /** Whether the status is SUCCESS. */
  readonly ok: boolean
  /** ibv_wc_status. */
  readonly status: number
  /** `status` by name: 'SUCCESS', 'RETRY_EXC_ERR' … */
  readonly statusName: StatusName
  /** ibv_wc_opcode; undefined meaning unless `ok`. */
  readonly opcode: number
  /** `opcode` by name: 'SEND', 'RECV' … */
  readonly opcodeName: OpcodeName
  /** Name of the cause of a failed request (docs/reference/vendor-errors.md); otherwise undefined. */
  readonly cause: CauseName | undefined
  /** vendor_err: number of the cause (docs/reference/vendor-errors.md); 0 on success. */
  readonly vendorError: number
  /** Bytes received or read. */
  readonly bytes: number
  /** The queue pair's number. */
  readonly qpn: number
  /** The immediate data of a message, u32. */
  readonly immediate: number | undefined
  /** The rkey that the peer's message invalidated. */
  readonly invalidated: number | undefined
  /** Datagrams: the sender's queue pair number. */
  readonly sourceQpn: number
  /** Datagrams: the first 40 bytes of the buffer are a GRH. */
  readonly hasGrh: boolean
  /** Of a queue of kind 'timed': when it completed, nanoseconds of `device.clock()`, exact up to 2^53. */
  readonly timestamp: number | undefined
}

const { GRH, WITH_IMM, WITH_INV } = WcFlags.values
const namesOf = <N extends string>(values: Readonly<Record<N, number>>): readonly N[] => {
  const names: N[] = []
  for (const [name, value] of Object.entries(values)) names[value as number] = name as N
  return names
}
const statusNames = namesOf(WcStatus.values)
const opcodeNames = namesOf(WcOpcode.values)
const SUCCESS = WcStatus.values.SUCCESS

const wordAt = (words: Int32Array, at: number): number => words[at >> 2]! >>> 0

/** The cursor of one CQ: `at` is the offset of its completion. */
export class CompletionCursor implements Completion {
  ring: ProgramRing
  at = 0
  readonly #timed: boolean

  /** `timed`: the CQ's completions have timestamps. */
  constructor(ring: ProgramRing, timed = false) {
    this.ring = ring
    this.#timed = timed
  }

  get id(): number {
    const { words, layout } = this.ring
    return wordAt(words, this.at + layout.wc.WR_ID) + wordAt(words, this.at + layout.wc.WR_ID + 4) * TWO_32
  }

  get ok(): boolean {
    return this.status === SUCCESS
  }

  get status(): number {
    const { words, layout } = this.ring
    return wordAt(words, this.at + layout.wc.STATUS)
  }

  get statusName(): StatusName {
    return statusNames[this.status] ?? 'GENERAL_ERR'
  }

  get opcode(): number {
    const { words, layout } = this.ring
    return wordAt(words, this.at + layout.wc.OPCODE)
  }

  get opcodeName(): OpcodeName {
    return opcodeNames[this.opcode]!
  }

  get vendorError(): number {
    const { words, layout } = this.ring
    return this.ok ? 0 : wordAt(words, this.at + layout.wc.VENDOR_ERR)
  }

  get cause(): CauseName | undefined {
    return causeOfCode(this.vendorError)
  }

  get bytes(): number {
    const { words, layout } = this.ring
    return wordAt(words, this.at + layout.wc.BYTE_LEN)
  }

  get qpn(): number {
    const { words, layout } = this.ring
    return wordAt(words, this.at + layout.wc.QP_NUM)
  }

  get immediate(): number | undefined {
    const { words, layout } = this.ring
    const flags = wordAt(words, this.at + layout.wc.FLAGS)
    return (flags & WITH_IMM) === 0 ? undefined : swap32(wordAt(words, this.at + layout.wc.IMM))
  }

  get invalidated(): number | undefined {
    const { words, layout } = this.ring
    const flags = wordAt(words, this.at + layout.wc.FLAGS)
    return (flags & WITH_INV) === 0 ? undefined : wordAt(words, this.at + layout.wc.IMM)
  }

  get sourceQpn(): number {
    const { words, layout } = this.ring
    return wordAt(words, this.at + layout.wc.SRC_QP)
  }

  get hasGrh(): boolean {
    const { words, layout } = this.ring
    return (wordAt(words, this.at + layout.wc.FLAGS) & GRH) !== 0
  }

  get timestamp(): number | undefined {
    if (!this.#timed) return undefined
    const { words, layout } = this.ring
    return wordAt(words, this.at + layout.wc.TIMESTAMP) + wordAt(words, this.at + layout.wc.TIMESTAMP + 4) * TWO_32
  }
}

showAs<CompletionCursor>(
  CompletionCursor.prototype,
  'Completion',
  ({ id, statusName, opcodeName, ok, cause, bytes, qpn, immediate, invalidated, timestamp }) => ({
    id,
    status: statusName,
    opcode: opcodeName,
    ...(!ok && { cause }),
    bytes,
    qpn,
    ...(immediate !== undefined && { immediate }),
    ...(invalidated !== undefined && { invalidated }),
    ...(timestamp !== undefined && { timestamp }),
  }),
  ({ ring }) => ring !== undefined,
)
