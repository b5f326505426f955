/*
 * Says which steps run, and for how long: a line on standard error after FIRST, and each INTERVAL. A thread says it,
 * since steps block the event loop. Steps that take less time are not told.
 */
import { once } from 'node:events'
import { writeSync } from 'node:fs'
import { isMainThread, parentPort, Worker } from 'node:worker_threads'

/** Milliseconds from the first step to the first line, and from one line to the next. */
const FIRST = 1500
const INTERVAL = 10_000

let thread
let count = 0

/** Resolves when it runs: it cannot begin while the main thread is blocked. */
const startThread = async () => {
  const worker = new Worker(new URL(import.meta.url))
  await once(worker, 'message')
  worker.unref()
  return worker
}

/** Runs `make` as a step of this name; has its result. `make` gets a function that changes the name. */
export const step = async (text, make) => {
  thread ??= startThread()
  const worker = await thread
  const id = count++
  const tell = name => worker.postMessage({ id, text: name })
  tell(text)
  try {
    return await make(tell)
  } finally {
    tell(undefined)
  }
}

if (!isMainThread) {
  const steps = new Map()
  let next = performance.now() + FIRST
  parentPort.on('message', ({ id, text }) => {
    if (text === undefined) steps.delete(id)
    else steps.set(id, { start: performance.now(), ...steps.get(id), text })
  })
  setInterval(() => {
    const now = performance.now()
    if (steps.size === 0 || now < next) return
    next = now + INTERVAL
    const texts = [...steps.values()].map(({ text, start }) => `${text}, ${Math.round((now - start) / 1000)} s`)
    // Without process.stderr, whose output in a thread waits for the main thread.
    writeSync(2, `userdma: ${texts.join('; ')}\n`)
  }, 100)
  parentPort.postMessage('runs')
}
