/*
 * One timer per queue pair, all in one heap. If a timer is set to a later time, as by an ACK, or cleared, only its
 * deadline changes. The heap keeps the earlier key, and moves or removes the timer when it reaches the top. Times are
 * microseconds of the caller's clock (docs/decisions/engines-without-io.md).
 */

export interface Timers {
  /** By the queue pair's row: expiry time; Infinity if the timer is not set. */
  deadline: Float64Array
  /** By the queue pair's row: index in the heap; -1 if not in the heap. */
  heapIndex: Int32Array
  /** By heap index: the row, and its key, which is never later than its deadline. */
  heap: Int32Array
  key: Float64Array
  size: number
  /** Deadline of the timer that was taken last. */
  lastTaken: number
}

const FIRST_HEAP = 8

export const createTimers = (): Timers => ({
  deadline: new Float64Array(0),
  heapIndex: new Int32Array(0),
  heap: new Int32Array(FIRST_HEAP),
  key: new Float64Array(FIRST_HEAP),
  size: 0,
  lastTaken: Number.NEGATIVE_INFINITY,
})

/** Grows the arrays that are indexed by row, so that they include `row`. */
const growRows = (t: Timers, row: number): void => {
  const rows = row + Math.max(16, row >> 3)
  const deadline = new Float64Array(rows).fill(Number.POSITIVE_INFINITY)
  const heapIndex = new Int32Array(rows).fill(-1)
  deadline.set(t.deadline)
  heapIndex.set(t.heapIndex)
  t.deadline = deadline
  t.heapIndex = heapIndex
}

const growHeap = (t: Timers): void => {
  const heap = new Int32Array(t.heap.length * 2)
  const key = new Float64Array(heap.length)
  heap.set(t.heap)
  key.set(t.key)
  t.heap = heap
  t.key = key
}

/** Moves `row` with key `at` up from heap index `from`. */
const siftUp = (t: Timers, from: number, row: number, at: number): void => {
  const { heap, key, heapIndex } = t
  let i = from
  while (i > 0) {
    const parent = (i - 1) >> 1
    if (key[parent] <= at) break
    heap[i] = heap[parent]
    key[i] = key[parent]
    heapIndex[heap[i]] = i
    i = parent
  }
  heap[i] = row
  key[i] = at
  heapIndex[row] = i
}

/** Moves `row` with key `at` down from the top. */
const siftDown = (t: Timers, row: number, at: number): void => {
  const { heap, key, heapIndex, size } = t
  let i = 0
  for (;;) {
    let child = 2 * i + 1
    if (child >= size) break
    if (child + 1 < size && key[child + 1] < key[child]) child++
    if (key[child] >= at) break
    heap[i] = heap[child]
    key[i] = key[child]
    heapIndex[heap[i]] = i
    i = child
  }
  heap[i] = row
  key[i] = at
  heapIndex[row] = i
}

const removeTop = (t: Timers): void => {
  t.heapIndex[t.heap[0]] = -1
  t.size--
  if (t.size > 0) siftDown(t, t.heap[t.size], t.key[t.size])
}

export const setTimer = (t: Timers, row: number, at: number): void => {
  if (row >= t.deadline.length) growRows(t, row)
  t.deadline[row] = at
  const heapIndex = t.heapIndex[row]
  if (heapIndex < 0) {
    if (t.size === t.heap.length) growHeap(t)
    t.size++
    siftUp(t, t.size - 1, row, at)
  } else if (at < t.key[heapIndex]) siftUp(t, heapIndex, row, at)
}

export const clearTimer = (t: Timers, row: number): void => {
  if (row < t.deadline.length) t.deadline[row] = Number.POSITIVE_INFINITY
}

export const isTimerSet = (t: Timers, row: number): boolean =>
  row < t.deadline.length && t.deadline[row] !== Number.POSITIVE_INFINITY

/** The time at which the next timer expires; Infinity if none is set. Corrects outdated heap keys. */
export const nextDeadline = (t: Timers): number => {
  while (t.size > 0) {
    const row = t.heap[0]
    const deadline = t.deadline[row]
    if (deadline === t.key[0]) return deadline
    if (deadline === Number.POSITIVE_INFINITY) removeTop(t)
    else siftDown(t, row, deadline)
  }
  return Number.POSITIVE_INFINITY
}

/** The deadline of the timer that `takeExpired` returned last. */
export const takenDeadline = (t: Timers): number => t.lastTaken

/** Takes a timer that has expired by `now`; returns its row, or -1 if there is none. */
export const takeExpired = (t: Timers, now: number): number => {
  if (nextDeadline(t) > now) return -1
  const row = t.heap[0]
  t.lastTaken = t.deadline[row]
  t.deadline[row] = Number.POSITIVE_INFINITY
  removeTop(t)
  return row
}
