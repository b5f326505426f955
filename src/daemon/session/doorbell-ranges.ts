/*
 * The doorbell pages that a client has mapped (DOORBELLS in spec/session.ts), and those that a child inherited by fork
 * and tells of by ATTACH. Programs may map without the preload library, which then tells of nothing (UCX and Open MPI
 * replace mmap). So after a message of the client the pages that are not mapped yet are looked for. What cannot be
 * watched has the loop doze, and the daemon logs why.
 */
import { errnoName } from '../../host/errno.ts'
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import { pageSize } from '../../host/memory/mapping.ts'
import { mappingsOfFile } from '../../host/memory/ranges.ts'
import { callError } from '../../spec/errno.ts'
import type { OpenContext } from '../context/contexts.ts'
import type { DoorbellPages, DoorbellProgram } from '../doorbell-pages.ts'
import type { ProgramLines } from '../program-lines.ts'
import type { Client } from './client.ts'

export interface DoorbellParts {
  readonly doorbells: DoorbellPages
  readonly lines: ProgramLines
}

/**
 * Microseconds between two readings of a process's mappings: at least so many, and so many times those of a reading.
 */
const FIND_INTERVAL = { least: 2000, times: 4 }
/**
 * A client that has told of so many mappings of a context tells of all: there is no reading, which takes 20 ms if a
 * process has as many mappings as it may.
 */
const TOLD = 64
/**
 * Microseconds in which such a client tells of what it maps. A poll of all queues for each would be of as many as it
 * has.
 */
const TOLD_WITHIN = 5000

/** Upper bound of user addresses on x86-64 and arm64. */
const USER_END = 2 ** 56

const requirePages = (start: number, length: number): void => {
  const pageBytes = pageSize()
  if (start % pageBytes !== 0 || length % pageBytes !== 0 || length === 0 || start + length > USER_END)
    throw callError.EINVAL`0x${start.toString(16)}, ${length} bytes, are not whole pages of a program`
}

interface FileRange {
  readonly offset: number
  readonly length: number
}

/** The position of the first range that ends behind `offset`, of ranges in their order. */
const firstBehind = (ranges: readonly FileRange[], offset: number): number => {
  let low = 0
  let high = ranges.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (ranges[middle]!.offset + ranges[middle]!.length > offset) high = middle
    else low = middle + 1
  }
  return low
}

export class DoorbellRanges {
  readonly #client: Client
  readonly #program: DoorbellProgram
  readonly #daemon: DoorbellParts
  /** Microseconds. */
  #nextFind = 0

  constructor(client: Client, program: DoorbellProgram, daemon: DoorbellParts) {
    this.#client = client
    this.#program = program
    this.#daemon = daemon
  }

  /**
   * The client has mapped doorbells of a context. `Loop.protect` protects them before the reply, or `Loop.kick` after
   * it. `refusal`: as in DOORBELLS. Throws CallError EINVAL.
   */
  mapped(open: OpenContext, start: number, length: number, refusal: number): void {
    requirePages(start, length)
    this.#watch(open, start, start + length, refusal)
    const { doorbells } = this.#daemon
    // The client tells nothing of its clock.
    if (open.memory.clock !== undefined && !doorbells.isClockWatched(this.#program, open) && !this.tellsAll(open))
      this.find(open)
    else if (doorbells.watchedCount(this.#program, open) >= open.memory.expectedMappings) doorbells.found(open)
  }

  /** Watches the doorbells and the clock of a context that the client has mapped, and are not watched yet. */
  find(open: OpenContext): void {
    const { doorbells, clock } = open.memory
    if (doorbells.length === 0) return
    if (this.#client.standing !== 'owner') {
      this.#refuse(open, 'it belongs to another user, or runs in a container')
      return
    }
    const sought = (clock === undefined ? [...doorbells] : [...doorbells, clock]).sort((a, b) => a.offset - b.offset)
    /** By file offset, how many mappings there are. */
    const counts = new Map<number, number>()
    for (const { start, end, offset, isWritable } of mappingsOfFile(this.#client.process.pid, open.memory.inode))
      for (let i = firstBehind(sought, offset); i < sought.length && sought[i]!.offset < offset + end - start; i++) {
        const { offset: from, length } = sought[i]!
        const first = Math.max(start, start + from - offset)
        const last = Math.min(end, start + from + length - offset)
        const isClock = from === clock?.offset
        if (first >= last || !(isWritable || isClock)) continue
        counts.set(from, (counts.get(from) ?? 0) + 1)
        if (!this.#daemon.doorbells.isWatched(this.#program, first, last)) this.#watch(open, first, last, 0, isClock)
      }
    // A provider may map a page for each of its queues that has a doorbell there.
    if (doorbells.every(({ offset, mappings }) => (counts.get(offset) ?? 0) >= mappings))
      this.#daemon.doorbells.found(open)
  }

  /**
   * As `find`, for the contexts of the client that have doorbells that are not mapped yet; now and then. Microseconds
   * until the loop must run, so that it protects what was found, or dozes; undefined: it need not.
   */
  findAwaited(now: number): number | undefined {
    const { awaited } = this.#daemon.doorbells
    if (awaited.size === 0) return undefined
    let tellsAll = true
    for (const open of awaited) tellsAll = this.#client.contexts.has(open) && this.tellsAll(open) && tellsAll
    if (tellsAll) return TOLD_WITHIN
    if (now >= this.#nextFind) {
      for (const open of awaited) if (this.#client.contexts.has(open) && !this.tellsAll(open)) this.find(open)
      const end = nowMicroseconds()
      this.#nextFind = end + Math.max(FIND_INTERVAL.least, FIND_INTERVAL.times * (end - now))
    }
    return 0
  }

  /** Whether the client tells of each mapping, before its program can store there. */
  tellsAll(open: OpenContext): boolean {
    return this.#daemon.doorbells.watchedCount(this.#program, open) >= TOLD
  }

  #watch(open: OpenContext, start: number, end: number, refusal: number, isClock = false): void {
    if (this.#client.standing !== 'owner') {
      // A userfaultfd is accepted only from the daemon's own user: it can block whoever uses it.
      this.#refuse(open, 'it belongs to another user, or runs in a container')
      return
    }
    const reason =
      refusal === 0
        ? this.#daemon.doorbells.watch(this.#program, start, end, open, isClock)
        : `userfaultfd: ${errnoName(refusal)}; a container's seccomp filter may forbid it`
    if (reason !== undefined) this.#refuse(open, reason)
  }

  #refuse(open: OpenContext, reason: string): void {
    const { doorbells } = this.#daemon
    // One line for all that are open at the same time.
    const isFirst = !doorbells.hasUnwatched
    doorbells.addUnwatched(open)
    if (!isFirst) return
    const { process, guest } = this.#client
    this.#daemon.lines.write(
      guest,
      'doorbells',
      `polls every 10 ms while process ${process.pid} (${this.#client.name()}) has device ${open.context.device.name} open: its stores to doorbell pages cannot wake the daemon (${reason})`,
    )
  }
}
