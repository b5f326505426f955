/*
 * The other end of the noise probe's ping-pong over shared memory: a worker that sleeps until it must spin, and then
 * answers each ping immediately. See noise.ts.
 */
import { workerData } from 'node:worker_threads'
import { GO, PING, PONG } from './noise-words.ts'

const words = new Int32Array(workerData as SharedArrayBuffer)
for (;;) {
  Atomics.wait(words, GO, 0)
  while (Atomics.load(words, GO) === 1) Atomics.store(words, PONG, Atomics.load(words, PING))
}
