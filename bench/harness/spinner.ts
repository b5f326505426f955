/*
 * The worker of the noise probe (noise.ts). It sleeps while GO is 0; while GO is 1, it spins and answers pings.
 */
import { workerData } from 'node:worker_threads'
import { GO, PING, PONG } from './noise-words.ts'

const words = new Int32Array(workerData as SharedArrayBuffer)
for (;;) {
  Atomics.wait(words, GO, 0)
  while (Atomics.load(words, GO) === 1) Atomics.store(words, PONG, Atomics.load(words, PING))
}
