/*
 * A binary min-heap of numbers in an array, for free numbers of which the lowest is taken first.
 */

/** Adds a number, in O(log n). */
export const pushToHeap = (heap: number[], value: number): void => {
  let at = heap.length
  heap.push(value)
  while (at > 0) {
    const parent = (at - 1) >> 1
    if (heap[parent]! <= value) break
    heap[at] = heap[parent]!
    at = parent
  }
  heap[at] = value
}

/** Removes and returns the lowest number, in O(log n). The heap must not be empty. */
export const popFromHeap = (heap: number[]): number => {
  const lowest = heap[0]!
  const value = heap.pop()!
  const length = heap.length
  if (length === 0) return lowest
  let at = 0
  for (;;) {
    let child = 2 * at + 1
    if (child >= length) break
    if (child + 1 < length && heap[child + 1]! < heap[child]!) child++
    if (heap[child]! >= value) break
    heap[at] = heap[child]!
    at = child
  }
  heap[at] = value
  return lowest
}
