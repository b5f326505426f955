/*
 * A window for all reliable queue pairs that send to one peer (docs/decisions/peer-window.md), so that their
 * unacknowledged bytes together fit into the peer's socket buffer. A peer is the address of a device. Each queue pair
 * also has its own congestion window (QP.REQ_CWND).
 *
 * A loss or a timeout halves the peer's window. Acknowledged bytes grow it again.
 *
 * If the window is full, the row (queue pair) waits in the window's queue. When bytes are acknowledged, the first row
 * is polled. Other rows are appended to the queue, and windows with waiting rows take turns, so no row starves. If a
 * peer acknowledges nothing for a while, the bytes in flight were lost, or the peer's queue pairs no longer exist. The
 * bytes are then written off, so that they do not block other rows forever.
 *
 * UC and UD have no acknowledgements. All their queue pairs share one window, which is free again after each
 * `s.pacingInterval`. The bytes sent in one interval fit into a socket buffer.
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import { reliableService } from '../../../spec/wire/services.ts'
import { QP } from '../fields.ts'
import type { EngineState } from '../state.ts'
import {
  dequeue,
  enqueue,
  growByWindow,
  isBounded,
  MAX_PACED_BYTES,
  NO_LIMIT,
  PACED,
  setInFlight,
} from './peer-window-accounting.ts'

/**
 * Interval of the checks of peers while rows wait, µs. The bytes in flight of a peer that has acknowledged nothing
 * since the last check are written off.
 */
const STALL_TIMEOUT = 200_000
/** Minimum free bytes of a window for a poll of a waiting row; half of the window's size if that is less. */
const MIN_FREE = 0x8000
/** Minimum window of a peer, bytes. */
const MIN_WINDOW = 0x1_0000

/** The row's unacknowledged window bytes. */
const outstandingOf = (s: EngineState, row: number): number => {
  const base = row * QP.WORDS
  return (s.rows[base + QP.REQ_SENT_BYTES] - s.rows[base + QP.COMP_ACKED_BYTES]) | 0
}

const updateInFlight = (s: EngineState, row: number): void => {
  const { windows } = s
  const outstanding = outstandingOf(s, row)
  if (windows.writtenOff[row] > outstanding) windows.writtenOff[row] = outstanding
  setInFlight(windows, row, outstanding - windows.writtenOff[row])
}

/**
 * Window bytes that a row may have unacknowledged: its congestion window, or the window that it shares with other rows
 * if that is less.
 */
export const windowOf = (s: EngineState, row: number): number => {
  const { windows } = s
  const cwnd = s.rows[row * QP.WORDS + QP.REQ_CWND]
  const window = isBounded(windows) ? windows.windowOfRow[row] : -1
  return window < 0 || windows.size[window] > cwnd ? cwnd : windows.size[window]
}

const renewPacingInterval = (s: EngineState, now: number): void => {
  const { windows } = s
  // The same sum as in `nextWindowDeadline`: `now - intervalStart` may be rounded to less than the interval.
  if (now < windows.intervalStart + s.pacingInterval) return
  windows.intervalStart = now
  windows.size[PACED] = s.maxCwnd < MAX_PACED_BYTES ? s.maxCwnd : MAX_PACED_BYTES
  windows.inFlight[PACED] = 0
}

/**
 * Call this before a row is polled. Sets `rowLimit`, the bytes that the row may have in flight, and `requestsAcks`.
 *
 * A row requests an ACK after each quarter of its congestion window. The packets after these requests, of all rows
 * together, must not fill the shared window, since no ACK would free it. So a row requests more ACKs while the other
 * rows leave less than a congestion window.
 */
export const openWindow = (s: EngineState, row: number, now: number): void => {
  const { windows } = s
  const w = s.rows
  const base = row * QP.WORDS
  const isReliable = reliableService[w[base + QP.SERVICE]] !== 0
  windows.neededBytes = 0
  windows.requestsAcks = false
  windows.rowLimit = NO_LIMIT
  const isUnlimited = isReliable ? windows.maxBytes === 0 || w[base + QP.PEER] < 0 : s.pacingInterval === 0
  if (isUnlimited) return
  const window = isReliable ? w[base + QP.PEER] + 1 : PACED
  if (window >= windows.inFlight.length) growByWindow(windows, window)
  if (windows.windowOfRow[row] !== window) {
    leaveWindow(s, row)
    windows.windowOfRow[row] = window
  }
  if (isReliable) {
    updateInFlight(s, row)
    const others = windows.inFlight[window] - windows.rowInFlight[row]
    windows.requestsAcks = windows.size[window] - others < s.maxCwnd
  } else {
    // No acknowledgement: `inFlight` of window PACED counts what all unreliable queue pairs send in this interval.
    w[base + QP.COMP_ACKED_BYTES] = w[base + QP.REQ_SENT_BYTES]
    renewPacingInterval(s, now)
  }
  const mustWait = windows.firstWaiting[window] >= 0 && windows.servedRow !== row
  const free = mustWait ? 0 : windows.size[window] - windows.inFlight[window]
  // If nothing is in flight to the peer, there is no limit for this poll.
  if (!isReliable || mustWait || windows.inFlight[window] > 0)
    windows.rowLimit = outstandingOf(s, row) + (free > 0 ? free : 0)
}

/** Call this after a row was polled and sent `sent` bytes. Counts them, and queues the row if it needed more. */
export const closeWindow = (s: EngineState, row: number, sent: number, now: number): void => {
  const { windows } = s
  if (!isBounded(windows)) return
  const window = windows.windowOfRow[row]
  if (window < 0) return
  if (window === PACED) windows.inFlight[PACED] += sent
  else updateInFlight(s, row)
  if (windows.neededBytes === 0 || windows.isWaiting[row] !== 0) return
  // If the first row could not send, because it needs more than was free, it stays first.
  const staysFirst = windows.servedRow === row && sent === 0
  enqueue(windows, row, staysFirst, now + STALL_TIMEOUT)
  if (staysFirst) windows.neededByFirst[window] = windows.neededBytes
}

/** The time at which to call `onWindowTimer`, µs; Infinity: never. */
export const nextWindowDeadline = (s: EngineState): number => {
  const { windows } = s
  const isPacedWaiting = windows.waitingWindows.length > 0 && windows.firstWaiting[PACED] >= 0
  return isPacedWaiting ? Math.min(windows.deadline, windows.intervalStart + s.pacingInterval) : windows.deadline
}

export const onWindowTimer = (s: EngineState, now: number): void => {
  if (s.pacingInterval !== 0 && s.windows.firstWaiting.length > 0) renewPacingInterval(s, now)
  if (now >= s.windows.deadline) checkSilentPeers(s, now)
}

/** Removes a row from its window: the row enters ERR or RESET, or has another peer. */
export const leaveWindow = (s: EngineState, row: number): void => {
  const { windows } = s
  if (!isBounded(windows)) return
  if (windows.isWaiting[row] !== 0) dequeue(windows, row)
  setInFlight(windows, row, 0)
  windows.writtenOff[row] = 0
  windows.windowOfRow[row] = -1
}

/**
 * Halves the window of the row's peer after a loss. The window is halved again only after one window of bytes was
 * acknowledged.
 */
export const shrinkWindow = (s: EngineState, row: number): void => {
  const { windows } = s
  if (!isBounded(windows)) return
  const window = windows.windowOfRow[row]
  if (window < 0 || windows.untilNextLoss[window] > 0) return
  const half = windows.size[window] >> 1
  const size = half > MIN_WINDOW ? half : Math.min(MIN_WINDOW, windows.maxBytes)
  windows.size[window] = size
  windows.untilNextLoss[window] = size
}

/** The row's peer has acknowledged `bytes` bytes: grows the peer's window by an eighth of them. */
export const growWindow = (s: EngineState, row: number, bytes: number): void => {
  const { windows } = s
  if (!isBounded(windows)) return
  const window = windows.windowOfRow[row]
  if (window < 0) return
  const size = windows.size[window] + (bytes >> 3)
  windows.size[window] = size < windows.maxBytes ? size : windows.maxBytes
  if (windows.untilNextLoss[window] > 0) windows.untilNextLoss[window] -= bytes
}

/** Takes the first waiting row of the next window with enough free bytes; -1 if there is none. */
export const takeWaiting = (s: EngineState): number => {
  const { windows } = s
  const { waitingWindows } = windows
  const count = waitingWindows.length
  for (let i = 0; i < count; i++) {
    const index = (windows.nextIndex + i) % count
    const window = waitingWindows[index]
    const size = windows.size[window]
    const free = size - windows.inFlight[window]
    const required = Math.max(windows.neededByFirst[window], Math.min(MIN_FREE, size >> 1))
    if (windows.inFlight[window] > 0 && free < required) continue
    const row = windows.firstWaiting[window]
    dequeue(windows, row)
    // If this was the window's last waiting row, `dequeue` has removed the window: the next window has its index.
    windows.nextIndex = waitingWindows[index] === window ? index + 1 : index
    windows.servedRow = row
    return row
  }
  return -1
}

/** Puts a polled row back into its window's queue, because the port is full. */
export const requeue = (s: EngineState, row: number, atFront: boolean, now: number): void => {
  const { windows } = s
  if (windows.isWaiting[row] === 0 && windows.windowOfRow[row] >= 0) enqueue(windows, row, atFront, now + STALL_TIMEOUT)
}

const checkSilentPeers = (s: EngineState, now: number): void => {
  const { windows } = s
  for (const window of windows.waitingWindows) {
    if (windows.hasProgress[window] === 0 && window !== PACED) writeOff(s, window)
    windows.hasProgress[window] = 0
  }
  windows.deadline = windows.waitingWindows.length > 0 ? now + STALL_TIMEOUT : Number.POSITIVE_INFINITY
}

/** A window's present bytes in flight no longer count. */
const writeOff = (s: EngineState, window: number): void => {
  const { windows } = s
  for (let row = 0; row < s.rowCount; row++) {
    if (windows.windowOfRow[row] !== window) continue
    windows.writtenOff[row] = outstandingOf(s, row)
    windows.rowInFlight[row] = 0
  }
  windows.inFlight[window] = 0
}
