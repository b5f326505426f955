/*
 * The log of the program's posts and polled completions on checked devices of this process, in order, for the search
 * for races. Programs on a daemon's device write the same into the event log (spec/session.ts).
 *
 * There is one thread. A promise of the library counts as a poll of the completion that resolves it.
 */
import type { LoggedEvent } from '../../check/races/feed.ts'
import type { RaceSources } from '../../check/races/sources.ts'
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import type { NoteOmission } from '../../spec/check/omissions.ts'
import { EventKind } from '../../spec/session.ts'
import type { LazyStack } from './stacks.ts'

/** Number of entries after which they are joined with the requests of devices. */
const MAX_ENTRIES = 4096
/** Maximum stacks; those of the oldest posts are forgotten. */
const MAX_STACKS = 16_384
/** Milliseconds after which the entries of programs that post little are joined. */
const JOIN_MS = 100

export interface ProgramLog extends Omit<RaceSources, 'memoryOf'> {
  /** A post to a work queue of a context. `queue`: PostQueue; `number`: as in the post log. */
  post(context: number, queue: number, number: number, wrId: bigint, stack: LazyStack): void
  /** A completion that the program polls, or `count` completions that it has only counted. */
  poll(context: number, cq: number, count: number, wrId: bigint): void
}

/** `join`: called when there are entries to read. */
export const createProgramLog = (join: () => void, omit: NoteOmission): ProgramLog => {
  let entries: LoggedEvent[] = []
  let isPlanned = false
  const stacks = new Map<number, LazyStack>()
  const numbers = new WeakMap<LazyStack, number>()
  let lastStack = 0

  const numberOf = (stack: LazyStack): number => {
    const known = numbers.get(stack)
    if (known !== undefined && stacks.has(known)) return known
    lastStack++
    stacks.set(lastStack, stack)
    numbers.set(stack, lastStack)
    if (stacks.size > MAX_STACKS) {
      stacks.delete(lastStack - MAX_STACKS)
      omit('stacks', 1)
    }
    return lastStack
  }

  const onTime = (): void => {
    isPlanned = false
    join()
  }

  const log = (context: number, kind: number, number: number, count: number, wrId: bigint, stack: number): void => {
    entries.push({
      time: nowMicroseconds(),
      acquired: 0,
      wrId,
      process: 0,
      thread: 0,
      kind,
      context,
      number,
      count,
      stack,
    })
    if (entries.length >= MAX_ENTRIES) join()
    if (isPlanned) return
    isPlanned = true
    setTimeout(onTime, JOIN_MS).unref?.()
  }

  return {
    post: (context, queue, number, wrId, stack) => log(context, queue, number, 1, wrId, numberOf(stack)),
    poll: (context, cq, count, wrId) => log(context, EventKind.POLL, cq, count, wrId, 0),
    stackOf: (_process, stack) => stacks.get(stack)?.() ?? [],
    read() {
      const read = entries
      entries = []
      return { entries: read, lost: [] }
    },
  }
}
