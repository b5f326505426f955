/*
 * Pages of a client's program that it shares with the device by mapping the context's memory file over them
 * (docs/decisions/adopted-pages.md). The answers of its calls tell the client what to map and what to unmap, and its
 * next message says that it has done so: only then is a range of the file used again.
 */
import type { Bytes } from '../../core/memory/address-space.ts'
import { PagesTakenError, type PageWriter } from '../../core/memory/mappable-memory.ts'
import { type Range, RangeList } from '../../core/memory/range-list.ts'
import { callError } from '../../spec/errno.ts'
import { MappingKind, SessionLimits } from '../../spec/session.ts'
import type { MappingNote } from '../../uapi/session-codec.ts'
import type { AdoptedRange, Adopter } from '../context/context-file.ts'
import type { ProcessSpace } from '../memory/process-space.ts'

/** Upper bound of user addresses on x86-64 and arm64. */
const USER_END = 2 ** 56

type ProgramMemory = Pick<ProcessSpace, 'check' | 'isPrivate' | 'read' | 'beginReplacement' | 'endReplacement'>

/** Work for the next answer. `whenDone`: of a release or punch. */
interface Note {
  readonly range: AdoptedRange
  readonly kind: number
  readonly whenDone?: () => void
}

const adopts = ({ kind }: Pick<MappingNote, 'kind'>): boolean =>
  kind === MappingKind.ADOPT || kind === MappingKind.ADOPT_WRITTEN

const textOf = ({ address, length }: Pick<AdoptedRange, 'address' | 'length'>): string =>
  `0x${address.toString(16)}, ${length} bytes,`

/** A range by its addresses in the program. */
interface SharedRange extends Range {
  readonly range: AdoptedRange
}

/** Of one session. `refusal`: why the client cannot share pages; undefined: it can. */
export class Adoptions implements Adopter {
  readonly #space: ProgramMemory
  readonly #refusal: () => string | undefined
  /** Shared pages, also those of which the client learns by the next answer. */
  readonly #ranges = new RangeList<SharedRange>()
  #notes: Note[] = []
  /** What the last answer told: the client replaces these pages. */
  #told: readonly MappingNote[] = []
  /** Of the releases and punches that the client was told of by the last answer. */
  #done: (() => void)[] = []
  /** Undoes the call whose answer had adopted memory, until the client's next message. */
  #undo: (() => void) | undefined
  isClosed = false
  readonly pid: number

  constructor(pid: number, space: ProgramMemory, refusal: () => string | undefined) {
    this.pid = pid
    this.#space = space
    this.#refusal = refusal
  }

  get isAdopting(): boolean {
    return this.#notes.some(adopts)
  }

  require(address: number, length: number): void {
    const refusal = this.#refusal()
    if (refusal !== undefined) throw callError.EOPNOTSUPP`the program cannot share its pages: ${refusal}`
    const what = textOf({ address, length })
    const isFault = address + length > USER_END || !this.#space.check(...halvesOf(address), length, true)
    if (isFault) throw callError.EFAULT`${what} are not writable memory of the program`
    const isPrivate = this.#space.isPrivate(address, length)
    for (const { range } of this.#ranges.overlapping(address, address + length)) {
      if (!isPrivate || this.#noteOf(range) !== undefined)
        throw new PagesTakenError('EINVAL', `${what} overlap ${textOf(range)} which the device shares already`)
      // The program has closed the context, which the daemon does not know yet.
      this.#forget(range)
    }
    if (!isPrivate) throw callError.EFAULT`${what} are mapped from a file, or shared with another process`
    const { mappings } = SessionLimits
    if (this.#notes.filter(adopts).length >= mappings)
      throw callError.EINVAL`one call shares at most ${mappings} ranges of a program's memory`
  }

  copyIn(address: number, length: number, to: Bytes, at: number): void {
    if (this.#space.read(...halvesOf(address), to, at, length, length, length) !== 0)
      throw callError.EFAULT`${textOf({ address, length })} cannot be read`
  }

  adopt(range: AdoptedRange, writer: PageWriter): void {
    this.takeOver(range)
    this.#notes.push({ range, kind: writer === 'device' ? MappingKind.ADOPT_WRITTEN : MappingKind.ADOPT })
  }

  takeOver(range: AdoptedRange): void {
    const shared = { range, start: range.address, end: range.address + range.length }
    // Pages that are shared meanwhile are not those of the ended session any more.
    if (this.#ranges.overlapping(shared.start, shared.end).length === 0) this.#ranges.add(shared)
  }

  release(range: AdoptedRange, whenUnmapped: () => void): void {
    const note = this.#noteOf(range)
    if (note !== undefined) this.#notes.splice(this.#notes.indexOf(note), 1)
    const isShared = this.#forget(range) && note === undefined
    if (!isShared) whenUnmapped()
    // After the session's end it is unknown what the process maps: the range of the file stays as it is.
    else if (!this.isClosed) this.#notes.push({ range, kind: MappingKind.RELEASE, whenDone: whenUnmapped })
  }

  punch(range: Omit<AdoptedRange, 'address'>, whenPunched: () => void): void {
    if (this.isClosed || this.#refusal() !== undefined) whenPunched()
    else this.#notes.push({ range: { ...range, address: 0 }, kind: MappingKind.PUNCH, whenDone: whenPunched })
  }

  /**
   * What the answer tells the client, in order. `undo` undoes the call, if the client cannot do it. After a call that
   * has failed, what it has adopted is not shared.
   */
  take(hasSucceeded: boolean, undo?: () => void): readonly MappingNote[] {
    if (this.#notes.length === 0) return []
    if (!hasSucceeded) this.#dropAdopted()
    if (this.isAdopting) this.#undo = undo
    const told: MappingNote[] = []
    const later: Note[] = []
    for (const note of this.#notes) {
      const { range, kind, whenDone } = note
      if (whenDone !== undefined && this.#done.length === SessionLimits.mappings) {
        later.push(note)
        continue
      }
      if (whenDone !== undefined) this.#done.push(whenDone)
      told.push({ ...range, kind })
    }
    this.#notes = later
    this.#told = told
    for (const { address, length, kind } of told)
      if (kind !== MappingKind.PUNCH) this.#space.beginReplacement(address, address + length)
    return told
  }

  /** The client has sent its next message. Returns what undoes its last call, if that has adopted memory. */
  next(): (() => void) | undefined {
    const undo = this.#undo
    this.#undo = undefined
    this.#endReplacements()
    const done = this.#done
    this.#done = []
    for (const whenDone of done) whenDone()
    // Of a call that was answered EIO, because of an exception.
    if (this.isAdopting) this.#dropAdopted()
    return undo
  }

  #endReplacements(): void {
    if (this.#told.length === 0) return
    for (const { address, length, kind } of this.#told)
      if (kind !== MappingKind.PUNCH) this.#space.endReplacement(address, address + length, adopts({ kind }))
    this.#told = []
  }

  close(): void {
    this.isClosed = true
    this.#endReplacements()
    this.#notes = []
    this.#done = []
    this.#undo = undefined
  }

  /** False if the range is not shared. */
  #forget(range: AdoptedRange): boolean {
    const shared = this.#ranges.at(range.address)
    return shared?.range === range && this.#ranges.remove(shared)
  }

  #dropAdopted(): void {
    this.#notes = this.#notes.filter(note => {
      if (adopts(note)) this.#forget(note.range)
      return !adopts(note)
    })
  }

  /** The note of a range that the client does not know yet. */
  #noteOf(range: AdoptedRange): Note | undefined {
    return this.#notes.find(note => note.range === range && adopts(note))
  }
}

const halvesOf = (address: number): [hi: number, lo: number] => [Math.floor(address / 2 ** 32), address % 2 ** 32]
