/*
 * A window for all queue pairs that send to one peer (docs/decisions/peer-window.md): their unacknowledged bytes
 * together fit half of the peer's socket buffer. Each queue pair also has its own congestion window (QP.REQ_CWND).
 *
 * A loss or a timeout halves the peer's window; acknowledged bytes grow it again.
 *
 * A row that finds the window full waits in a queue of the peer. The queue is served in order, a quantum at a time, as
 * room becomes free, and new rows are appended, so that no row starves. If a peer acknowledges nothing for a while, its
 * bytes in flight are no longer in its buffer: they were lost, or its queue pairs no longer exist. They are then
 * written off, so that they do not block other rows for ever.
 *
 * UC and UD have no acknowledgements. All their queue pairs share one window that is free again after an interval,
 * `s.pace`: a burst fits a socket buffer, and receivers have an interval to read it. The memory link loses nothing: it
 * has neither window nor pace.
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
/** Room that is worth a turn: that of a run, not of a packet. */
const WORTH = 0x8000
/** Smallest window of a peer, bytes. */
const MIN_WINDOW = 0x1_0000

const outstandingOf = (s: EngineState, row: number): number => {
  const base = row * QP.WORDS
  return (s.rows[base + QP.REQ_SENT_BYTES] - s.rows[base + QP.COMP_ACKED_BYTES]) | 0
}

/** Updates the row's bytes in flight: acknowledged ones leave, sent ones are added. */
const countAcknowledged = (s: EngineState, row: number): void => {
  const { shares } = s
  const out = outstandingOf(s, row)
  if (shares.writtenOff[row] > out) shares.writtenOff[row] = out
  count(shares, row, out - shares.writtenOff[row])
}

/** Begins a new interval, if the last one is over. */
const renewPace = (s: EngineState, now: number): void => {
  const { shares } = s
  // as `nextShareTimeout` computes it: the difference may round to less than the pace at the very deadline
  if (now < shares.since + s.pace) return
  shares.since = now
  shares.window[PACED] = s.window < MAX_PACED_BYTES ? s.window : MAX_PACED_BYTES
  shares.out[PACED] = 0
}

/** A turn begins: sets `limit`, how much the row may have in flight. */
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
    // its bytes count with the others' until the interval is over
    w[base + QP.COMP_ACKED_BYTES] = w[base + QP.REQ_SENT_BYTES]
    renewPace(s, now)
  }
  const behind = shares.first[place] >= 0 && shares.serving !== row
  const room = behind ? 0 : shares.window[place] - shares.out[place]
  // the first row may send its whole burst
  if (!reliable || behind || shares.out[place] > 0) shares.limit = outstandingOf(s, row) + (room > 0 ? room : 0)
}

/** A turn ends in which `sent` bytes were sent: counts them; a row that wanted more than there was room for waits. */
export const closeWindow = (s: EngineState, row: number, sent: number, now: number): void => {
  const { shares } = s
  if (!isBounded(shares)) return
  const place = shares.peer[row]
  if (place < 0) return
  if (place === PACED) shares.out[PACED] += sent
  else countAcknowledged(s, row)
  if (shares.lacked === 0 || shares.waiting[row] !== 0) return
  // a row that was served and could not send, because its burst did not fit, is the next one again
  const again = shares.serving === row && sent === 0
  enqueue(shares, place, row, again)
  if (again) shares.need[place] = shares.lacked
  if (shares.deadline === Number.POSITIVE_INFINITY) shares.deadline = now + STALL
}

/** When to call `onWindowTimer`, µs; Infinity for never. */
export const nextWindowDeadline = (s: EngineState): number => {
  const { shares } = s
  const paced = shares.full.length > 0 && shares.first[PACED] >= 0
  return paced ? Math.min(shares.deadline, shares.since + s.pace) : shares.deadline
}

/** An interval may be over, or a peer silent for too long. */
export const onWindowTimer = (s: EngineState, now: number): void => {
  if (s.pace !== 0 && s.shares.first.length > 0) renewPace(s, now)
  if (now >= s.shares.deadline) onStall(s, now)
}

/** A row has nothing in flight any more and wants nothing: ERR, RESET, or another peer. */
export const leaveWindow = (s: EngineState, row: number): void => {
  const { shares } = s
  if (!isBounded(shares)) return
  if (shares.waiting[row] !== 0) dequeue(shares, row)
  count(shares, row, 0)
  shares.writtenOff[row] = 0
  shares.peer[row] = -1
}

/** A loss on the way to the row's peer: counted once for all bytes then in flight. */
export const shrinkWindow = (s: EngineState, row: number): void => {
  const { shares } = s
  if (!isBounded(shares)) return
  const peer = shares.peer[row]
  if (peer < 0 || shares.calm[peer] > 0) return
  const half = shares.window[peer] >> 1
  const window = half > MIN_WINDOW ? half : Math.min(MIN_WINDOW, shares.budget)
  shares.window[peer] = window
  shares.calm[peer] = window
}

/** The peer has acknowledged `bytes`. */
export const growWindow = (s: EngineState, row: number, bytes: number): void => {
  const { shares } = s
  if (!isBounded(shares)) return
  const peer = shares.peer[row]
  if (peer < 0) return
  const window = shares.window[peer] + (bytes >> 3)
  shares.window[peer] = window < shares.budget ? window : shares.budget
  if (shares.calm[peer] > 0) shares.calm[peer] -= bytes
}

/** The next waiting row for which there is room; it is served now. -1 if there is none. */
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

/** The port was full when a waiting row had its turn: it keeps its place. */
export const requeueFirst = (s: EngineState, row: number): void => {
  const { shares } = s
  if (shares.waiting[row] === 0 && shares.peer[row] >= 0) enqueue(shares, shares.peer[row], row, true)
}

/** Writes off the bytes in flight to peers that have acknowledged nothing meanwhile. */
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
    shares.writtenOff[row] = outstandingOf(s, row)
    shares.counted[row] = 0
  }
  shares.out[peer] = 0
}
