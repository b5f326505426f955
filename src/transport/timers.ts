/*
 * One timer per queue pair, all in one heap (design.md section 7). A timer that moves later, which every
 * acknowledgement does, costs one store: the heap keeps the earlier key until it comes to the top, and only then sinks
 * it to the true deadline. Times are microseconds on the caller's scale; rows are small integers; nothing here knows
 * what a timer is for.
 */

export interface Timers {
  /** By row: when it expires, Infinity if it is not set. */
  deadline: Float64Array
  /** By row: the key under which the heap has it, at most `deadline`. */
  key: Float64Array
  /** By row: its place in the heap, -1 if it is not there. */
  place: Int32Array
  /** As long as there ever were timers at once. */
  heap: Int32Array
  size: number
}

export const createTimers = (rows: number): Timers => ({
  deadline: new Float64Array(rows).fill(Number.POSITIVE_INFINITY),
  key: new Float64Array(rows),
  place: new Int32Array(rows).fill(-1),
  heap: new Int32Array(8),
  size: 0,
})

export const growTimers = (t: Timers, rows: number): void => {
  const deadline = new Float64Array(rows).fill(Number.POSITIVE_INFINITY)
  const key = new Float64Array(rows)
  const place = new Int32Array(rows).fill(-1)
  deadline.set(t.deadline)
  key.set(t.key)
  place.set(t.place)
  t.deadline = deadline
  t.key = key
  t.place = place
}

const growHeap = (t: Timers): void => {
  const heap = new Int32Array(t.heap.length * 2)
  heap.set(t.heap)
  t.heap = heap
}

const rise = (t: Timers, from: number): void => {
  const { heap, key, place } = t
  let i = from
  const row = heap[i]
  while (i > 0) {
    const parent = (i - 1) >> 1
    const other = heap[parent]
    if (key[other] <= key[row]) break
    heap[i] = other
    place[other] = i
    i = parent
  }
  heap[i] = row
  place[row] = i
}

const sink = (t: Timers, from: number): void => {
  const { heap, key, place, size } = t
  let i = from
  const row = heap[i]
  for (;;) {
    let child = 2 * i + 1
    if (child >= size) break
    if (child + 1 < size && key[heap[child + 1]] < key[heap[child]]) child++
    const other = heap[child]
    if (key[other] >= key[row]) break
    heap[i] = other
    place[other] = i
    i = child
  }
  heap[i] = row
  place[row] = i
}

const removeTop = (t: Timers): void => {
  t.place[t.heap[0]] = -1
  t.size--
  if (t.size > 0) {
    t.heap[0] = t.heap[t.size]
    t.place[t.heap[0]] = 0
    sink(t, 0)
  }
}

/** Sets the timer of `row` to expire at `at`, whatever it was before. */
export const setTimer = (t: Timers, row: number, at: number): void => {
  t.deadline[row] = at
  const place = t.place[row]
  if (place < 0) {
    t.key[row] = at
    if (t.size === t.heap.length) growHeap(t)
    t.heap[t.size] = row
    t.place[row] = t.size
    t.size++
    rise(t, t.size - 1)
  } else if (at < t.key[row]) {
    t.key[row] = at
    rise(t, place)
  }
}

export const clearTimer = (t: Timers, row: number): void => {
  t.deadline[row] = Number.POSITIVE_INFINITY
}

/** When the next timer expires, Infinity if none is set. Entries that have moved or gone are put right on the way. */
export const nextDeadline = (t: Timers): number => {
  while (t.size > 0) {
    const row = t.heap[0]
    const deadline = t.deadline[row]
    if (deadline === t.key[row]) return deadline
    if (deadline === Number.POSITIVE_INFINITY) removeTop(t)
    else {
      t.key[row] = deadline
      sink(t, 0)
    }
  }
  return Number.POSITIVE_INFINITY
}

/** When the timer was due that `takeExpired` answered with `row`, until another one is set. */
export const wasDue = (t: Timers, row: number): number => t.key[row]

/** Takes one timer that has expired by `now` out and answers its row; -1 if there is none. */
export const takeExpired = (t: Timers, now: number): number => {
  if (nextDeadline(t) > now) return -1
  const row = t.heap[0]
  t.deadline[row] = Number.POSITIVE_INFINITY
  removeTop(t)
  return row
}
