/*
 * Turns for the browser while the page works.
 */

/** Milliseconds of work after which the browser may draw. */
export const TURN = 12

/** Resolves when the browser has had a turn. Browsers slow down the timers of hidden pages, but not messages. */
export const nextTask = (): Promise<void> =>
  new Promise(resolve => {
    const { port1, port2 } = new MessageChannel()
    port1.onmessage = () => {
      port1.close()
      resolve()
    }
    port2.postMessage(undefined)
  })
