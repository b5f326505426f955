/*
 * The other end of the noise probe's ping-pong over shared memory (noise.ts): a worker that sleeps while GO is 0, and
 * spins while it is 1, answering each ping immediately.
 */
import { workerData } from 'node:worker_threads'
import { GO, PING, PONG } from './noise-words.ts'

const words = new Int32Array(workerData as SharedArrayBuffer)
for (;;) {
  Atomics.wait(words, GO, 0)
  while (Atomics.load(words, GO) === 1) Atomics.store(words, PONG, Atomics.load(words, PING))
}
