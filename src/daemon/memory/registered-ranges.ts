/*
 * The registered ranges of a program's memory.
 *
 * As in Linux (ib_umem_get), the pages of each region count against RLIMIT_MEMLOCK of the registering process, even if
 * regions overlap. Beyond the limit, registration fails with ENOMEM, or with EPERM if the limit is 0. A process with
 * CAP_IPC_LOCK in the initial user namespace has no limit.
 *
 * A userfaultfd of the program reports when the program unmaps pages of a watched range, so that the region does not
 * cover later mappings at that address.
 */
import { closeSync } from 'node:fs'
import { pageSize } from '../../host/memory/mapping.ts'
import { closeElsewhere } from '../../host/memory/mover.ts'
import { isAddressSpaceGone, isStillOwned, type ProcessHandle } from '../../host/memory/process.ts'
import { type UserfaultEvents, type UserfaultWatch, watchUserfault } from '../../host/memory/userfault.ts'
import { hasCapability, INITIAL_USER_NAMESPACE, lockLimit } from '../../host/process-status.ts'
import { CallError } from '../../spec/errno.ts'
import { pageAbove, pageBelow } from '../../spec/memory.ts'
import { coded } from '../../spec/reason.ts'
import type { Containment } from '../containment.ts'

export interface RegistrationOptions {
  /** Whether the process may exceed the limit. */
  readonly ignoreLimit?: boolean
  /** Wraps the callback of the userfaultfd. Default: not wrapped. */
  readonly guard?: Containment['guard']
  /** Called once, for the first registration beyond the limit. */
  readonly log?: (message: string) => void
}

/** What learns of the program's stores. `closed`: the watch ends, and must not be used any more. */
export interface StoreListener extends UserfaultEvents {
  closed(): void
}

interface Range {
  readonly start: number
  readonly end: number
  readonly onUnmapped: () => void
}

const CAP_IPC_LOCK = 14
/**
 * Two limits: the maximum number of watched registered ranges, and that of ranges that stay watched after their
 * registration. Each range takes up to two of the program's 65,530 mappings.
 */
const MAX_WATCHED = 1024
/** Longer ranges stay watched after their registration: unwatching them costs more than the later event. */
const MAX_UNWATCH_BYTES = 2 ** 20
/** Still longer ranges are never unwatched, which would take milliseconds. Address space limits their number. */
const MAX_LATE_UNWATCH_BYTES = 2 ** 26

/** Registrations may be refused after `watching`. */
const MAX_PREPARED = 64

const unguarded: Containment['guard'] = (_where, body) => body

export class RegisteredRanges {
  readonly #process: ProcessHandle
  readonly #ignoreLimit: boolean
  readonly #guard: Containment['guard']
  readonly #log: (message: string) => void
  /** Bytes of the registered pages. */
  #locked = 0
  #registrations = 0
  #onUnused: (() => void) | undefined
  #isLogged = false
  readonly #watched = new Set<Range>()
  /** Ranges that stay watched after their registration, oldest first: the end by the start. */
  readonly #stillWatched = new Map<number, number>()
  /** What `watching` has watched, or is watching, for the next registration: the end by the start. */
  readonly #prepared = new Map<number, number>()
  /** Pages that the program replaces now by others with their content: the end by the start. */
  readonly #replaced = new Map<number, number>()
  /** −1: none. */
  #userfaultFd = -1
  #watcher: UserfaultWatch | undefined
  #stores: StoreListener | undefined

  constructor(
    process: ProcessHandle,
    { ignoreLimit = false, guard = unguarded, log = () => {} }: RegistrationOptions = {},
  ) {
    this.#process = process
    this.#ignoreLimit = ignoreLimit
    this.#guard = guard
    this.#log = log
  }

  /**
   * Registers `length` bytes at `address`. The returned function ends the registration. `onUnmapped` is called at most
   * once, when a page of a watched range is unmapped. Throws CallError EPERM or ENOMEM.
   */
  register(address: number, length: number, onUnmapped: () => void): () => void {
    const pageBytes = pageSize()
    const start = pageBelow(address, pageBytes)
    const end = pageAbove(address + length, pageBytes)
    const bytes = end - start
    if (!this.#ignoreLimit) this.#requireLockable(bytes)
    this.#locked += bytes
    this.#registrations++
    const range = { start, end, onUnmapped }
    const isPrepared = this.#prepared.get(start) === end
    this.#prepared.delete(start)
    if (bytes > 0 && this.#watched.size < MAX_WATCHED && (isPrepared || this.#watch()?.add(start, end)))
      this.#watched.add(range)
    return () => {
      this.#locked -= bytes
      this.#registrations--
      if (this.#watched.delete(range) && bytes <= MAX_LATE_UNWATCH_BYTES) {
        if (bytes <= MAX_UNWATCH_BYTES) this.#unwatch(start, end)
        else this.#unwatchLater(start, end)
      }
      if (this.#registrations === 0) this.#onUnused?.()
    }
  }

  /** Calls `unused` once nothing is registered: at once, or after the last registration's end. */
  whenUnused(unused: () => void): void {
    if (this.#registrations === 0) unused()
    else this.#onUnused = unused
  }

  /**
   * Watches memory with very many mappings while `search` (host/memory/ranges.ts) goes through them, slice by slice: a
   * registration would take 0.2 µs for each mapping at once. The registration that follows finds them watched. Returns
   * what the search returns, in the same turn.
   */
  *watching(address: number, length: number, search: Iterator<number, boolean>): Generator<undefined, boolean> {
    const pageBytes = pageSize()
    const end = pageAbove(address + length, pageBytes)
    const start = pageBelow(address, pageBytes)
    for (const oldest of this.#prepared.keys()) if (this.#prepared.size >= MAX_PREPARED) this.#prepared.delete(oldest)
    this.#prepared.set(start, end)
    let at = start
    const watchTo = (reached: number): void => {
      const to = Math.min(reached, end)
      if (to <= at || this.#prepared.get(start) !== end) return
      if (this.#watched.size === MAX_WATCHED || !this.#watch()?.add(at, to)) this.#prepared.delete(start)
      at = to
    }
    for (;;) {
      const { done, value } = search.next()
      if (!done) watchTo(value)
      else if (value) watchTo(end)
      else this.#prepared.delete(start)
      if (done) return value
      yield
    }
  }

  /**
   * The program is told to map other pages with the same content over these (docs/decisions/adopted-pages.md):
   * registered memory may be beside a queue in one page, and stays registered. Until `endReplacement`. The pages are
   * not watched meanwhile: the program could not protect pages that we watch (shim/session/adopted.c).
   */
  beginReplacement(start: number, end: number): void {
    this.#replaced.set(start, end)
    if (this.#isWatchedIn(start, end)) this.#watch()?.remove(start, end)
    this.#dropPrepared(start, end)
  }

  /** The program has done so: registered memory in the new pages is watched. */
  endReplacement(start: number, end: number): void {
    this.#replaced.delete(start)
    for (const range of this.#watched)
      if (range.start < end && start < range.end)
        this.#watch()?.add(Math.max(start, range.start), Math.min(end, range.end))
  }

  /** `fd`: the program's userfaultfd, which this object will close. Without it `onUnmapped` is never called. */
  setUserfault(fd: number): void {
    if (this.#userfaultFd >= 0) this.#closeUserfault(fd)
    else this.#userfaultFd = fd
  }

  /** The program's userfaultfd, for other ranges than registered ones; undefined: there is none that can be used. */
  watchStores(listener: StoreListener): UserfaultWatch | undefined {
    this.#stores = listener
    return this.#watch()
  }

  close(): void {
    this.#stores?.closed()
    this.#stores = undefined
    this.#watcher?.stop()
    this.#watcher = undefined
    this.#dropUserfault()
    this.#watched.clear()
    this.#prepared.clear()
    this.#stillWatched.clear()
  }

  #reportUnmapped(start: number, end: number): void {
    this.#stores?.unmapped(start, end)
    this.#dropPrepared(start, end)
    if (this.#replaced.get(start) === end) return
    for (const range of this.#watched)
      if (range.start < end && start < range.end) {
        this.#watched.delete(range)
        range.onUnmapped()
      }
  }

  /**
   * close(2) of a userfaultfd takes the mmap lock of the program's address space. A thread of the program may hold the
   * lock for long, so another process closes the userfaultfd, unless the address space is gone.
   */
  #closeUserfault(fd: number): void {
    if (isAddressSpaceGone(this.#process)) closeSync(fd)
    else closeElsewhere(fd)
  }

  #dropUserfault(): void {
    if (this.#userfaultFd >= 0) this.#closeUserfault(this.#userfaultFd)
    this.#userfaultFd = -1
  }

  #watch(): UserfaultWatch | undefined {
    if (this.#userfaultFd >= 0 && this.#watcher === undefined) {
      this.#watcher = watchUserfault(this.#userfaultFd, {
        unmapped: this.#guard('memory that was unmapped', (start, end) => this.#reportUnmapped(start, end)),
        stored: this.#guard('a store to doorbells', address => this.#stores?.stored(address)),
      })
      if (this.#watcher === undefined) this.#dropUserfault()
    }
    return this.#watcher
  }

  /** No effect if the range overlaps a watched registered range. */
  #unwatch(start: number, end: number): void {
    if (!this.#overlapsAny(start, end)) this.#watch()?.remove(start, end)
  }

  /** Lets a range stay watched after its registration. If there are too many of these, unwatches the oldest. */
  #unwatchLater(start: number, end: number): void {
    const ranges = this.#stillWatched
    const knownEnd = ranges.get(start) ?? end
    ranges.delete(start)
    ranges.set(start, Math.max(knownEnd, end))
    if (ranges.size <= MAX_WATCHED) return
    for (const [oldestStart, oldestEnd] of ranges) {
      ranges.delete(oldestStart)
      this.#unwatch(oldestStart, oldestEnd)
      return
    }
  }

  /** Throws CallError if the process may not lock this many more bytes. */
  #requireLockable(bytes: number): void {
    const limit = lockLimit(this.#process.pid)
    const isWithinLimit = limit !== 0 && this.#locked + bytes <= limit
    if (isWithinLimit || this.#mayLockAll()) return
    const reason = coded(
      'lock-limit',
    )`process ${this.#process.pid} may lock ${limit} bytes (RLIMIT_MEMLOCK), has registered ${this.#locked} and requests ${bytes} more: raise the limit (ulimit -l), or start the daemon with --ignore-memlock`
    if (!this.#isLogged) this.#log(reason.text())
    this.#isLogged = true
    throw new CallError(limit === 0 ? 'EPERM' : 'ENOMEM', reason)
  }

  /** As in Linux, a capability in another user namespace does not count. */
  #mayLockAll(): boolean {
    return hasCapability(this.#process.pid, CAP_IPC_LOCK, INITIAL_USER_NAMESPACE) && isStillOwned(this.#process)
  }

  #dropPrepared(start: number, end: number): void {
    for (const [first, last] of this.#prepared) if (first < end && start < last) this.#prepared.delete(first)
  }

  #isWatchedIn(start: number, end: number): boolean {
    if (this.#overlapsAny(start, end)) return true
    for (const ranges of [this.#stillWatched, this.#prepared])
      for (const [first, last] of ranges) if (first < end && start < last) return true
    return false
  }

  #overlapsAny(start: number, end: number): boolean {
    for (const other of this.#watched) if (other.start < end && start < other.end) return true
    return false
  }
}
