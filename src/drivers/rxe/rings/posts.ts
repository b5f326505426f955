/*
 * Where programs have posted work: the look at the queues' producer indices, in three sizes.
 *
 * A device may have thousands of queue pairs of which few are busy, and every look at a ring costs two loads. So a call
 * of a program looks at the queue pairs that it changed, a busy loop at those that were used lately, and now and then,
 * before it sleeps above all, at every one. Where the answer of a call depends on what was posted before it, the call
 * looks first (`catchUp` in state.ts).
 *
 * News is a producer index that differs from the one seen last, by a look or by the engine: the engine takes requests
 * by itself after others, and would the look not know, an index that has gone once around a small ring meanwhile were
 * no news, and its request waited for ever.
 *
 * A bind or an invalidation takes effect before any request that is posted after it, on whatever queue pair of the
 * device. While the device has memory windows the look therefore tells the engine nothing until every queue was looked
 * at once more: what was posted before the news is news by then. Queues with binds or invalidations come first.
 */
import type { Engine } from '../../../transport/engine.ts'
import { largerCount } from '../../../transport/state.ts'
import { loadProducer } from './rings.ts'
import { isWindowOperationPosted, NO_INDEX, type QpRings, type SendQueue } from './work-source.ts'

/** Queues to look at: those of `look`; those and the ones used lately; all. */
export const Where = { CHANGED: 0, USED: 1, ALL: 2 } as const
export type Where = (typeof Where)[keyof typeof Where]

export interface PostScan {
  /** The next scan looks at this row and takes it for new, whatever its indices say. */
  look(row: number): void
  /** Requests wait in the row's send queue that no look has seen. */
  behind(row: number): boolean
  /** Whether somebody asked to `look`. */
  isAsked(): boolean
  /** Tells the engine where something was posted since the last look; true if anything was to be sent. */
  scan(where: Where): boolean
}

/** Looks at all queues after which one that was not used is no longer looked at in between. */
const MEMORY = 16
/** When a queue was used last that never was. */
const NEVER = -MEMORY - 1

/** `hasWindows`: whether the device has memory windows. */
export const createPostScan = (
  rings: readonly (QpRings | undefined)[],
  engine: Engine,
  hasWindows: () => boolean,
): PostScan => {
  /** By row, up to the last one that ever was: the number of the full look at which it was used last. */
  let used = new Int32Array(64).fill(NEVER)
  const changed: number[] = []
  const busy: number[] = []
  let looks = 0
  /** While the device has windows: rows with news that the engine was not told of yet. */
  let isOrdering = false
  const windowOperations: number[] = []
  const others: number[] = []

  const defer = (row: number, queue: SendQueue, seen: number): void => {
    const isFirst = isWindowOperationPosted(queue, seen === NO_INDEX ? queue.retired : seen)
    ;(isFirst ? windowOperations : others).push(row)
  }

  const inspect = (row: number): boolean => {
    const queues = rings[row]
    if (queues === undefined) return false
    const { receive } = queues
    if (!receive.shared) {
      const producer = loadProducer(receive.ring)
      if (producer !== receive.seen) {
        receive.seen = producer
        // Only a queue pair in error has anything to do with a new receive request: it flushes it.
        engine.onReceiveScan(row)
      }
    }
    const send = loadProducer(queues.send.ring)
    const { seen, retired } = queues.send
    if (send === seen) return false
    queues.send.seen = send
    if (isOrdering) defer(row, queues.send, seen)
    else engine.onDoorbell(row)
    // Made or changed by a call and nothing is posted: no work, so that a loop that sleeps need not wake.
    if (seen === NO_INDEX && send === retired) return false
    if (row >= used.length) used = grown(used, row)
    if (looks - used[row] > MEMORY) busy.push(row)
    used[row] = looks
    return true
  }

  const inspectAll = (): boolean => {
    let found = false
    looks = (looks + 1) | 0
    let kept = 0
    for (const row of busy) if (looks - used[row] <= MEMORY) busy[kept++] = row
    busy.length = kept
    for (let row = 0; row < rings.length; row++) found = inspect(row) || found
    return found
  }

  const inspectWhere = (where: Where): boolean => {
    let found = false
    while (changed.length > 0) found = inspect(changed.pop() as number) || found
    if (where === Where.ALL) return inspectAll() || found
    if (where === Where.USED) for (let i = 0; i < busy.length; i++) found = inspect(busy[i]) || found
    return found
  }

  const scanInOrder = (where: Where): boolean => {
    isOrdering = true
    const found = inspectWhere(where)
    if (windowOperations.length + others.length > 0) for (let row = 0; row < rings.length; row++) inspect(row)
    isOrdering = false
    for (const row of windowOperations) engine.onDoorbell(row)
    for (const row of others) engine.onDoorbell(row)
    windowOperations.length = 0
    others.length = 0
    return found
  }

  return {
    look(row) {
      const queues = rings[row]
      if (queues === undefined) return
      queues.send.seen = NO_INDEX
      queues.receive.seen = NO_INDEX
      if (changed.length === 0 || changed[changed.length - 1] !== row) changed.push(row)
    },
    behind(row) {
      const queues = rings[row]
      if (queues === undefined) return false
      const producer = loadProducer(queues.send.ring)
      return producer !== queues.send.seen && producer !== queues.send.retired
    },
    isAsked: () => changed.length > 0,
    scan: where => (hasWindows() ? scanInOrder(where) : inspectWhere(where)),
  }
}

const grown = (old: Int32Array<ArrayBuffer>, row: number): Int32Array<ArrayBuffer> => {
  const bigger = new Int32Array(largerCount(row)).fill(NEVER)
  bigger.set(old)
  return bigger
}
