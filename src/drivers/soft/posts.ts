/*
 * Finds newly posted work requests by the marks of the queues (`SendQueue.mark`): in a ring its producer index, in
 * blocks of mlx5 the counter of the doorbell record.
 *
 * A device may have thousands of queue pairs, and few of them are busy. So a doorbell checks one queue pair. A busy
 * loop checks recently used queue pairs, and sometimes all. Before the loop sleeps, it checks all.
 *
 * A queue has new posts if its mark differs from `seen`, the mark that a scan or the engine has read last. The engine
 * fetches further requests without a scan. When it finds the queue empty, `seen` is updated: otherwise the mark of a
 * small ring that has wrapped meanwhile would look unchanged.
 *
 * A bind or an invalidation takes effect before any request that is posted after it on any queue pair of the context.
 * So if a context with memory windows has new posts, a scan checks all queues of the context again, to find all earlier
 * posts. Then it passes the queues with binds or invalidations to the engine, and then the others.
 */

import { ScanScope } from '../../core/driver-contract.ts'
import type { Engine } from '../../transport/engine/engine.ts'
import { largerCount } from '../../transport/engine/state.ts'
import { NO_MARK, type QpQueues, type QueueOwner, type SendQueue } from './queues.ts'

/** `row`: a queue pair's row in the engine. */
export interface PostScan {
  /** To be called when the queues of a row are created; includes `recheck`. */
  add(row: number): void
  /** The next scan passes this row to the engine even if its indices have not changed. */
  recheck(row: number): void
  /** Whether the row's send queue may have requests that no scan has found. */
  hasUnseenSends(row: number): boolean
  /** Whether the row's send queue has requests that are not retired. */
  hasWaitingSends(row: number): boolean
  /** Whether `add` or `recheck` was called since the last scan. */
  hasChanges(): boolean
  /** Passes rows with new posts to the engine; true if any send queue may have new requests. */
  scan(scope: ScanScope): boolean
  /** Whether slices of the current round are left. */
  isUnfinished(): boolean
}

/** Rows of a slice: about 0.1 ms. */
export const SLICE_ROWS = 256

/** After more than this many full scans without new posts, a queue pair is not recently used any more. */
const USED_SCANS = 16
/** `idleScans` of a row that is not recently used. */
const NOT_RECENT = 0xff

/** `hasWindows`: whether the device has memory windows. */
export const createPostScan = (
  queuesOf: readonly (QpQueues | undefined)[],
  engine: Pick<Engine, 'onDoorbell' | 'onReceiveScan'>,
  hasWindows: () => boolean,
): PostScan => {
  /** By row: the number of full scans since it had new posts; NOT_RECENT if it is not in `recentRows`. */
  let idleScans = new Uint8Array(64).fill(NOT_RECENT)
  /** Rows named by `recheck` since the last scan. */
  const changed: number[] = []
  const recentRows: number[] = []
  /** Rows by context with memory windows (`owner`). A row may meanwhile be free or belong to another context. */
  const rowsByOwner = new WeakMap<QueueOwner, Set<number>>()
  /** Whether `inspect` collects the rows with new posts of contexts with memory windows. */
  let isOrdering = false
  /** The contexts of the collected rows. */
  const postingOwners = new Set<QueueOwner>()
  /** Collected rows with a bind or an invalidation. */
  const windowRows: number[] = []
  const otherRows: number[] = []

  /** Collects a row with new posts, for the order in which the engine gets the rows. */
  const defer = (row: number, queue: SendQueue, seen: number, owner: QueueOwner): void => {
    postingOwners.add(owner)
    ;(queue.isWindowOperationPosted(seen) ? windowRows : otherRows).push(row)
  }

  /** Checks the queues of a row; true if its send queue may have new requests. */
  const inspect = (row: number): boolean => {
    const queues = queuesOf[row]
    if (queues === undefined) return false
    const { receive, send } = queues
    if (!receive.isShared) {
      const mark = receive.mark()
      if (mark !== receive.seen) {
        receive.seen = mark
        // the engine acts on a new receive WQE only in ERR, where it flushes it
        engine.onReceiveScan(row)
      }
    }
    const mark = send.mark()
    const { seen } = send
    if (mark === seen) return false
    send.seen = mark
    // only `recheck` led here: nothing was posted
    const isEmpty = seen === NO_MARK && send.isEmpty()
    if (isOrdering && queues.owner !== undefined && queues.owner.windowCount > 0) defer(row, send, seen, queues.owner)
    else engine.onDoorbell(row)
    if (isEmpty) return false
    if (row >= idleScans.length) idleScans = grown(idleScans, row)
    if (idleScans[row] === NOT_RECENT) recentRows.push(row)
    idleScans[row] = 0
    return true
  }

  /** The row at which the next slice begins. */
  let cursor = 0
  /** Rows that are left in the round. */
  let rowsLeft = 0

  const beginRound = (): void => {
    let kept = 0
    for (const row of recentRows)
      if (idleScans[row] < USED_SCANS) {
        idleScans[row]++
        recentRows[kept++] = row
      } else idleScans[row] = NOT_RECENT
    recentRows.length = kept
    rowsLeft = queuesOf.length
  }

  const inspectRows = (max: number): boolean => {
    let found = false
    for (let rows = Math.min(max, rowsLeft); rows > 0; rows--) {
      if (cursor >= queuesOf.length) cursor = 0
      found = inspect(cursor++) || found
      rowsLeft--
    }
    return found
  }

  const inspectScope = (scope: ScanScope): boolean => {
    let found = false
    while (changed.length > 0) found = inspect(changed.pop() as number) || found
    if (scope === ScanScope.CHANGED) return found
    if (scope === ScanScope.USED) {
      for (let i = 0; i < recentRows.length; i++) found = inspect(recentRows[i]) || found
      return found
    }
    if (scope !== ScanScope.CONTINUE) beginRound()
    return inspectRows(scope === ScanScope.ALL ? rowsLeft : SLICE_ROWS) || found
  }

  /** The rows of a context with memory windows. */
  const rowsOf = (owner: QueueOwner): Set<number> => {
    let rows = rowsByOwner.get(owner)
    if (rows !== undefined) return rows
    rows = new Set()
    for (let row = 0; row < queuesOf.length; row++) if (queuesOf[row]?.owner === owner) rows.add(row)
    rowsByOwner.set(owner, rows)
    return rows
  }

  const scanInOrder = (scope: ScanScope): boolean => {
    isOrdering = true
    let found = inspectScope(scope)
    for (const owner of postingOwners)
      for (const row of rowsOf(owner))
        if (queuesOf[row]?.owner === owner) found = inspect(row) || found
        else rowsByOwner.get(owner)?.delete(row)
    postingOwners.clear()
    isOrdering = false
    for (const row of windowRows) engine.onDoorbell(row)
    for (const row of otherRows) engine.onDoorbell(row)
    windowRows.length = 0
    otherRows.length = 0
    return found
  }

  const recheck = (row: number): void => {
    const queues = queuesOf[row]
    if (queues === undefined) return
    queues.send.seen = NO_MARK
    queues.receive.seen = NO_MARK
    if (changed.length === 0 || changed[changed.length - 1] !== row) changed.push(row)
  }

  return {
    add(row) {
      const owner = queuesOf[row]?.owner
      if (owner !== undefined) rowsByOwner.get(owner)?.add(row)
      recheck(row)
    },
    recheck,
    hasUnseenSends(row) {
      const send = queuesOf[row]?.send
      return send !== undefined && send.mark() !== send.seen && !send.isEmpty()
    },
    hasWaitingSends(row) {
      const send = queuesOf[row]?.send
      return send !== undefined && !send.isEmpty()
    },
    hasChanges: () => changed.length > 0,
    scan: scope => (hasWindows() ? scanInOrder(scope) : inspectScope(scope)),
    isUnfinished: () => rowsLeft > 0,
  }
}

const grown = (old: Uint8Array<ArrayBuffer>, row: number): Uint8Array<ArrayBuffer> => {
  const bigger = new Uint8Array(largerCount(row)).fill(NOT_RECENT)
  bigger.set(old)
  return bigger
}
