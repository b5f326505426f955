/*
 * Accounting of the windows that queue pairs share (peer-window.ts): bytes in flight of each row to its peer, and for
 * each peer a queue of rows that wait. Nothing is allocated once the arrays have grown.
 */

export interface PeerWindows {
  /** Maximum window bytes in flight to one peer; 0: unlimited. */
  readonly budget: number
  /**
   * By place of a peer: bytes in flight, window, and bytes to be acknowledged before another loss shrinks the window.
   */
  out: Int32Array
  window: Int32Array
  untilNextLoss: Int32Array
  /**
   * By place: first and last waiting row (-1: none), bytes that the first needs, and whether anything was acknowledged
   * since the last check.
   */
  first: Int32Array
  last: Int32Array
  need: Int32Array
  hasProgress: Uint8Array
  /** Places with waiting rows. */
  readonly waitingPlaces: number[]
  /** Start of the current interval of paced sending, µs. */
  since: number
  /** Next check for silent peers, µs; Infinity for never. */
  deadline: number
  /** By row: its bytes in flight, its place, its bytes written off; and its links in the queue while it waits. */
  counted: Int32Array
  peer: Int32Array
  writtenOff: Int32Array
  next: Int32Array
  before: Int32Array
  waiting: Uint8Array
  /** The row that was taken from a queue and is being polled; -1: none. */
  serving: number
  /** Bytes that the row being polled may have in flight, and bytes that it needed in addition (0: none). */
  limit: number
  missing: number
}

export const NO_LIMIT = 0x7fff_ffff
/** Maximum bytes that paced queue pairs send in one interval. */
export const MAX_PACED_BYTES = 0x4_0000
/** Initial window of a peer. */
const INITIAL_WINDOW = 0x8_0000

/** Place 0 is shared by all unreliable queue pairs; peer p has place p + 1. */
export const PACED = 0

/** `rows`: number of rows; 0 if sending is unlimited. */
export const createPeerWindows = (budget: number, rows: number): PeerWindows => ({
  budget,
  since: Number.NEGATIVE_INFINITY,
  out: new Int32Array(0),
  window: new Int32Array(0),
  untilNextLoss: new Int32Array(0),
  first: new Int32Array(0),
  last: new Int32Array(0),
  need: new Int32Array(0),
  hasProgress: new Uint8Array(0),
  waitingPlaces: [],
  deadline: Number.POSITIVE_INFINITY,
  counted: new Int32Array(rows),
  peer: new Int32Array(rows).fill(-1),
  writtenOff: new Int32Array(rows),
  next: new Int32Array(rows),
  before: new Int32Array(rows),
  waiting: new Uint8Array(rows),
  serving: -1,
  limit: NO_LIMIT,
  missing: 0,
})

/** Whether sending is limited. */
export const isBounded = (windows: PeerWindows): boolean => windows.peer.length > 0

const resized = (old: Int32Array, length: number, fill: number): Int32Array => {
  const copy = new Int32Array(length).fill(fill, old.length)
  copy.set(old)
  return copy
}

/** Grows the arrays by row. */
export const growWindows = (windows: PeerWindows, rows: number): void => {
  if (!isBounded(windows)) return
  const waiting = new Uint8Array(rows)
  waiting.set(windows.waiting)
  windows.waiting = waiting
  windows.counted = resized(windows.counted, rows, 0)
  windows.peer = resized(windows.peer, rows, -1)
  windows.writtenOff = resized(windows.writtenOff, rows, 0)
  windows.next = resized(windows.next, rows, -1)
  windows.before = resized(windows.before, rows, -1)
}

/** Grows the arrays by place, so that they include `peer`. */
export const growPeers = (windows: PeerWindows, peer: number): void => {
  const length = Math.max(16, 2 * peer)
  const hasProgress = new Uint8Array(length)
  hasProgress.set(windows.hasProgress)
  windows.hasProgress = hasProgress
  windows.out = resized(windows.out, length, 0)
  windows.window = resized(windows.window, length, Math.min(windows.budget, INITIAL_WINDOW))
  windows.untilNextLoss = resized(windows.untilNextLoss, length, 0)
  windows.first = resized(windows.first, length, -1)
  windows.last = resized(windows.last, length, -1)
  windows.need = resized(windows.need, length, 0)
}

/** Sets the bytes in flight of a row. */
export const count = (windows: PeerWindows, row: number, bytes: number): void => {
  const peer = windows.peer[row]
  const change = bytes - windows.counted[row]
  if (change === 0 || peer < 0) return
  if (change < 0) windows.hasProgress[peer] = 1
  windows.out[peer] += change
  windows.counted[row] = bytes
}

/** Adds `row` to the end of its peer's queue, or to the front. */
export const enqueue = (windows: PeerWindows, peer: number, row: number, atFront: boolean): void => {
  const first = windows.first[peer]
  const last = windows.last[peer]
  if (first < 0) {
    windows.waitingPlaces.push(peer)
    windows.need[peer] = 0
    windows.hasProgress[peer] = 1
  }
  windows.waiting[row] = 1
  windows.before[row] = atFront ? -1 : last
  windows.next[row] = atFront ? first : -1
  if (first < 0 || atFront) windows.first[peer] = row
  if (last < 0 || !atFront) windows.last[peer] = row
  if (first >= 0 && atFront) windows.before[first] = row
  if (last >= 0 && !atFront) windows.next[last] = row
}

/** Removes a row from the queue of its peer. */
export const dequeue = (windows: PeerWindows, row: number): void => {
  const peer = windows.peer[row]
  const next = windows.next[row]
  const before = windows.before[row]
  if (before < 0) windows.first[peer] = next
  else windows.next[before] = next
  if (next < 0) windows.last[peer] = before
  else windows.before[next] = before
  windows.waiting[row] = 0
  if (windows.first[peer] >= 0) return
  windows.waitingPlaces.splice(windows.waitingPlaces.indexOf(peer), 1)
  if (windows.waitingPlaces.length === 0) windows.deadline = Number.POSITIVE_INFINITY
}
