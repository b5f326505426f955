/*
 * When a worker thread ends, Node frees registered buffers, but leaves the descriptors of native calls open. So
 * sessions with daemons and UDP ports are closed before, at the thread's exit event.
 */

const openInThread = new Set<() => void>()
let isMainThread: boolean | undefined

/** Calls `close` when a worker thread ends, except by `worker.terminate()`. */
export const closeAtThreadEnd = (close: () => void): void => {
  if (isMainThread === undefined) {
    isMainThread = process.getBuiltinModule('node:worker_threads').isMainThread
    if (!isMainThread)
      process.on('exit', () => {
        for (const closeOne of openInThread) closeOne()
      })
  }
  if (!isMainThread) openInThread.add(close)
}

/** Undoes `closeAtThreadEnd`. */
export const forgetThreadEnd = (close: () => void): void => {
  openInThread.delete(close)
}
