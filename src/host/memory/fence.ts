/*
 * Ordering of memory accesses of two processes on shared memory.
 *
 * Full (store before load) barriers are needed so that a consumer of rings can sleep. The sleeper stores "parked", then
 * reads the rings once more. The producer writes its ring, then reads "parked". Each must make its store visible before
 * its load: otherwise both can miss the other's store, and the sleeper sleeps although a ring has entries.
 *
 * V8 executes Atomics.store and Atomics.load as sequentially consistent machine operations on any ArrayBuffer, shared
 * or not (x86-64: XCHG, a full barrier; arm64: STLR and LDAR, which keep their order among themselves), and never
 * reorders other accesses with the call. So:
 *   sleeper:   setWord(parked, i, 1); then Atomics.load of every ring index; then block if nothing was found.
 *   producer:  store index; full fence; load parked (C: __atomic_thread_fence(__ATOMIC_SEQ_CST); here: Atomics.store of
 *              the index, then loadWord).
 */

/** Stores a 32-bit word, which is visible to other processes before any later Atomics.load. */
export const setWord = (words: Int32Array, index: number, value: number): void => {
  Atomics.store(words, index, value)
}

/** Adds to a 32-bit word; ordered like `setWord`. */
export const addToWord = (words: Int32Array, index: number, delta: number): void => {
  Atomics.add(words, index, delta)
}

/** Loads a 32-bit word after every earlier Atomics.store and before every later access (acquire). */
export const loadWord = (words: Int32Array, index: number): number => Atomics.load(words, index)
