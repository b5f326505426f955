/*
 * A window for all queue pairs that send to one peer (docs/decisions/peer-window.md): together their unacknowledged
 * bytes fit into half of the peer's socket buffer. Each queue pair also has its own congestion window (QP.REQ_CWND).
 *
 * A loss or a timeout halves the peer's window; acknowledged bytes grow it again.
 *
 * A row that finds the window full waits in a queue of the peer. The queue is served in order, a quantum at a time, as
 * window becomes free, and other rows are appended, so that no row starves. If a peer acknowledges nothing for a while,
 * its bytes in flight have left its buffer: they were lost, or its queue pairs no longer exist. They are then written
 * off, so that they do not block other rows for ever.
 *
 * UC and UD have no acknowledgements. All their queue pairs share one window that is free again after an interval,
 * `s.pace`: a burst fits into a socket buffer, and receivers have an interval to read it. The memory link loses
 * nothing: it has neither window nor pace.
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

/** A peer that acknowledged nothing for so many µs has read or dropped all that was sent. */
const STALL_TIMEOUT = 200_000
/** Free window bytes for which a row is polled: worth a run, not a single packet. */
const MIN_FREE = 0x8000
/** Minimum window of a peer, bytes. */
const MIN_WINDOW = 0x1_0000

const outstandingOf = (s: EngineState, row: number): number => {
  const base = row * QP.WORDS
  return (s.rows[base + QP.REQ_SENT_BYTES] - s.rows[base + QP.COMP_ACKED_BYTES]) | 0
}

/** Updates the row's bytes in flight. */
const countAcknowledged = (s: EngineState, row: number): void => {
  const { windows } = s
  const out = outstandingOf(s, row)
  if (windows.writtenOff[row] > out) windows.writtenOff[row] = out
  count(windows, row, out - windows.writtenOff[row])
}

/** Starts a new interval when the last one is over. */
const renewPace = (s: EngineState, now: number): void => {
  const { windows } = s
  // The same sum as in `nextWindowDeadline`: a difference may round to less than the pace at the very deadline.
  if (now < windows.since + s.pace) return
  windows.since = now
  windows.window[PACED] = s.window < MAX_PACED_BYTES ? s.window : MAX_PACED_BYTES
  windows.out[PACED] = 0
}

/** Before a row is polled: sets `limit`, how much it may have in flight. */
export const openWindow = (s: EngineState, row: number, now: number): void => {
  const { windows } = s
  const w = s.rows
  const base = row * QP.WORDS
  const reliable = reliableService[w[base + QP.SERVICE]] !== 0
  windows.missing = 0
  windows.limit = NO_LIMIT
  if (reliable ? windows.budget === 0 || w[base + QP.PEER] < 0 : s.pace === 0) return
  const place = reliable ? w[base + QP.PEER] + 1 : PACED
  if (place >= windows.out.length) growPeers(windows, place)
  if (windows.peer[row] !== place) {
    leaveWindow(s, row)
    windows.peer[row] = place
  }
  if (reliable) countAcknowledged(s, row)
  else {
    // Counted with the others' bytes until the interval is over.
    w[base + QP.COMP_ACKED_BYTES] = w[base + QP.REQ_SENT_BYTES]
    renewPace(s, now)
  }
  const behind = windows.first[place] >= 0 && windows.serving !== row
  const room = behind ? 0 : windows.window[place] - windows.out[place]
  // The first row may send its whole burst.
  if (!reliable || behind || windows.out[place] > 0) windows.limit = outstandingOf(s, row) + (room > 0 ? room : 0)
}

/** After a row was polled and sent `sent` bytes: counts them, and queues the row if it needed more window. */
export const closeWindow = (s: EngineState, row: number, sent: number, now: number): void => {
  const { windows } = s
  if (!isBounded(windows)) return
  const place = windows.peer[row]
  if (place < 0) return
  if (place === PACED) windows.out[PACED] += sent
  else countAcknowledged(s, row)
  if (windows.missing === 0 || windows.waiting[row] !== 0) return
  // A row that was served but could not send, because its burst did not fit, stays first.
  const staysFirst = windows.serving === row && sent === 0
  enqueue(windows, place, row, staysFirst)
  if (staysFirst) windows.need[place] = windows.missing
  if (windows.deadline === Number.POSITIVE_INFINITY) windows.deadline = now + STALL_TIMEOUT
}

/** When to call `onWindowTimer`, µs; Infinity for never. */
export const nextWindowDeadline = (s: EngineState): number => {
  const { windows } = s
  const paced = windows.waitingPlaces.length > 0 && windows.first[PACED] >= 0
  return paced ? Math.min(windows.deadline, windows.since + s.pace) : windows.deadline
}

/** Called when an interval is over, or a peer was silent for too long. */
export const onWindowTimer = (s: EngineState, now: number): void => {
  if (s.pace !== 0 && s.windows.first.length > 0) renewPace(s, now)
  if (now >= s.windows.deadline) onStall(s, now)
}

/** The row has nothing in flight and nothing to send any more: ERR, RESET, or another peer. */
export const leaveWindow = (s: EngineState, row: number): void => {
  const { windows } = s
  if (!isBounded(windows)) return
  if (windows.waiting[row] !== 0) dequeue(windows, row)
  count(windows, row, 0)
  windows.writtenOff[row] = 0
  windows.peer[row] = -1
}

/** A loss on the path to the row's peer: counted once for all bytes in flight at that time. */
export const shrinkWindow = (s: EngineState, row: number): void => {
  const { windows } = s
  if (!isBounded(windows)) return
  const peer = windows.peer[row]
  if (peer < 0 || windows.untilNextLoss[peer] > 0) return
  const half = windows.window[peer] >> 1
  const window = half > MIN_WINDOW ? half : Math.min(MIN_WINDOW, windows.budget)
  windows.window[peer] = window
  windows.untilNextLoss[peer] = window
}

/** The peer has acknowledged `bytes` bytes. */
export const growWindow = (s: EngineState, row: number, bytes: number): void => {
  const { windows } = s
  if (!isBounded(windows)) return
  const peer = windows.peer[row]
  if (peer < 0) return
  const window = windows.window[peer] + (bytes >> 3)
  windows.window[peer] = window < windows.budget ? window : windows.budget
  if (windows.untilNextLoss[peer] > 0) windows.untilNextLoss[peer] -= bytes
}

/** Takes the next waiting row for which there is window; -1 if there is none. */
export const takeWaiting = (s: EngineState): number => {
  const { windows } = s
  for (let i = 0; i < windows.waitingPlaces.length; i++) {
    const peer = windows.waitingPlaces[i]
    const window = windows.window[peer]
    const room = window - windows.out[peer]
    const need = windows.need[peer]
    if (windows.out[peer] > 0 && room < (need > MIN_FREE ? need : Math.min(MIN_FREE, window >> 1))) continue
    const row = windows.first[peer]
    windows.need[peer] = 0
    dequeue(windows, row)
    windows.serving = row
    return row
  }
  return -1
}

/** The port was full when a waiting row was polled: it returns to the front of the queue. */
export const requeueFirst = (s: EngineState, row: number): void => {
  const { windows } = s
  if (windows.waiting[row] === 0 && windows.peer[row] >= 0) enqueue(windows, windows.peer[row], row, true)
}

/** Writes off the bytes in flight to peers that have acknowledged nothing since the last check. */
const onStall = (s: EngineState, now: number): void => {
  const { windows } = s
  for (const peer of windows.waitingPlaces) {
    if (windows.hasProgress[peer] === 0 && peer !== PACED) forgetOutstanding(s, peer)
    windows.hasProgress[peer] = 0
  }
  windows.deadline = windows.waitingPlaces.length > 0 ? now + STALL_TIMEOUT : Number.POSITIVE_INFINITY
}

const forgetOutstanding = (s: EngineState, peer: number): void => {
  const { windows } = s
  for (let row = 0; row < s.rowCount; row++) {
    if (windows.peer[row] !== peer) continue
    windows.writtenOff[row] = outstandingOf(s, row)
    windows.counted[row] = 0
  }
  windows.out[peer] = 0
}
