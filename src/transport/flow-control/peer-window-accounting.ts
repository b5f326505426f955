/*
 * The books of a window that queue pairs share (peer-window.ts): what is counted of each for which peer, and a queue of
 * those that wait at each peer. Rows and peers are small integers; why they wait is not known here. Nothing is
 * allocated once the arrays have grown.
 */

export interface PeerWindows {
  /** Most window bytes that are ever out to one peer; 0: there is no such window. */
  readonly budget: number
  /** By place of a peer: bytes out, how many may be out, and how many are to be acknowledged before a loss counts. */
  out: Int32Array
  window: Int32Array
  calm: Int32Array
  /** By peer: the rows that wait (-1 for none), what the first needs, whether something was acknowledged. */
  first: Int32Array
  last: Int32Array
  need: Int32Array
  moved: Uint8Array
  /** Peers for which rows wait. */
  readonly full: number[]
  /** When the interval began in which bytes are counted that nobody acknowledges, µs. */
  since: number
  /** When those are looked at whose peers acknowledge nothing, µs; Infinity for never. */
  deadline: number
  /** By row: what is counted of it, for which peer, and what was forgiven; neighbours in the queue, if it waits. */
  counted: Int32Array
  peer: Int32Array
  forgiven: Int32Array
  next: Int32Array
  before: Int32Array
  waiting: Uint8Array
  /** The row that is served now, -1 for none. */
  serving: number
  /** How much the row whose turn it is may have out, and what it lacked: bytes, 0 for nothing. */
  limit: number
  lacked: number
}

export const NO_LIMIT = 0x7fff_ffff
/** Most bytes of an interval of those who send without acknowledgements: nobody says whether they arrive. */
export const MAX_PACED_BYTES = 0x4_0000
/** Window of a peer of whom nothing is known yet. */
const START = 0x8_0000

/**
 * The queue of those who send without acknowledgements stands in the place of a peer; peer number p has place p + 1.
 */
export const PACED = 0

/** `rows`: 0 where sending has no bounds. */
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
  forgiven: new Int32Array(rows),
  next: new Int32Array(rows),
  before: new Int32Array(rows),
  waiting: new Uint8Array(rows),
  serving: -1,
  limit: NO_LIMIT,
  lacked: 0,
})

/** Whether there is anything to share: where sending has no bounds there are no books of rows. */
export const isBounded = (shares: PeerWindows): boolean => shares.peer.length > 0

const resized = (old: Int32Array, length: number, fill: number): Int32Array => {
  const made = new Int32Array(length).fill(fill, old.length)
  made.set(old)
  return made
}

/** Room for more rows. */
export const growWindows = (shares: PeerWindows, rows: number): void => {
  if (!isBounded(shares)) return
  const waiting = new Uint8Array(rows)
  waiting.set(shares.waiting)
  shares.waiting = waiting
  shares.counted = resized(shares.counted, rows, 0)
  shares.peer = resized(shares.peer, rows, -1)
  shares.forgiven = resized(shares.forgiven, rows, 0)
  shares.next = resized(shares.next, rows, -1)
  shares.before = resized(shares.before, rows, -1)
}

/** Room for place number `peer`, and some more. */
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

/** What is counted of a row becomes `bytes`. */
export const count = (shares: PeerWindows, row: number, bytes: number): void => {
  const peer = shares.peer[row]
  const change = bytes - shares.counted[row]
  if (change === 0 || peer < 0) return
  if (change < 0) shares.moved[peer] = 1
  shares.out[peer] += change
  shares.counted[row] = bytes
}

/** Row `row` waits for room at its peer, behind the others or in front of them. */
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

/** It waits no more. */
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
