/*
 * Progress of packages. The tools that make them block the event loop, so a thread says which package is made, and for
 * how long: each second on a terminal, every 10 s elsewhere.
 */
import { once } from 'node:events'
import { isMainThread, parentPort, Worker } from 'node:worker_threads'
import { progressLine } from '../common.mjs'

/** Runs `make` while the thread says `text`; has its result. */
export const withProgress = async (text, make) => {
  const thread = new Worker(new URL(import.meta.url))
  thread.postMessage(text)
  try {
    return await make()
  } finally {
    thread.postMessage(undefined)
    await once(thread, 'exit')
  }
}

if (!isMainThread) {
  const [text] = await once(parentPort, 'message')
  const start = performance.now()
  const progress = progressLine()
  const show = () => progress.show(`${text}, ${Math.round((performance.now() - start) / 1000)} s`)
  show()
  const timer = setInterval(show, 1000)
  await once(parentPort, 'message')
  clearInterval(timer)
  progress.end()
  parentPort.close()
}
