/*
 * Finds newly posted work requests from the producer indices of the queues. `ScanScope` names the kinds of scan.
 *
 * A device may have thousands of queue pairs of which few are busy, and each check of a queue pair costs two loads. So
 * a doorbell checks its queue pair; a busy loop checks those that were used recently, and all of them occasionally and
 * before it sleeps. A call whose result depends on what was posted before it checks the queues first (`catchUp` in
 * state.ts).
 *
 * A queue has new posts if its producer index differs from the index that was read last (`seenProducer`), by a scan or
 * by the engine. The engine fetches further requests by itself, and updates `seenProducer` when it finds the queue
 * empty: otherwise an index that has meanwhile wrapped once in a small ring would look unchanged, and its request would
 * never be fetched.
 *
 * A bind or an invalidation takes effect before any request that is posted after it on any queue pair of the context.
 * So a scan passes new requests of a context with memory windows to the engine only after it has checked every queue of
 * the context once more, which finds all that was posted before them; queues with binds or invalidations are passed
 * first. Queues of other contexts are not checked again, since there may be very many.
 */
import type { Engine } from '../../../transport/engine.ts'
import { largerCount } from '../../../transport/state.ts'
import { loadProducer, NO_INDEX } from './rings.ts'
import { isWindowOperationPosted, type QpRings, type QueueOwner, type SendQueue } from './work-source.ts'

/**
 * The queues that a scan checks. CHANGED: those named by `recheck`. USED: these and the recently used ones. ALL: all.
 * The daemon's loop checks all in slices, so that the idle queue pairs of one program do not delay others: BEGIN begins
 * a round over all queues with its first slice, CONTINUE checks the next slice. A round begins where the previous slice
 * ended.
 */
export const ScanScope = { CHANGED: 0, USED: 1, ALL: 2, BEGIN: 3, CONTINUE: 4 } as const
export type ScanScope = (typeof ScanScope)[keyof typeof ScanScope]

/** A row is a queue pair: its row in the engine. */
export interface PostScan {
  /** The queues of a row were created; includes `recheck`. */
  add(row: number): void
  /** The next scan passes this row to the engine even if its indices have not changed. */
  recheck(row: number): void
  /** Whether the row's send queue may have requests that no scan has found. */
  hasUnseenSends(row: number): boolean
  /** Whether `recheck` was called since the last scan. */
  hasChanges(): boolean
  /** Passes rows with new posts to the engine; true if any send queue may have new requests. */
  scan(scope: ScanScope): boolean
  /** Whether slices of the current round are left. */
  isUnfinished(): boolean
}

/** Rows of a slice: about 0.1 ms, since the rings of idle queue pairs are not in the processor's cache. */
export const SLICE_ROWS = 256

/** Full scans without new posts after which a queue pair no longer counts as recently used. */
const USED_SCANS = 16
/** `lastUsed` of a row that never had posts. */
const NEVER = -USED_SCANS - 1

/** `hasWindows`: whether the device has memory windows. */
export const createPostScan = (
  rings: readonly (QpRings | undefined)[],
  engine: Pick<Engine, 'onDoorbell' | 'onReceiveScan'>,
  hasWindows: () => boolean,
): PostScan => {
  /** By row: the number of the full scan at which it had new posts last. */
  let lastUsed = new Int32Array(64).fill(NEVER)
  /** Rows named by `recheck` since the last scan. */
  const changed: number[] = []
  /** Recently used rows. */
  const recent: number[] = []
  let fullScans = 0
  /**
   * By context with memory windows that has posted: the rows of its queue pairs. A row may meanwhile be free or belong
   * to another context.
   */
  const rowsByOwner = new WeakMap<QueueOwner, Set<number>>()
  /** Whether new posts of contexts with memory windows are collected, to be passed to the engine in order. */
  let isOrdering = false
  /** The contexts of the collected rows, the rows that have posted a bind or an invalidation, and the other rows. */
  const postingOwners = new Set<QueueOwner>()
  const windowRows: number[] = []
  const otherRows: number[] = []

  const defer = (row: number, queue: SendQueue, seenProducer: number, owner: QueueOwner): void => {
    postingOwners.add(owner)
    const hasWindowOperation = isWindowOperationPosted(
      queue,
      seenProducer === NO_INDEX ? queue.retiredIndex : seenProducer,
    )
    ;(hasWindowOperation ? windowRows : otherRows).push(row)
  }

  /** Checks the queues of a row; true if its send queue may have new requests. */
  const inspect = (row: number): boolean => {
    const queues = rings[row]
    if (queues === undefined) return false
    const { receive } = queues
    if (!receive.isShared) {
      const producer = loadProducer(receive.ring)
      if (producer !== receive.seenProducer) {
        receive.seenProducer = producer
        // the engine acts on a new receive WQE only in ERR, where it flushes it
        engine.onReceiveScan(row)
      }
    }
    const producer = loadProducer(queues.send.ring)
    const { seenProducer, retiredIndex } = queues.send
    if (producer === seenProducer) return false
    queues.send.seenProducer = producer
    if (isOrdering && queues.owner !== undefined && queues.owner.windowCount > 0)
      defer(row, queues.send, seenProducer, queues.owner)
    else engine.onDoorbell(row)
    // a call has created or changed the queue pair and nothing is posted: a sleeping loop need not wake
    if (seenProducer === NO_INDEX && producer === retiredIndex) return false
    if (row >= lastUsed.length) lastUsed = grown(lastUsed, row)
    if (fullScans - lastUsed[row] > USED_SCANS) recent.push(row)
    lastUsed[row] = fullScans
    return true
  }

  /** The row at which the next slice begins, and the number of rows that are left in the round. */
  let cursor = 0
  let rowsLeft = 0

  const beginRound = (): void => {
    fullScans = (fullScans + 1) | 0
    let kept = 0
    for (const row of recent) if (fullScans - lastUsed[row] <= USED_SCANS) recent[kept++] = row
    recent.length = kept
    rowsLeft = rings.length
  }

  const inspectRows = (max: number): boolean => {
    let found = false
    for (let rows = Math.min(max, rowsLeft); rows > 0; rows--) {
      if (cursor >= rings.length) cursor = 0
      found = inspect(cursor++) || found
      rowsLeft--
    }
    return found
  }

  const inspectScope = (scope: ScanScope): boolean => {
    let found = false
    while (changed.length > 0) found = inspect(changed.pop() as number) || found
    if (scope === ScanScope.ALL || scope === ScanScope.BEGIN) beginRound()
    if (scope >= ScanScope.ALL) return inspectRows(scope === ScanScope.ALL ? rowsLeft : SLICE_ROWS) || found
    if (scope === ScanScope.USED) for (let i = 0; i < recent.length; i++) found = inspect(recent[i]) || found
    return found
  }

  /** The rows of a context with memory windows. Those of other contexts are not recorded, and cost no memory. */
  const rowsOf = (owner: QueueOwner): Set<number> => {
    let rows = rowsByOwner.get(owner)
    if (rows !== undefined) return rows
    rows = new Set()
    for (let row = 0; row < rings.length; row++) if (rings[row]?.owner === owner) rows.add(row)
    rowsByOwner.set(owner, rows)
    return rows
  }

  const scanInOrder = (scope: ScanScope): boolean => {
    isOrdering = true
    const found = inspectScope(scope)
    for (const owner of postingOwners)
      for (const row of rowsOf(owner))
        if (rings[row]?.owner === owner) inspect(row)
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
    const queues = rings[row]
    if (queues === undefined) return
    queues.send.seenProducer = NO_INDEX
    queues.receive.seenProducer = NO_INDEX
    if (changed.length === 0 || changed[changed.length - 1] !== row) changed.push(row)
  }

  return {
    add(row) {
      const owner = rings[row]?.owner
      if (owner !== undefined) rowsByOwner.get(owner)?.add(row)
      recheck(row)
    },
    recheck,
    hasUnseenSends(row) {
      const queues = rings[row]
      if (queues === undefined) return false
      const producer = loadProducer(queues.send.ring)
      return producer !== queues.send.seenProducer && producer !== queues.send.retiredIndex
    },
    hasChanges: () => changed.length > 0,
    scan: scope => (hasWindows() ? scanInOrder(scope) : inspectScope(scope)),
    isUnfinished: () => rowsLeft > 0,
  }
}

const grown = (old: Int32Array<ArrayBuffer>, row: number): Int32Array<ArrayBuffer> => {
  const bigger = new Int32Array(largerCount(row)).fill(NEVER)
  bigger.set(old)
  return bigger
}
