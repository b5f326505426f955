/*
 * Finds newly posted work requests from the producer indices of the queues, in three kinds of scan.
 *
 * A device may have thousands of queue pairs of which few are busy, and each check of a ring costs two loads. So a
 * doorbell checks its queue pair, a busy loop checks those that were used lately, and occasionally, and before it
 * sleeps, all of them. If the result of a call depends on what was posted before it, the call checks first (`catchUp`
 * in state.ts).
 *
 * A queue has new posts if its producer index differs from the index read last, by a scan or by the engine. The engine
 * fetches further requests by itself; if the scan did not know that, an index that has wrapped once in a small ring
 * would look unchanged, and its request would wait for ever.
 *
 * A bind or an invalidation takes effect before any request that is posted after it on any queue pair of the context.
 * So a scan passes nothing of a context with memory windows to the engine until every queue of the context was checked
 * once more: then everything that was posted before the new requests is found too. Queues with binds or invalidations
 * come first. Queues of other contexts are not checked, since they may be very many.
 */
import type { Engine } from '../../../transport/engine.ts'
import { largerCount } from '../../../transport/state.ts'
import { loadProducer } from './rings.ts'
import { isWindowOperationPosted, NO_INDEX, type QpRings, type QueueOwner, type SendQueue } from './work-source.ts'

/**
 * Queues to check: those named by `look`; those and the ones used lately; all. A loop checks all in slices, so that the
 * idle queue pairs of one program do not delay others: BEGIN begins a round with its first slice, CONTINUE checks the
 * next slice. Each round begins where the previous slice ended.
 */
export const Where = { CHANGED: 0, USED: 1, ALL: 2, BEGIN: 3, CONTINUE: 4 } as const
export type Where = (typeof Where)[keyof typeof Where]

export interface PostScan {
  /** A row has queues now; also does what `look` does. */
  add(row: number): void
  /** The next scan treats this row as new, whatever its indices. */
  look(row: number): void
  /** Whether the row's send queue has requests that no scan has found. */
  behind(row: number): boolean
  /** Whether `look` was called since the last scan. */
  hasChanges(): boolean
  /** Passes rows with new posts to the engine; true if there is anything to send. */
  scan(where: Where): boolean
  /** Whether slices of a round are left. */
  isUnfinished(): boolean
}

/** Rows of a slice: some 0.1 ms, since the rings of idle queue pairs are not in the processor's cache. */
export const SLICE_ROWS = 256

/** Full scans after which a queue without new posts no longer counts as used lately. */
const MEMORY = 16
/** Never used. */
const NEVER = -MEMORY - 1

/** `hasWindows`: whether the device has memory windows. */
export const createPostScan = (
  rings: readonly (QpRings | undefined)[],
  engine: Pick<Engine, 'onDoorbell' | 'onReceiveScan'>,
  hasWindows: () => boolean,
): PostScan => {
  /** By row: the number of the full scan at which it was used last. */
  let used = new Int32Array(64).fill(NEVER)
  const changed: number[] = []
  const busy: number[] = []
  let fullScans = 0
  /** Rows of contexts whose windows have posted; some may be unused or belong to another context by now. */
  const owned = new WeakMap<QueueOwner, Set<number>>()
  /** While the device has windows: rows with new posts that were not passed to the engine yet, and their contexts. */
  let isOrdering = false
  const posting = new Set<QueueOwner>()
  const windowOperations: number[] = []
  const others: number[] = []

  const defer = (row: number, queue: SendQueue, seen: number, owner: QueueOwner): void => {
    posting.add(owner)
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
        // only a queue pair in ERR acts on a new receive WQE: it flushes it
        engine.onReceiveScan(row)
      }
    }
    const send = loadProducer(queues.send.ring)
    const { seen, retired } = queues.send
    if (send === seen) return false
    queues.send.seen = send
    if (isOrdering && queues.owner !== undefined && queues.owner.windows > 0)
      defer(row, queues.send, seen, queues.owner)
    else engine.onDoorbell(row)
    // made or changed by a call and nothing posted: no work, so that a sleeping loop need not wake
    if (seen === NO_INDEX && send === retired) return false
    if (row >= used.length) used = grown(used, row)
    if (fullScans - used[row] > MEMORY) busy.push(row)
    used[row] = fullScans
    return true
  }

  /** The row at which the next slice begins, and the number of rows that are left in the round. */
  let cursor = 0
  let left = 0

  const beginRound = (): void => {
    fullScans = (fullScans + 1) | 0
    let kept = 0
    for (const row of busy) if (fullScans - used[row] <= MEMORY) busy[kept++] = row
    busy.length = kept
    left = rings.length
  }

  const inspectRows = (max: number): boolean => {
    let found = false
    for (let rows = Math.min(max, left); rows > 0; rows--) {
      if (cursor >= rings.length) cursor = 0
      found = inspect(cursor++) || found
      left--
    }
    return found
  }

  const inspectWhere = (where: Where): boolean => {
    let found = false
    while (changed.length > 0) found = inspect(changed.pop() as number) || found
    if (where === Where.ALL || where === Where.BEGIN) beginRound()
    if (where >= Where.ALL) return inspectRows(where === Where.ALL ? left : SLICE_ROWS) || found
    if (where === Where.USED) for (let i = 0; i < busy.length; i++) found = inspect(busy[i]) || found
    return found
  }

  /** Only contexts with windows are recorded, so that the rows of others cost no memory. */
  const rowsOf = (owner: QueueOwner): Set<number> => {
    let rows = owned.get(owner)
    if (rows !== undefined) return rows
    rows = new Set()
    for (let row = 0; row < rings.length; row++) if (rings[row]?.owner === owner) rows.add(row)
    owned.set(owner, rows)
    return rows
  }

  const scanInOrder = (where: Where): boolean => {
    isOrdering = true
    const found = inspectWhere(where)
    for (const owner of posting)
      for (const row of rowsOf(owner))
        if (rings[row]?.owner === owner) inspect(row)
        else owned.get(owner)?.delete(row)
    posting.clear()
    isOrdering = false
    for (const row of windowOperations) engine.onDoorbell(row)
    for (const row of others) engine.onDoorbell(row)
    windowOperations.length = 0
    others.length = 0
    return found
  }

  const look = (row: number): void => {
    const queues = rings[row]
    if (queues === undefined) return
    queues.send.seen = NO_INDEX
    queues.receive.seen = NO_INDEX
    if (changed.length === 0 || changed[changed.length - 1] !== row) changed.push(row)
  }

  return {
    add(row) {
      const owner = rings[row]?.owner
      if (owner !== undefined) owned.get(owner)?.add(row)
      look(row)
    },
    look,
    behind(row) {
      const queues = rings[row]
      if (queues === undefined) return false
      const producer = loadProducer(queues.send.ring)
      return producer !== queues.send.seen && producer !== queues.send.retired
    },
    hasChanges: () => changed.length > 0,
    scan: where => (hasWindows() ? scanInOrder(where) : inspectWhere(where)),
    isUnfinished: () => left > 0,
  }
}

const grown = (old: Int32Array<ArrayBuffer>, row: number): Int32Array<ArrayBuffer> => {
  const bigger = new Int32Array(largerCount(row)).fill(NEVER)
  bigger.set(old)
  return bigger
}
