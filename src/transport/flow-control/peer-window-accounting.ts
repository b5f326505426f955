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
export const isBounded = (shares: PeerWindows): boolean => shares.peer.length > 0

const resized = (old: Int32Array, length: number, fill: number): Int32Array => {
  const copy = new Int32Array(length).fill(fill, old.length)
  copy.set(old)
  return copy
}

/** Grows the arrays by row. */
export const growWindows = (shares: PeerWindows, rows: number): void => {
  if (!isBounded(shares)) return
  const waiting = new Uint8Array(rows)
  waiting.set(shares.waiting)
  shares.waiting = waiting
  shares.counted = resized(shares.counted, rows, 0)
  shares.peer = resized(shares.peer, rows, -1)
  shares.writtenOff = resized(shares.writtenOff, rows, 0)
  shares.next = resized(shares.next, rows, -1)
  shares.before = resized(shares.before, rows, -1)
}

/** Grows the arrays by place, so that they include `peer`. */
export const growPeers = (shares: PeerWindows, peer: number): void => {
  const length = Math.max(16, 2 * peer)
  const hasProgress = new Uint8Array(length)
  hasProgress.set(shares.hasProgress)
  shares.hasProgress = hasProgress
  shares.out = resized(shares.out, length, 0)
  shares.window = resized(shares.window, length, Math.min(shares.budget, INITIAL_WINDOW))
  shares.untilNextLoss = resized(shares.untilNextLoss, length, 0)
  shares.first = resized(shares.first, length, -1)
  shares.last = resized(shares.last, length, -1)
  shares.need = resized(shares.need, length, 0)
}

/** Sets the bytes in flight of a row. */
export const count = (shares: PeerWindows, row: number, bytes: number): void => {
  const peer = shares.peer[row]
  const change = bytes - shares.counted[row]
  if (change === 0 || peer < 0) return
  if (change < 0) shares.hasProgress[peer] = 1
  shares.out[peer] += change
  shares.counted[row] = bytes
}

/** Adds `row` to the end of its peer's queue, or to the front. */
export const enqueue = (shares: PeerWindows, peer: number, row: number, atFront: boolean): void => {
  const first = shares.first[peer]
  const last = shares.last[peer]
  if (first < 0) {
    shares.waitingPlaces.push(peer)
    shares.need[peer] = 0
    shares.hasProgress[peer] = 1
  }
  shares.waiting[row] = 1
  shares.before[row] = atFront ? -1 : last
  shares.next[row] = atFront ? first : -1
  if (first < 0 || atFront) shares.first[peer] = row
  if (last < 0 || !atFront) shares.last[peer] = row
  if (first >= 0 && atFront) shares.before[first] = row
  if (last >= 0 && !atFront) shares.next[last] = row
}

/** Removes a row from the queue of its peer. */
export const dequeue = (shares: PeerWindows, row: number): void => {
  const peer = shares.peer[row]
  const next = shares.next[row]
  const before = shares.before[row]
  if (before < 0) shares.first[peer] = next
  else shares.next[before] = next
  if (next < 0) shares.last[peer] = before
  else shares.before[next] = before
  shares.waiting[row] = 0
  if (shares.first[peer] >= 0) return
  shares.waitingPlaces.splice(shares.waitingPlaces.indexOf(peer), 1)
  if (shares.waitingPlaces.length === 0) shares.deadline = Number.POSITIVE_INFINITY
}
