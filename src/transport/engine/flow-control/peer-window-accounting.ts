/*
 * Accounting of the windows that queue pairs share (peer-window.ts): bytes in flight of each row (queue pair), and a
 * queue of waiting rows for each window. Nothing is allocated once the arrays have grown.
 *
 * Window PACED is shared by all unreliable queue pairs, window p + 1 by all reliable queue pairs with peer p (QP.PEER).
 * All bytes are window bytes: payload plus PACKET_WEIGHT per packet.
 */

export interface PeerWindows {
  /** Maximum size of a peer's window, bytes; 0: unlimited. */
  readonly maxBytes: number
  /** By window: bytes in flight, size, and bytes to acknowledge before another loss shrinks the window. */
  inFlight: Int32Array
  size: Int32Array
  untilNextLoss: Int32Array
  /** By window: first and last waiting row; -1: none. */
  firstWaiting: Int32Array
  lastWaiting: Int32Array
  /** By window: if the first waiting row was polled and too few bytes were free, the bytes that it needs; else 0. */
  neededByFirst: Int32Array
  /** By window: whether the queue began, or bytes in flight became fewer, since the last check for silent peers. */
  hasProgress: Uint8Array
  /** Windows with waiting rows; `nextIndex`: index of the one to take a row from next. */
  readonly waitingWindows: number[]
  nextIndex: number
  /** Whether the next poll for sending begins with a waiting row, not with a scheduled one. */
  beginsWithWaiting: boolean
  /** Start of the current interval of paced sending, µs. */
  intervalStart: number
  /** Next check for silent peers, µs; Infinity: never. */
  deadline: number
  /** By row: bytes in flight that count in the window, the window (-1: none), and bytes in flight that do not count. */
  rowInFlight: Int32Array
  windowOfRow: Int32Array
  writtenOff: Int32Array
  /** By row: next and previous row in the queue of the window, and whether the row is in the queue. */
  nextWaiting: Int32Array
  previousWaiting: Int32Array
  isWaiting: Uint8Array
  /** The row that was taken from a queue and is being polled; -1: none. */
  servedRow: number
  /** Bytes that the polled row may have in flight. */
  rowLimit: number
  /** If `rowLimit` was too small for the polled row: the free bytes that it needs; else 0. */
  neededBytes: number
  /** Whether the last packet of each run of the polled row requests an ACK (`openWindow`). */
  requestsAcks: boolean
}

/** `rowLimit` of a row whose window is unlimited. */
export const NO_LIMIT = 0x7fff_ffff
/** Maximum bytes that paced queue pairs send in one interval. */
export const MAX_PACED_BYTES = 0x4_0000
/** Initial size of a peer's window, bytes. */
const INITIAL_WINDOW = 0x8_0000

/** The window of all unreliable queue pairs, which are paced (`EngineState.pacingInterval`). */
export const PACED = 0

/** `rows`: number of rows; 0 if sending is unlimited. */
export const createPeerWindows = (maxBytes: number, rows: number): PeerWindows => ({
  maxBytes,
  intervalStart: Number.NEGATIVE_INFINITY,
  inFlight: new Int32Array(0),
  size: new Int32Array(0),
  untilNextLoss: new Int32Array(0),
  firstWaiting: new Int32Array(0),
  lastWaiting: new Int32Array(0),
  neededByFirst: new Int32Array(0),
  hasProgress: new Uint8Array(0),
  waitingWindows: [],
  nextIndex: 0,
  beginsWithWaiting: false,
  deadline: Number.POSITIVE_INFINITY,
  rowInFlight: new Int32Array(rows),
  windowOfRow: new Int32Array(rows).fill(-1),
  writtenOff: new Int32Array(rows),
  nextWaiting: new Int32Array(rows),
  previousWaiting: new Int32Array(rows),
  isWaiting: new Uint8Array(rows),
  servedRow: -1,
  rowLimit: NO_LIMIT,
  neededBytes: 0,
  requestsAcks: false,
})

/** False if sending is unlimited: there are no windows. */
export const isBounded = (windows: PeerWindows): boolean => windows.windowOfRow.length > 0

const resized = (old: Int32Array, length: number, fill: number): Int32Array => {
  const copy = new Int32Array(length).fill(fill, old.length)
  copy.set(old)
  return copy
}

/** Grows the arrays by row to `rows` rows. */
export const growByRow = (windows: PeerWindows, rows: number): void => {
  if (!isBounded(windows)) return
  const isWaiting = new Uint8Array(rows)
  isWaiting.set(windows.isWaiting)
  windows.isWaiting = isWaiting
  windows.rowInFlight = resized(windows.rowInFlight, rows, 0)
  windows.windowOfRow = resized(windows.windowOfRow, rows, -1)
  windows.writtenOff = resized(windows.writtenOff, rows, 0)
  windows.nextWaiting = resized(windows.nextWaiting, rows, -1)
  windows.previousWaiting = resized(windows.previousWaiting, rows, -1)
}

/** Grows the arrays by window, so that they include `window`. */
export const growByWindow = (windows: PeerWindows, window: number): void => {
  const length = Math.max(16, 2 * window)
  const hasProgress = new Uint8Array(length)
  hasProgress.set(windows.hasProgress)
  windows.hasProgress = hasProgress
  windows.inFlight = resized(windows.inFlight, length, 0)
  windows.size = resized(windows.size, length, Math.min(windows.maxBytes, INITIAL_WINDOW))
  windows.untilNextLoss = resized(windows.untilNextLoss, length, 0)
  windows.firstWaiting = resized(windows.firstWaiting, length, -1)
  windows.lastWaiting = resized(windows.lastWaiting, length, -1)
  windows.neededByFirst = resized(windows.neededByFirst, length, 0)
}

/** Sets a row's bytes in flight, and changes those of its window accordingly. */
export const setInFlight = (windows: PeerWindows, row: number, bytes: number): void => {
  const window = windows.windowOfRow[row]
  const change = bytes - windows.rowInFlight[row]
  if (change === 0 || window < 0) return
  if (change < 0) windows.hasProgress[window] = 1
  windows.inFlight[window] += change
  windows.rowInFlight[row] = bytes
}

/**
 * Adds a row to the queue of its window. `stallCheck`: when to check for silent peers, unless a check is due earlier.
 */
export const enqueue = (windows: PeerWindows, row: number, atFront: boolean, stallCheck: number): void => {
  const window = windows.windowOfRow[row]
  const first = windows.firstWaiting[window]
  const last = windows.lastWaiting[window]
  if (first < 0) {
    windows.waitingWindows.push(window)
    windows.hasProgress[window] = 1
  }
  if (windows.deadline === Number.POSITIVE_INFINITY) windows.deadline = stallCheck
  windows.isWaiting[row] = 1
  windows.previousWaiting[row] = atFront ? -1 : last
  windows.nextWaiting[row] = atFront ? first : -1
  if (first < 0 || atFront) windows.firstWaiting[window] = row
  if (last < 0 || !atFront) windows.lastWaiting[window] = row
  if (first >= 0 && atFront) windows.previousWaiting[first] = row
  if (last >= 0 && !atFront) windows.nextWaiting[last] = row
}

/** Removes a row from the queue of its window. */
export const dequeue = (windows: PeerWindows, row: number): void => {
  const window = windows.windowOfRow[row]
  const next = windows.nextWaiting[row]
  const before = windows.previousWaiting[row]
  if (before < 0) {
    windows.firstWaiting[window] = next
    windows.neededByFirst[window] = 0
  } else windows.nextWaiting[before] = next
  if (next < 0) windows.lastWaiting[window] = before
  else windows.previousWaiting[next] = before
  windows.isWaiting[row] = 0
  if (windows.firstWaiting[window] >= 0) return
  windows.waitingWindows.splice(windows.waitingWindows.indexOf(window), 1)
  if (windows.waitingWindows.length === 0) windows.deadline = Number.POSITIVE_INFINITY
}
