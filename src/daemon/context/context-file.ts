/*
 * The memory file of a context (docs/decisions/context-file.md). The program has it as its uverbs descriptor, and maps
 * rings (queues shared with the driver) from it.
 *
 * The file is sparse, and sealed, so that no program can cause a SIGBUS in the daemon by truncating it. The first page
 * is unused, so that a stray write(2) damages no ring. A freed range is reused for rings of equal size. When a chunk
 * has no rings left, its memory is returned to the system. A program that still maps a freed range sees rings of its
 * own context, or zeros.
 *
 * Who has a descriptor of the file can hold its inode's lock for ever, by a write(2) from a page that never comes. So
 * once a guest has the file, nothing here takes this lock (docs/why/threat-model.md): freed ranges stay mapped and
 * charged, the program itself returns their memory, and what is still in memory is zeroed before they are reused.
 *
 * A process has at most vm.max_map_count mappings. Linux maps downwards, at the highest free address, and merges
 * neighbours whose file offsets are neighbours too. So new ranges have descending offsets, and of freed ranges the one
 * with the highest offset is reused: then most rings of a program share mappings (docs/decisions/rings.md).
 */
import type { Bytes } from '../../core/memory/address-space.ts'
import type {
  ClockPage,
  MappedChunk,
  MappedMemory,
  PageWriter,
  RangeUse,
  SharedWord,
} from '../../core/memory/mappable-memory.ts'
import type { Account } from '../../core/model.ts'
import { popFromHeap, pushToHeap } from '../../core/objects/heap.ts'
import { orRelease } from '../../core/objects/limits.ts'
import { SystemError } from '../../host/errno.ts'
import { atExpense, whenAffordable } from '../../host/memory/budget.ts'
import { dropEntries, type Mapping, pageSize, type RingPool, zeroResident } from '../../host/memory/mapping.ts'
import {
  addSeals,
  createMemfd,
  fileIdentity,
  isHeld,
  memoryOf,
  openHeld,
  punchHole,
  SEAL_GROW,
  SEAL_SEAL,
  SEAL_SHRINK,
} from '../../host/memory/memfd.ts'
import { closeElsewhere } from '../../host/memory/mover.ts'
import { ArmWords, findPosition, PositionLog, positionSet, TakenCounts } from '../../spec/context-logs.ts'
import { CallError, callError } from '../../spec/errno.ts'
import { wholePages } from '../../spec/memory.ts'
import { offsetsOf } from '../../spec/message-layout.ts'
import { ContextFile, Messages } from '../../spec/session.ts'
import { takeRings } from '../accounts.ts'
import { Freeing } from './freeing.ts'

const POSITION_FIELDS = offsetsOf(Messages.position)

/** The name by which the shim recognises our memory files among inherited descriptors. */
const NAME = 'userdma-context'
/**
 * The daemon maps chunks of this size: mapping is most of the cost of creating a queue. A larger ring has its own
 * chunk, whose size is a power of two, as that of the pool's ranges: so a chunk is one mapping.
 */
const { chunk: CHUNK } = ContextFile
/** Bytes of one step that frees memory, and how much of the memory of a slice one byte counts for, by what is done. */
const STEP_BYTES = 2 ** 20
const Cost = { punched: 1 / 4, zeroed: 1, asked: 1 / 32, dropped: 1 / 2 } as const
/** Of a slice, of at most 0.3 ms. */
const SLICE_COST = 2 ** 20
/** Microseconds in which an allocation of a guest finishes what its user has freed. */
const MAX_FINISHING = 2000
/** Longest range of a program that is copied when it is adopted, in about 0.3 ms: so long, others wait. */
const COPIED_BYTES = 2 ** 20

interface ChargedMapping {
  readonly mapping: Mapping
  readonly release: () => void
}

/** A range with doorbells. `mappings`: how often the client maps it. */
interface DoorbellRange extends ChargedMapping {
  mappings: number
}

/** A part of the file with one mapping, for many ranges. */
interface Chunk extends ChargedMapping {
  /** Offset in the file. */
  readonly offset: number
  readonly length: number
  /** Offset in the chunk of the end of the next new range. */
  end: number
  /** File offsets of freed ranges. */
  readonly freed: Set<number>
  /** Number of ranges in use. */
  live: number
}

/** Pages of a program, and the range of the file that it maps over them. */
export interface AdoptedRange {
  /** Number of the context. */
  readonly context: number
  readonly address: number
  readonly length: number
  readonly offset: number
}

/** A client that can map ranges of the file over its own pages (docs/decisions/adopted-pages.md). */
export interface Adopter {
  /** The process of the client. */
  readonly pid: number
  /** The session of the client has ended. The process may have another one, after a call that was answered late. */
  readonly isClosed: boolean
  /** Throws CallError EINVAL, EFAULT, EOPNOTSUPP unless the client can do so with these pages. */
  require(address: number, length: number): void
  /** Copies the pages to byte `at` of `to`. Throws CallError EFAULT. */
  copyIn(address: number, length: number, to: Bytes, at: number): void
  /** The answer of the present call tells the client. `writer`: see `MappedMemory.adopt`. */
  adopt(range: AdoptedRange, writer: PageWriter): void
  /** Whether there is a range of which the client was not told yet. */
  readonly isAdopting: boolean
  /** The range is one of another session of the same process, which has ended. */
  takeOver(range: AdoptedRange): void
  /**
   * The client is told to unmap a range, unless it was not told of it yet. Calls `whenUnmapped` when it has done so.
   */
  release(range: AdoptedRange, whenUnmapped: () => void): void
  /**
   * The client is told to return a range of a context's file to the system. Calls `whenPunched` when it says that it
   * has done so, or at once if it cannot; never if the session ends before.
   */
  punch(range: Omit<AdoptedRange, 'address'>, whenPunched: () => void): void
}

interface FreedRange {
  readonly chunk: Chunk
  readonly length: number
}

/**
 * `isPacked`: see `MappedMemory.packed`. `account` is charged for mappings. Ranges begin and end at multiples of
 * `pageBytes`.
 */
export class ContextMemory implements MappedMemory {
  readonly #pool: RingPool
  readonly packed: { count: number } | undefined
  readonly fd = createMemfd(NAME, ContextFile.doorbells + ContextFile.doorbellBytes)
  readonly #chunks = new Set<Chunk>()
  readonly #chunkOf = new Map<MappedChunk, Chunk>()
  /** By file offset. */
  readonly #freed = new Map<number, FreedRange>()
  /** File offsets of freed ranges, by length. Those that `#freed` lacks were in released chunks. */
  readonly #freedOffsets = new Map<number, HighestFirst>()
  /** File offsets of released chunks, by length. They are holes of the file. */
  readonly #holes = new Map<number, HighestFirst>()
  /** The chunk from which new ranges are allocated. */
  #current: Chunk | undefined
  /** File offset of the end of the next new chunk. */
  #end: number
  readonly #start: number
  readonly #account: Account | undefined
  readonly #pageBytes: number
  #usedBytes = 0
  /** The ranges with doorbells, each with a mapping of its own; and the file offsets of freed ones, by length. */
  readonly #doorbellRanges = new Map<MappedChunk, DoorbellRange>()
  #expectedMappings = 0
  readonly #freedDoorbells = new Map<number, HighestFirst>()
  #doorbellEnd: number = ContextFile.doorbells
  /** The ranges of `allocateAt`, each with a mapping of its own. */
  readonly #placed = new Map<MappedChunk, ChargedMapping>()
  /** Lengths of all ranges of `allocateAt` that there were, by their offsets. */
  readonly #everPlaced = new Map<number, number>()
  readonly #adopted = new Map<MappedChunk, { readonly adopter: Adopter; readonly range: AdoptedRange }>()
  /** The views of `join`. */
  readonly #joined = new Map<MappedChunk, ChargedMapping>()
  /** The client whose call on this context runs. */
  adopter: Adopter | undefined
  /** The number of the context, as clients know it. */
  contextNumber = 0
  #lastAdopter: Adopter | undefined
  /** Called when the client will map a range with doorbells, or one once more. */
  onDoorbells: (() => void) | undefined
  /** Called when the context gets a clock. */
  onClock: (() => void) | undefined
  #clock: { readonly chunk: MappedChunk; readonly page: ClockPage } | undefined
  /** Set by `keepMapped`: freed ranges are not reused. */
  #isKept = false
  #takenCounts: ChargedMapping | undefined
  #positions: ChargedMapping | undefined
  /** Mapped for the first CQ with a completion channel. */
  #armWords: ChargedMapping | undefined
  /** Device and inode identify the file in every process. */
  readonly dev: number
  readonly inode: number

  /** The guest that has a descriptor of the file: the uid whose waiting time is charged. */
  #guest: number | undefined
  /** The mappings of ranges that were freed since, by file offset. */
  readonly #kept = new Map<number, ChargedMapping>()
  /** Chunks that are being dropped. */
  readonly #releasing = new Set<Chunk>()
  #sliceCost = 0
  #isClosed = false
  readonly #freeing: Freeing

  constructor(pool: RingPool, isPacked = false, account?: Account, pageBytes = pageSize(), freeing = new Freeing()) {
    this.#freeing = freeing
    this.#pool = pool
    this.#account = account
    this.#pageBytes = pageBytes
    this.#start = ContextFile.firstRing
    // Below all else in the file. The library maps whole chunks, which begin at multiples of CHUNK from the start.
    this.#end = ArmWords.offset - ((ArmWords.offset - this.#start) % CHUNK)
    this.packed = isPacked ? { count: 0 } : undefined
    addSeals(this.fd, SEAL_SHRINK | SEAL_GROW | SEAL_SEAL)
    const { dev, ino } = fileIdentity(this.fd)
    this.dev = dev
    this.inode = ino
  }

  /**
   * Bytes that the file holds beyond all ranges that were ever handed out of it: what a program has written there by
   * its own choice. Each range counts with its whole length, and with the large pages that it begins and ends in.
   */
  get surplusBytes(): number {
    const { heldBytes, pageBytes } = memoryOf(this.fd)
    let handedOut = ContextFile.bytes - this.#end + (this.#doorbellEnd - ContextFile.doorbells) + 4 * pageBytes
    for (const length of this.#everPlaced.values()) handedOut += length + 2 * pageBytes
    return heldBytes - handedOut
  }

  /** Number of rings in use. */
  get ringCount(): number {
    return this.packed?.count ?? this.#chunkOf.size
  }

  /** Bytes of the ranges that contain the rings in use. */
  get ringBytes(): number {
    return this.#usedBytes
  }

  /** The ranges with doorbells, and how often the client maps each. */
  get doorbells(): readonly { readonly offset: number; readonly length: number; readonly mappings: number }[] {
    return Array.from(this.#doorbellRanges, ([{ offset, length }, { mappings }]) => ({ offset, length, mappings }))
  }

  /** How often the client maps doorbells: the sum of `mappings`. */
  get expectedMappings(): number {
    return this.#expectedMappings
  }

  expectMappings(doorbells: MappedChunk, count: number): void {
    const range = this.#doorbellRanges.get(doorbells)
    if (range === undefined) return
    const more = count - range.mappings
    range.mappings = count
    this.#expectedMappings += more
    if (more > 0) this.onDoorbells?.()
  }

  /** The clock that the program reads, and its range in the file. */
  get clock(): { readonly page: ClockPage; readonly offset: number; readonly length: number } | undefined {
    const clock = this.#clock
    return clock && { page: clock.page, offset: clock.chunk.offset, length: clock.chunk.length }
  }

  /** A guest has opened or attached the context. `user`: its uid. */
  heldByGuest(user: number): void {
    this.#guest = user
  }

  /**
   * Takes the clock's page from all programs that have mapped it: their next reads are page faults. False: a guest has
   * the file, and the page stays.
   */
  hideClock(): boolean {
    if (this.#guest !== undefined) return false
    if (this.#clock === undefined) return true
    const { page, chunk } = this.#clock
    page.isReadable = false
    punchHole(this.fd, chunk.offset, chunk.length)
    // a process that is not watched, as a child after fork, reads this time
    page.tick()
    return true
  }

  /** A new descriptor of the file for a program. The caller passes it and then closes it. Throws as `openHeld`. */
  share(access?: number): number {
    return openHeld(this.fd, access)
  }

  /** Whether any program has a descriptor or mapping of the file. Descriptors in transit count too. */
  get isHeld(): boolean {
    return isHeld(this.fd)
  }

  allocate(bytes: number, use: RangeUse = 'rings'): MappedChunk {
    const length = wholePages(bytes, this.#pageBytes)
    if (use === 'doorbells') return this.#allocateDoorbells(length)
    const { chunk, at } = this.#reuse(length) ?? this.#allocateNew(length)
    const { bytes: all, view, i32 } = chunk.mapping
    const range: MappedChunk = { offset: chunk.offset + at, length, at, bytes: all, view, words: i32 }
    this.#chunkOf.set(range, chunk)
    chunk.live++
    this.#usedBytes += length
    return range
  }

  #allocateDoorbells(length: number): MappedChunk {
    const freed = this.#freedDoorbells.get(length)?.take()
    const offset = freed ?? this.#doorbellEnd
    if (offset + length > ContextFile.doorbells + ContextFile.doorbellBytes)
      throw callError.ENOMEM`the doorbells of one context have at most ${ContextFile.doorbellBytes} bytes`
    try {
      const charged = this.#mapZeroed(offset, length)
      const { bytes, view, i32 } = charged.mapping
      const range: MappedChunk = { offset, length, at: 0, bytes, view, words: i32 }
      if (freed === undefined) this.#doorbellEnd += length
      this.#doorbellRanges.set(range, { ...charged, mappings: 1 })
      this.#expectedMappings++
      this.onDoorbells?.()
      return range
    } catch (error) {
      if (freed !== undefined) addTo(this.#freedDoorbells, length, offset)
      if (error instanceof SystemError) throw callError.ENOMEM`memory for doorbells: ${error.message}`
      throw error
    }
  }

  allocateAt(page: number, bytes: number): MappedChunk {
    const offset = page * this.#pageBytes
    const length = wholePages(bytes, this.#pageBytes)
    if (page < 1 || offset + length > this.#start)
      throw callError.ENOMEM`page ${page} is not one of pages 1 to ${this.#start / this.#pageBytes - 1}`
    try {
      const charged = this.#mapZeroed(offset, length)
      const { bytes: all, view, i32 } = charged.mapping
      const range: MappedChunk = { offset, length, at: 0, bytes: all, view, words: i32 }
      this.#placed.set(range, charged)
      this.#everPlaced.set(offset, Math.max(length, this.#everPlaced.get(offset) ?? 0))
      return range
    } catch (error) {
      if (error instanceof SystemError) throw callError.ENOMEM`memory for programs: ${error.message}`
      throw error
    }
  }

  readClock(chunk: MappedChunk, tick: () => void): ClockPage {
    const page: ClockPage = { tick, isReadable: true }
    this.#clock = { chunk, page }
    this.onClock?.()
    return page
  }

  adopt(address: bigint, bytes: number, writer: PageWriter = 'program'): MappedChunk {
    const adopter = this.adopter
    if (adopter === undefined)
      throw callError.EOPNOTSUPP`pages of a program are shared only during a call on its context`
    const page = this.#pageBytes
    if (address % BigInt(page) !== 0n || bytes % page !== 0 || !(bytes > 0))
      throw callError.EINVAL`0x${address.toString(16)}, ${bytes} bytes, are not whole pages: both must be multiples of ${page}`
    const start = Number(address)
    adopter.require(start, bytes)
    const chunk = this.allocate(bytes)
    try {
      if (writer === 'program' && bytes <= COPIED_BYTES)
        adopter.copyIn(start, bytes, this.#chunkOf.get(chunk)!.mapping, chunk.at)
    } catch (error) {
      this.free(chunk)
      throw error
    }
    const range: AdoptedRange = { context: this.contextNumber, address: start, length: bytes, offset: chunk.offset }
    adopter.adopt(range, writer)
    this.#lastAdopter = adopter
    this.#adopted.set(chunk, { adopter, range })
    return chunk
  }

  join(parts: readonly Pick<MappedChunk, 'offset' | 'length'>[]): MappedChunk {
    const length = parts.reduce((sum, part) => sum + part.length, 0)
    try {
      const charged = this.#charged(length, () => this.#pool.mapParts(this.fd, parts))
      const { bytes, view, i32 } = charged.mapping
      const range: MappedChunk = { offset: parts[0]!.offset, length, at: 0, bytes, view, words: i32 }
      this.#joined.set(range, charged)
      return range
    } catch (error) {
      if (error instanceof SystemError) throw callError.ENOMEM`memory for programs: ${error.message}`
      throw error
    }
  }

  get isAdopting(): boolean {
    return this.#lastAdopter?.isAdopting === true
  }

  free(range: MappedChunk): void {
    const adopted = this.#adopted.get(range)
    if (adopted !== undefined) {
      this.#adopted.delete(range)
      let { adopter } = adopted
      const caller = this.adopter
      if (adopter.isClosed && caller?.pid === adopter.pid) {
        adopter = caller
        adopter.takeOver(adopted.range)
      }
      adopter.release(adopted.range, () => {
        // Not if the context was closed meanwhile.
        if (this.#chunkOf.has(range)) this.free(range)
      })
      return
    }
    const doorbells = this.#doorbellRanges.get(range)
    if (doorbells !== undefined) {
      this.#doorbellRanges.delete(range)
      this.#expectedMappings -= doorbells.mappings
      this.#release(range.offset, doorbells)
      if (!this.#isKept) addTo(this.#freedDoorbells, range.length, range.offset)
      return
    }
    const placed = this.#placed.get(range)
    if (placed !== undefined) {
      this.#placed.delete(range)
      this.#release(range.offset, placed)
      return
    }
    const joined = this.#joined.get(range)
    if (joined !== undefined) {
      this.#joined.delete(range)
      this.#unmap(joined)
      return
    }
    const chunk = this.#chunkOf.get(range)
    if (!chunk) throw new Error('the ring does not belong to this context, or was freed before')
    this.#chunkOf.delete(range)
    this.#usedBytes -= range.length
    chunk.live--
    if (this.#isKept) return
    if (chunk.live === 0) {
      this.#dropChunk(chunk)
      return
    }
    chunk.freed.add(range.offset)
    this.#freed.set(range.offset, { chunk, length: range.length })
    addTo(this.#freedOffsets, range.length, range.offset)
  }

  keepMapped(): void {
    this.#isKept = true
  }

  /** Maps what `takenCompletions` and `postedWrId` read. Throws SystemError, CallError ENOMEM. */
  mapCheckLogs(): void {
    const { offset, entries } = TakenCounts
    this.#takenCounts = this.#charged(entries * 4, () => this.#pool.map(this.fd, offset, entries * 4, 'read'))
    const bytes = PositionLog.sets * PositionLog.ways * Messages.position.size
    this.#positions = this.#charged(bytes, () => this.#pool.map(this.fd, PositionLog.offset, bytes, 'read'))
  }

  postedWrId(queue: number, number: number, index: number): bigint | undefined {
    if (this.#positions === undefined) return undefined
    const { view } = this.#positions.mapping
    const at = findPosition(view, positionSet(queue, number, index), queue, number, index)
    return at < 0 ? undefined : view.getBigUint64(at + POSITION_FIELDS.wrId, true)
  }

  takenCompletions(handle: number): number {
    const counts = this.#takenCounts
    return counts === undefined || handle >= TakenCounts.entries ? 0 : Atomics.load(counts.mapping.u32, handle)
  }

  armWord(handle: number): SharedWord | undefined {
    const { offset, entries } = ArmWords
    if (handle >= entries) return undefined
    try {
      this.#armWords ??= this.#charged(entries * 4, () => this.#pool.map(this.fd, offset, entries * 4))
    } catch (error) {
      if (error instanceof CallError || error instanceof SystemError) return undefined
      throw error
    }
    return { words: this.#armWords.mapping.i32, at: handle }
  }

  /** Releases everything; no range may be used afterwards. */
  close(): void {
    this.#isClosed = true
    // Other chunks that are being dropped end their jobs themselves.
    const chunks = this.#guest === undefined ? [...this.#chunks] : [...this.#chunks, ...this.#releasing]
    const kept = [...this.#kept.values()]
    this.#kept.clear()
    for (const mappings of [this.#doorbellRanges, this.#placed, this.#joined])
      for (const mapping of mappings.values()) this.#unmap(mapping)
    this.#joined.clear()
    this.#doorbellRanges.clear()
    this.#expectedMappings = 0
    this.#placed.clear()
    this.#clock = undefined
    this.#adopted.clear()
    this.#lastAdopter = undefined
    if (this.#takenCounts !== undefined) this.#unmap(this.#takenCounts)
    this.#takenCounts = undefined
    if (this.#positions !== undefined) this.#unmap(this.#positions)
    this.#positions = undefined
    if (this.#armWords !== undefined) this.#unmap(this.#armWords)
    this.#armWords = undefined
    this.#chunks.clear()
    this.#chunkOf.clear()
    if (this.packed !== undefined) this.packed.count = 0
    this.#freed.clear()
    this.#freedOffsets.clear()
    this.#current = undefined
    this.#usedBytes = 0
    this.#run(this.#closing(chunks, kept))
  }

  #run(job: Generator<undefined, void>): void {
    this.#sliceCost = 0
    this.#freeing.begin(this.#account?.payer, job)
  }

  /**
   * Of the daemon's own user the pages are freed before the file is closed; but not pages of a removed device, where a
   * program may still find completions. Others are freed with the file, by another process.
   */
  *#closing(chunks: readonly Chunk[], kept: readonly ChargedMapping[]): Generator<undefined, void> {
    const isPunched = this.#guest === undefined && !this.#isKept
    for (const chunk of isPunched ? chunks : []) {
      yield* this.#inSteps(chunk.length, at => this.#punch(chunk, at))
      this.#unmap(chunk)
    }
    for (const one of isPunched ? [] : [...chunks, ...kept]) {
      yield* this.#inSteps(one.mapping.length, at => this.#drop(one, at))
      this.#unmap(one)
    }
    while (this.#guest === undefined && this.#releasing.size > 0) yield
    whenAffordable(this.#guest, () => closeElsewhere(this.fd, this.#account?.payer))
  }

  /** `step`: does the bytes from offset `at` on, and returns their cost. */
  *#inSteps(length: number, step: (at: number) => number): Generator<undefined, void> {
    for (let at = 0; at < length; at += STEP_BYTES) {
      if (this.#sliceCost >= SLICE_COST) {
        yield
        this.#sliceCost = 0
      }
      this.#sliceCost += step(at)
    }
  }

  /** The page table entries are dropped, so that the end of the mapping takes little time. */
  #drop({ mapping }: ChargedMapping, at: number): number {
    const bytes = Math.min(STEP_BYTES, mapping.length - at)
    dropEntries(mapping, at, bytes)
    return bytes * Cost.dropped
  }

  #punch({ offset, length }: Chunk, at: number): number {
    const bytes = Math.min(STEP_BYTES, length - at)
    punchHole(this.fd, offset + at, bytes)
    return bytes * Cost.punched
  }

  #zero({ mapping, length }: Chunk, at: number): number {
    const bytes = Math.min(STEP_BYTES, length - at)
    return bytes * Cost.asked + zeroResident(mapping, at, bytes) * Cost.zeroed
  }

  /** Throws CallError ENOMEM beyond the account's share. */
  #charged(bytes: number, map: () => Mapping): ChargedMapping {
    const release = takeRings(this.#account, bytes)
    return { mapping: orRelease(release, () => atExpense(this.#guest, map)), release }
  }

  /** A mapping of a range that nobody uses. Throws as `#charged`, and SystemError. */
  #mapZeroed(offset: number, length: number): ChargedMapping {
    const kept = this.#kept.get(offset)
    this.#kept.delete(offset)
    if (kept !== undefined && kept.mapping.length < length) this.#unmap(kept)
    else if (kept !== undefined) {
      zeroResident(kept.mapping, 0, length)
      return kept
    }
    const charged = this.#charged(length, () => this.#pool.map(this.fd, offset, length))
    // Its pages may be of freed ranges that began elsewhere.
    if (this.#guest !== undefined) zeroResident(charged.mapping, 0, length)
    return charged
  }

  /** Nobody uses the range any more. */
  #release(offset: number, mapped: ChargedMapping): void {
    if (this.#guest !== undefined && !this.#isKept) {
      this.#kept.set(offset, mapped)
      return
    }
    const { length } = mapped.mapping
    this.#unmap(mapped)
    if (!this.#isKept) punchHole(this.fd, offset, length)
  }

  #addChunk(length: number): Chunk {
    try {
      return this.#mapChunk(length)
    } catch (error) {
      if (!(error instanceof CallError)) throw error
      // What the user has freed before is needed now.
      const isGuest = this.#guest !== undefined
      this.#freeing.finish(this.#account?.payer, isGuest ? MAX_FINISHING : Number.POSITIVE_INFINITY)
      return this.#mapChunk(length)
    }
  }

  #mapChunk(length: number): Chunk {
    let offset = this.#holes.get(length)?.take()
    if (offset === undefined) {
      if (this.#end - length < this.#start)
        throw callError.ENOMEM`the rings of one context have at most ${this.#end - this.#start} more bytes`
      this.#end -= length
      offset = this.#end
    }
    try {
      const kept = this.#kept.get(offset)
      this.#kept.delete(offset)
      const charged = kept ?? this.#charged(length, () => this.#pool.map(this.fd, offset, length))
      const chunk: Chunk = { ...charged, offset, length, end: length, freed: new Set(), live: 0 }
      this.#chunks.add(chunk)
      return chunk
    } catch (error) {
      addTo(this.#holes, length, offset)
      if (error instanceof SystemError) throw callError.ENOMEM`memory for rings: ${error.message}`
      throw error
    }
  }

  /** The highest freed range of this length, zeroed; undefined if none is free. `at`: offset in the chunk. */
  #reuse(length: number): { chunk: Chunk; at: number } | undefined {
    const offsets = this.#freedOffsets.get(length)
    for (let offset = offsets?.take(); offset !== undefined; offset = offsets?.take()) {
      const freed = this.#freed.get(offset)
      if (freed?.length !== length) continue
      const { chunk } = freed
      this.#freed.delete(offset)
      chunk.freed.delete(offset)
      const at = offset - chunk.offset
      chunk.mapping.bytes.fill(0, at, at + length)
      return { chunk, at }
    }
    return undefined
  }

  #allocateNew(length: number): { chunk: Chunk; at: number } {
    let chunk = this.#current
    if (length > CHUNK) chunk = this.#addChunk(2 ** Math.ceil(Math.log2(length)))
    else if (!chunk || length > chunk.end) {
      chunk = this.#addChunk(CHUNK)
      this.#current = chunk
    }
    chunk.end -= length
    return { chunk, at: chunk.end }
  }

  #unmap({ mapping, release }: ChargedMapping): void {
    whenAffordable(this.#guest, () => {
      this.#pool.release(mapping)
      release()
    })
  }

  #dropChunk(chunk: Chunk): void {
    for (const offset of chunk.freed) this.#freed.delete(offset)
    if (this.#current === chunk) this.#current = undefined
    this.#chunks.delete(chunk)
    this.#releasing.add(chunk)
    const drop = (): void => this.#run(this.#dropping(chunk))
    if (this.#guest === undefined || this.adopter === undefined) drop()
    else this.adopter.punch({ context: this.contextNumber, offset: chunk.offset, length: chunk.length }, drop)
  }

  /** A guest may attach the context meanwhile: its chunks stay mapped. */
  *#dropping(chunk: Chunk): Generator<undefined, void> {
    const isEnded = (): boolean => this.#isClosed && this.#guest !== undefined
    if (isEnded()) return
    const step = (at: number): number => {
      if (this.#guest === undefined) return this.#punch(chunk, at)
      return isEnded() ? 0 : this.#zero(chunk, at)
    }
    yield* this.#inSteps(chunk.length, step)
    if (isEnded()) return
    if (this.#guest === undefined) this.#unmap(chunk)
    else this.#kept.set(chunk.offset, chunk)
    this.#releasing.delete(chunk)
    addTo(this.#holes, chunk.length, chunk.offset)
  }
}

/** Numbers, of which the highest is taken first. */
class HighestFirst {
  /** Negated, a min-heap. */
  readonly #heap: number[] = []

  add(value: number): void {
    pushToHeap(this.#heap, -value)
  }

  take(): number | undefined {
    return this.#heap.length === 0 ? undefined : -popFromHeap(this.#heap)
  }
}

const addTo = (map: Map<number, HighestFirst>, length: number, offset: number): void => {
  const offsets = map.get(length)
  if (offsets) offsets.add(offset)
  else {
    const added = new HighestFirst()
    added.add(offset)
    map.set(length, added)
  }
}
