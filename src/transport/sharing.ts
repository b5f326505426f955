/*
 * A window that queue pairs share when they send to one peer (design.md section 7, flow): what all of them together
 * have unacknowledged fits half of the peer's socket buffer, however many they are. Beside it each has its own window
 * (Row.WINDOW).
 *
 * A peer that is slow, or shared with other machines, loses packets or answers too late: then its window is halved, and
 * it grows again with what is acknowledged.
 *
 * Who finds the window full waits in a queue of the peer and is served in order, a quantum at a time, as room comes
 * free; who comes while others wait goes behind them, so that nobody starves. When a peer acknowledges nothing at all
 * for a while, what is out to it no longer lies in its buffer: it was lost, or its queue pairs are dead. It is then
 * forgiven, so that they cannot hold up the living for ever. Services without acknowledgements are paced instead
 * (unreliable.ts). Knows peers as numbers only.
 */
import { count, dequeue, enqueue, growPeers, NO_LIMIT } from './shares.ts'
import { type EngineState, Row } from './state.ts'

const { WORDS, PEER, SENT, ACKED } = Row

/** µs after which a peer that acknowledged nothing has nothing left in its buffer. */
const STALL = 200_000
/** Room that makes it worth to serve who waits: a run, not a packet. */
const WORTH = 0x8000
/** What a peer's window is at least, whatever is lost, bytes. */
const LEAST = 0x1_0000

const outOf = (s: EngineState, row: number): number => {
  const base = row * WORDS
  return (s.rows[base + SENT] - s.rows[base + ACKED]) | 0
}

/** Takes what was acknowledged of a row out of the window, and counts what was sent. */
const settle = (s: EngineState, row: number): void => {
  const { shares } = s
  const out = outOf(s, row)
  if (shares.forgiven[row] > out) shares.forgiven[row] = out
  count(shares, row, out - shares.forgiven[row])
}

/** The turn of a row begins whose service has no acknowledgements: it has no share. */
export const withoutShare = (s: EngineState): void => {
  s.shares.limit = NO_LIMIT
}

/** The turn of a row begins: says in `limit` how much it may have out. */
export const openShare = (s: EngineState, row: number): void => {
  const { shares } = s
  const peer = s.rows[row * WORDS + PEER]
  shares.lacked = 0
  shares.limit = NO_LIMIT
  if (peer < 0) return
  if (peer >= shares.out.length) growPeers(shares, peer)
  if (shares.peer[row] !== peer) {
    leaveShare(s, row)
    shares.peer[row] = peer
  }
  settle(s, row)
  const behind = shares.first[peer] >= 0 && shares.serving !== row
  const room = behind ? 0 : shares.window[peer] - shares.out[peer]
  // the first of all may send whatever it has to send at once
  if (behind || shares.out[peer] > 0) shares.limit = outOf(s, row) + (room > 0 ? room : 0)
}

/** The turn of a row is over: counts what it has sent; if it wanted more than there was it waits. */
export const closeShare = (s: EngineState, row: number, now: number): void => {
  const { shares } = s
  const peer = shares.peer[row]
  if (peer < 0) return
  const before = shares.counted[row]
  settle(s, row)
  if (shares.lacked === 0 || shares.waiting[row] !== 0) return
  // who was served and could not send because of what it wants to send at once is the next one again
  const again = shares.serving === row && shares.counted[row] === before
  enqueue(shares, peer, row, again)
  if (again) shares.need[peer] = shares.lacked
  if (shares.deadline === Number.POSITIVE_INFINITY) shares.deadline = now + STALL
}

/** A row has nothing out any more and wants nothing: it is in error, reset, or has another peer. */
export const leaveShare = (s: EngineState, row: number): void => {
  const { shares } = s
  if (shares.waiting[row] !== 0) dequeue(shares, row)
  count(shares, row, 0)
  shares.forgiven[row] = 0
  shares.peer[row] = -1
}

/** Something was lost on the way to the row's peer: once for all that was out then. */
export const narrowShare = (s: EngineState, row: number): void => {
  const { shares } = s
  const peer = shares.peer[row]
  if (peer < 0 || shares.calm[peer] > 0) return
  const half = shares.window[peer] >> 1
  const window = half > LEAST ? half : Math.min(LEAST, shares.budget)
  shares.window[peer] = window
  shares.calm[peer] = window
}

/** Its peer has acknowledged `bytes`. */
export const widenShare = (s: EngineState, row: number, bytes: number): void => {
  const { shares } = s
  const peer = shares.peer[row]
  if (peer < 0) return
  const window = shares.window[peer] + (bytes >> 3)
  shares.window[peer] = window < shares.budget ? window : shares.budget
  if (shares.calm[peer] > 0) shares.calm[peer] -= bytes
}

/** The next row that waited and for which there is room now; it is the one that is served. -1 if there is none. */
export const takeWaiting = (s: EngineState): number => {
  const { shares } = s
  for (let i = 0; i < shares.full.length; i++) {
    const peer = shares.full[i]
    const window = shares.window[peer]
    const room = window - shares.out[peer]
    const need = shares.need[peer]
    if (shares.out[peer] > 0 && room < (need > WORTH ? need : Math.min(WORTH, window >> 1))) continue
    const row = shares.first[peer]
    shares.need[peer] = 0
    dequeue(shares, row)
    shares.serving = row
    return row
  }
  return -1
}

/** The port was full when it was a row's turn that had waited: it keeps its place. */
export const putBack = (s: EngineState, row: number): void => {
  const { shares } = s
  if (shares.waiting[row] === 0 && shares.peer[row] >= 0) enqueue(shares, shares.peer[row], row, true)
}

/** The time is over: peers that acknowledged nothing meanwhile are forgiven what is out to them. */
export const onStall = (s: EngineState, now: number): void => {
  const { shares } = s
  for (const peer of shares.full) {
    if (shares.moved[peer] === 0) forgive(s, peer)
    shares.moved[peer] = 0
  }
  shares.deadline = shares.full.length > 0 ? now + STALL : Number.POSITIVE_INFINITY
}

const forgive = (s: EngineState, peer: number): void => {
  const { shares } = s
  for (let row = 0; row < s.rowCount; row++) {
    if (shares.peer[row] !== peer) continue
    shares.forgiven[row] = outOf(s, row)
    shares.counted[row] = 0
  }
  shares.out[peer] = 0
}
