/*
 * Accounting of the windows that queue pairs share (peer-window.ts): the bytes of each row in flight to its peer, and a
 * queue of the rows that wait for each peer. Nothing is allocated once the arrays have grown.
 */

export interface PeerWindows {
  /** Maximum window bytes in flight to one peer; 0: no limit. */
  readonly budget: number
  /**
   * By place of a peer: bytes in flight, the window, and the bytes to be acknowledged before another loss shrinks it.
   */
  out: Int32Array
  window: Int32Array
  calm: Int32Array
  /** By peer: the rows that wait (-1: none), what the first one needs, and whether something was acknowledged. */
  first: Int32Array
  last: Int32Array
  need: Int32Array
  moved: Uint8Array
  /** Peers for which rows wait. */
  readonly full: number[]
  /** When the current interval of paced sending began, µs. */
  since: number
  /** When silent peers are checked next, µs; Infinity for never. */
  deadline: number
  /** By row: its bytes in flight, its peer, and the bytes written off; and its links in the queue, if it waits. */
  counted: Int32Array
  peer: Int32Array
  writtenOff: Int32Array
  next: Int32Array
  before: Int32Array
  waiting: Uint8Array
  /** The row that is served from the queue; -1: none. */
  serving: number
  /** How much the row whose turn it is may have in flight, and how much more it needed: bytes, 0 for nothing. */
  limit: number
  lacked: number
}

export const NO_LIMIT = 0x7fff_ffff
/** Maximum bytes that paced queue pairs send in one interval. */
export const MAX_PACED_BYTES = 0x4_0000
/** Initial window of a peer. */
const START = 0x8_0000

/** Unreliable queue pairs have one queue, place 0; peer p has place p + 1. */
export const PACED = 0

/** `rows`: 0 where sending has no limits. */
export const createPeerWindows = (budget: number, rows: number): PeerWindows => ({
  budget,
  since: Number.NEGATIVE_INFINITY,
  out: new Int32Array(0),
  window: new Int32Array(0),
  calm: new Int32Array(0),
  first: new Int32Array(0),
  last: new Int32Array(0),
  need: new Int32Array(0),
  moved: new Uint8Array(0),
  full: [],
  deadline: Number.POSITIVE_INFINITY,
  counted: new Int32Array(rows),
  peer: new Int32Array(rows).fill(-1),
  writtenOff: new Int32Array(rows),
  next: new Int32Array(rows),
  before: new Int32Array(rows),
  waiting: new Uint8Array(rows),
  serving: -1,
  limit: NO_LIMIT,
  lacked: 0,
})

/** Whether there are limits at all. */
export const isBounded = (shares: PeerWindows): boolean => shares.peer.length > 0

const resized = (old: Int32Array, length: number, fill: number): Int32Array => {
  const made = new Int32Array(length).fill(fill, old.length)
  made.set(old)
  return made
}

/** Makes room for more rows. */
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

/** Makes room for the place `peer`. */
export const growPeers = (shares: PeerWindows, peer: number): void => {
  const setOutstanding = Math.max(16, 2 * peer)
  const moved = new Uint8Array(setOutstanding)
  moved.set(shares.moved)
  shares.moved = moved
  shares.out = resized(shares.out, setOutstanding, 0)
  shares.window = resized(shares.window, setOutstanding, Math.min(shares.budget, START))
  shares.calm = resized(shares.calm, setOutstanding, 0)
  shares.first = resized(shares.first, setOutstanding, -1)
  shares.last = resized(shares.last, setOutstanding, -1)
  shares.need = resized(shares.need, setOutstanding, 0)
}

/** Sets the bytes in flight of a row. */
export const count = (shares: PeerWindows, row: number, bytes: number): void => {
  const peer = shares.peer[row]
  const change = bytes - shares.counted[row]
  if (change === 0 || peer < 0) return
  if (change < 0) shares.moved[peer] = 1
  shares.out[peer] += change
  shares.counted[row] = bytes
}

/** Appends `row` to the queue of its peer, or puts it at the front. */
export const enqueue = (shares: PeerWindows, peer: number, row: number, atFront: boolean): void => {
  const first = shares.first[peer]
  const last = shares.last[peer]
  if (first < 0) {
    shares.full.push(peer)
    shares.need[peer] = 0
    shares.moved[peer] = 1
  }
  shares.waiting[row] = 1
  shares.before[row] = atFront ? -1 : last
  shares.next[row] = atFront ? first : -1
  if (first < 0 || atFront) shares.first[peer] = row
  if (last < 0 || !atFront) shares.last[peer] = row
  if (first >= 0 && atFront) shares.before[first] = row
  if (last >= 0 && !atFront) shares.next[last] = row
}

/** Removes it from the queue. */
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
  shares.full.splice(shares.full.indexOf(peer), 1)
  if (shares.full.length === 0) shares.deadline = Number.POSITIVE_INFINITY
}
