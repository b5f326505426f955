/*
 * The log of posts and polled completions on the checked devices of a network in this process, in order, for the search
 * for races. All entries are of one thread.
 */

import type { NoteOmission } from '../../spec/check/omissions.ts'
import type { LoggedEvent, ProgramProbes } from '../../spec/check/probes.ts'
import { EventKind } from '../../spec/session.ts'
import { eventTime } from '../../tools/events/stream.ts'
import type { LazyStack } from '../verbs/watch/stacks.ts'

/** The search reads the log when it has this number of entries. */
const MAX_ENTRIES = 4096
/** Maximum stacks; then the oldest stack is forgotten. */
const MAX_STACKS = 16_384
/** After this time the search reads fewer entries too. */
const READ_DELAY_MS = 100

export interface ProgramLog extends Required<Pick<ProgramProbes, 'logStack' | 'readLog'>> {
  /**
   * A post to a work queue. `context`: id of the context; `queue`: PostQueue; `number`: the QPN, or the handle of the
   * SRQ.
   */
  post(context: number, queue: number, number: number, wrId: bigint, stack: LazyStack): void
  /** A polled completion, or `count` completions of a counting CQ, with `wrId` 0. `cq`: handle of the CQ. */
  poll(context: number, cq: number, count: number, wrId: bigint): void
}

/**
 * `join`: lets the search read the entries (`readLog`); `omit`: called when a stack is forgotten; `now`: microseconds.
 */
export const createProgramLog = (join: () => void, omit: NoteOmission, now: () => number): ProgramLog => {
  let entries: LoggedEvent[] = []
  let hasTimer = false
  const stacksByNumber = new Map<number, LazyStack>()
  const numbers = new WeakMap<LazyStack, number>()
  let lastNumber = 0
  /** The stack with number `lastNumber`: often the stack of the next post too. */
  let latest: LazyStack | undefined

  const numberOf = (stack: LazyStack): number => {
    if (stack === latest) return lastNumber
    const known = numbers.get(stack)
    if (known !== undefined && stacksByNumber.has(known)) return known
    latest = stack
    lastNumber++
    stacksByNumber.set(lastNumber, stack)
    numbers.set(stack, lastNumber)
    if (stacksByNumber.size > MAX_STACKS) {
      stacksByNumber.delete(lastNumber - MAX_STACKS)
      omit('stacks', 1)
    }
    return lastNumber
  }

  const onTimer = (): void => {
    hasTimer = false
    join()
  }

  const addEntry = (
    context: number,
    kind: number,
    number: number,
    count: number,
    wrId: bigint,
    stack: number,
  ): void => {
    entries.push({
      time: eventTime(now()),
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
    if (hasTimer) return
    hasTimer = true
    setTimeout(onTimer, READ_DELAY_MS).unref?.()
  }

  return {
    // The kind of a post is its PostQueue.
    post: (context, queue, number, wrId, stack) => addEntry(context, queue, number, 1, wrId, numberOf(stack)),
    poll: (context, cq, count, wrId) => addEntry(context, EventKind.POLL, cq, count, wrId, 0),
    logStack: (_process, stack) => stacksByNumber.get(stack)?.() ?? [],
    readLog() {
      const read = entries
      entries = []
      return { entries: read, lost: [], time: eventTime(now()) }
    },
  }
}
