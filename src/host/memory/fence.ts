/*
 * Ordering of plain memory accesses that two processes make on shared memory.
 *
 * A full (store before load) barrier is needed only before a consumer of rings sleeps. The sleeper stores "parked",
 * then reads the rings once more; the producer writes its ring, then reads "parked". Unless each makes its store
 * visible before its load, both can miss the other's store, and the sleeper sleeps although a ring has entries.
 *
 * This file uses Atomics.store and Atomics.load on an Int32Array over the mapping. V8 executes them as sequentially
 * consistent machine operations on any ArrayBuffer, shared or not (x86-64: XCHG, a full barrier; arm64: STLR and LDAR,
 * which keep their order among themselves), and never reorders other accesses with the call. So:
 *   sleeper:   setWord(parked, i, 1); then read every ring index by loadWord; then block if nothing was found.
 *   producer:  store index; full fence; load parked (C: __atomic_thread_fence(__ATOMIC_SEQ_CST)).
 * On x86-64 the second read may use plain loads, on arm64 it may not: use loadWord for the first index of each ring.
 */

/** Stores a 32-bit word; it is visible to other processes before any later loadWord is performed. */
export const setWord = (words: Int32Array, index: number, value: number): void => {
  Atomics.store(words, index, value)
}

/** Loads a 32-bit word, after every earlier setWord, and before every later access (acquire). */
export const loadWord = (words: Int32Array, index: number): number => Atomics.load(words, index)
