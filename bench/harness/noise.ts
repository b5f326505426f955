/*
 * A probe for a quiet machine, with two short measurements. A fixed loop of several independent chains takes longer if
 * another process uses the core, if the frequency drops, or if the other hardware thread of the core is busy: a single
 * chain of dependent steps leaves the core half idle, so it would not notice the other thread. A ping-pong over shared memory with a spinning worker takes milliseconds without two free
 * cores, otherwise less than a microsecond.
 */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import type { NoiseProbe, NoiseSample } from './harness.ts'
import { GO, PING, PONG, WORDS } from './noise-words.ts'

/** Maximum time of the loop on a quiet machine, as a multiple of the shortest time. */
const LOOP_LIMIT = 1.25
/** Maximum round trip over shared memory on a quiet machine, in microseconds. */
const SPIN_LIMIT = 1.5
const LOOP_STEPS = 1_000_000
/** Loops before the first measurement. */
const FIRST_LOOPS = 20
/** Maximum round trips and milliseconds of a measurement. */
const ROUND_TRIPS = 2000
const SPIN_MS = 30
/** Loads of PONG between two readings of the clock. */
const SPINS_PER_CHECK = 4096

let sink = 0

/** Milliseconds of LOOP_STEPS steps of eight chains that do not wait for each other, two operations each. */
const timeLoop = (): number => {
  const start = performance.now()
  let [a, b, c, d, e, f, g, h] = [sink | 0, 1, 2, 3, 4, 5, 6, 7]
  for (let i = 0; i < LOOP_STEPS; i++) {
    a = ((a ^ i) + 1) | 0
    b = ((b ^ i) + 3) | 0
    c = ((c ^ i) + 5) | 0
    d = ((d ^ i) + 7) | 0
    e = ((e ^ i) + 9) | 0
    f = ((f ^ i) + 11) | 0
    g = ((g ^ i) + 13) | 0
    h = ((h ^ i) + 15) | 0
  }
  sink = a ^ b ^ c ^ d ^ e ^ f ^ g ^ h
  return performance.now() - start
}

/** Mean round trip in microseconds; infinite without a round trip. */
const timeSpin = (words: Int32Array): number => {
  Atomics.store(words, GO, 1)
  Atomics.notify(words, GO)
  const deadline = performance.now() + SPIN_MS
  const trip = (value: number): boolean => {
    Atomics.store(words, PING, value)
    for (let spins = 1; Atomics.load(words, PONG) !== value; spins++) {
      if (spins % SPINS_PER_CHECK === 0 && performance.now() > deadline) return false
    }
    return true
  }
  let trips = 0
  const isAwake = trip(-1)
  const start = performance.now()
  while (isAwake && trips < ROUND_TRIPS && trip(trips + 1)) trips++
  const elapsed = performance.now() - start
  Atomics.store(words, GO, 0)
  return trips === 0 ? Number.POSITIVE_INFINITY : (elapsed * 1000) / trips
}

/** No probe, for measurements that other processes do not disturb. */
export const noProbe: NoiseProbe = () => ({ quiet: true, text: 'not probed' })

/** A probe for one core, or for two if `cores` is 2; `close` ends its worker. */
export const createNoiseProbe = async (cores: 1 | 2): Promise<{ probe: NoiseProbe; close: () => Promise<void> }> => {
  let shortest = Number.POSITIVE_INFINITY
  for (let i = 0; i < FIRST_LOOPS; i++) shortest = Math.min(shortest, timeLoop())
  const words = new Int32Array(new SharedArrayBuffer(WORDS * Int32Array.BYTES_PER_ELEMENT))
  const worker =
    cores === 2 ? new Worker(new URL('./spinner.js', import.meta.url), { workerData: words.buffer }) : undefined
  if (worker) {
    await once(worker, 'online')
    worker.unref()
    // This measurement is not counted: the first pings wait until the worker has loaded its code.
    timeSpin(words)
  }

  const probe = (): NoiseSample => {
    const time = timeLoop()
    shortest = Math.min(shortest, time)
    const loop = time / shortest
    const spin = worker ? timeSpin(words) : 0
    const spinText = worker ? `, spin ${Number.isFinite(spin) ? `${spin.toFixed(2)} µs` : 'none'}` : ''
    return { quiet: loop <= LOOP_LIMIT && spin <= SPIN_LIMIT, text: `loop ${loop.toFixed(2)}×${spinText}` }
  }
  const close = async (): Promise<void> => {
    await worker?.terminate()
  }
  return { probe, close }
}
