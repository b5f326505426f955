/*
 * A window that queue pairs share when they send to one peer (docs/decisions/peer-window.md): what all of them together
 * have unacknowledged fits half of the peer's socket buffer, however many they are. Beside it each has its own window
 * (QP.REQ_CWND).
 *
 * A peer that is slow, or shared with other machines, loses packets or answers too late: then its window is halved, and
 * it grows again with what is acknowledged.
 *
 * Who finds the window full waits in a queue of the peer and is served in order, a quantum at a time, as room comes
 * free; who comes while others wait goes behind them, so that nobody starves. When a peer acknowledges nothing at all
 * for a while, what is out to it no longer lies in its buffer: it was lost, or its queue pairs are dead. It is then
 * forgiven, so that they cannot hold up the living for ever.
 *
 * Where nothing is acknowledged (UC, UD) nobody says how much receivers can take. All who send so share one window,
 * too, which is free again after an interval, `s.pace`: a burst then fits a socket buffer, and receivers have an
 * interval to look at it. On the memory link nothing is lost, and there is neither window nor pace. Knows peers as
 * numbers only.
 */
import { reliableService } from '../../spec/wire/services.ts'
import { QP } from '../fields.ts'
import type { EngineState } from '../state.ts'
import {
  count,
  dequeue,
  enqueue,
  growPeers,
  isBounded,
  MAX_PACED_BYTES,
  NO_LIMIT,
  PACED,
} from './peer-window-accounting.ts'

/** µs after which a peer that acknowledged nothing has nothing left in its buffer. */
const STALL = 200_000
/** Room that makes it worth to serve who waits: a run, not a packet. */
const WORTH = 0x8000
/** What a peer's window is at least, whatever is lost, bytes. */
const LEAST = 0x1_0000

const outstandingOf = (s: EngineState, row: number): number => {
  const base = row * QP.WORDS
  return (s.rows[base + QP.REQ_SENT_BYTES] - s.rows[base + QP.COMP_ACKED_BYTES]) | 0
}

/** Takes what was acknowledged of a row out of the window, and counts what was sent. */
const countAcknowledged = (s: EngineState, row: number): void => {
  const { shares } = s
  const out = outstandingOf(s, row)
  if (shares.forgiven[row] > out) shares.forgiven[row] = out
  count(shares, row, out - shares.forgiven[row])
}

/** A new interval begins, if the last one is over. */
const renewPace = (s: EngineState, now: number): void => {
  const { shares } = s
  // as `nextShareTimeout` reckons it: a difference may round to less than the pace at the very time that was asked for
  if (now < shares.since + s.pace) return
  shares.since = now
  shares.window[PACED] = s.window < MAX_PACED_BYTES ? s.window : MAX_PACED_BYTES
  shares.out[PACED] = 0
}

/** The turn of a row begins: says in `limit` how much it may have out. */
export const openWindow = (s: EngineState, row: number, now: number): void => {
  const { shares } = s
  const w = s.rows
  const base = row * QP.WORDS
  const reliable = reliableService[w[base + QP.SERVICE]] !== 0
  shares.lacked = 0
  shares.limit = NO_LIMIT
  if (reliable ? shares.budget === 0 || w[base + QP.PEER] < 0 : s.pace === 0) return
  const place = reliable ? w[base + QP.PEER] + 1 : PACED
  if (place >= shares.out.length) growPeers(shares, place)
  if (shares.peer[row] !== place) {
    leaveWindow(s, row)
    shares.peer[row] = place
  }
  if (reliable) countAcknowledged(s, row)
  else {
    // what it has sent is counted with the others' until the interval is over
    w[base + QP.COMP_ACKED_BYTES] = w[base + QP.REQ_SENT_BYTES]
    renewPace(s, now)
  }
  const behind = shares.first[place] >= 0 && shares.serving !== row
  const room = behind ? 0 : shares.window[place] - shares.out[place]
  // the first of all may send whatever it has to send at once
  if (!reliable || behind || shares.out[place] > 0) shares.limit = outstandingOf(s, row) + (room > 0 ? room : 0)
}

/**
 * The turn of a row is over, in which `sent` bytes have left: counts them; if it wanted more than there was room for it
 * waits.
 */
export const closeWindow = (s: EngineState, row: number, sent: number, now: number): void => {
  const { shares } = s
  if (!isBounded(shares)) return
  const place = shares.peer[row]
  if (place < 0) return
  if (place === PACED) shares.out[PACED] += sent
  else countAcknowledged(s, row)
  if (shares.lacked === 0 || shares.waiting[row] !== 0) return
  // who was served and could not send because of what it wants to send at once is the next one again
  const again = shares.serving === row && sent === 0
  enqueue(shares, place, row, again)
  if (again) shares.need[place] = shares.lacked
  if (shares.deadline === Number.POSITIVE_INFINITY) shares.deadline = now + STALL
}

/** When `onWindowTimer` is to be called, µs; Infinity for never. */
export const nextWindowDeadline = (s: EngineState): number => {
  const { shares } = s
  const paced = shares.full.length > 0 && shares.first[PACED] >= 0
  return paced ? Math.min(shares.deadline, shares.since + s.pace) : shares.deadline
}

/** An interval may be over, or peers may have been silent for too long. */
export const onWindowTimer = (s: EngineState, now: number): void => {
  if (s.pace !== 0 && s.shares.first.length > 0) renewPace(s, now)
  if (now >= s.shares.deadline) onStall(s, now)
}

/** A row has nothing out any more and wants nothing: it is in error, reset, or has another peer. */
export const leaveWindow = (s: EngineState, row: number): void => {
  const { shares } = s
  if (!isBounded(shares)) return
  if (shares.waiting[row] !== 0) dequeue(shares, row)
  count(shares, row, 0)
  shares.forgiven[row] = 0
  shares.peer[row] = -1
}

/** Something was lost on the way to the row's peer: once for all that was out then. */
export const shrinkWindow = (s: EngineState, row: number): void => {
  const { shares } = s
  if (!isBounded(shares)) return
  const peer = shares.peer[row]
  if (peer < 0 || shares.calm[peer] > 0) return
  const half = shares.window[peer] >> 1
  const window = half > LEAST ? half : Math.min(LEAST, shares.budget)
  shares.window[peer] = window
  shares.calm[peer] = window
}

/** Its peer has acknowledged `bytes`. */
export const growWindow = (s: EngineState, row: number, bytes: number): void => {
  const { shares } = s
  if (!isBounded(shares)) return
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
export const requeueFirst = (s: EngineState, row: number): void => {
  const { shares } = s
  if (shares.waiting[row] === 0 && shares.peer[row] >= 0) enqueue(shares, shares.peer[row], row, true)
}

/** The time is over: peers that acknowledged nothing meanwhile are forgiven what is out to them. */
const onStall = (s: EngineState, now: number): void => {
  const { shares } = s
  for (const peer of shares.full) {
    if (shares.moved[peer] === 0 && peer !== PACED) forgetOutstanding(s, peer)
    shares.moved[peer] = 0
  }
  shares.deadline = shares.full.length > 0 ? now + STALL : Number.POSITIVE_INFINITY
}

const forgetOutstanding = (s: EngineState, peer: number): void => {
  const { shares } = s
  for (let row = 0; row < s.rowCount; row++) {
    if (shares.peer[row] !== peer) continue
    shares.forgiven[row] = outstandingOf(s, row)
    shares.counted[row] = 0
  }
  shares.out[peer] = 0
}
