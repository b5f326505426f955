/*
 * The handlers that a program has added for the events of one source: `device.onEvent`, `system.onChange`.
 */
import { checkFunction } from './error.ts'

type Handler<T> = (event: T) => void

export class Handlers<T> {
  readonly #handlers = new Set<Handler<T>>()

  /** Adds a handler; the returned function removes it. `call`: for errors. Throws RdmaError EINVAL. */
  add(call: string, handler: Handler<T>): () => void {
    checkFunction(call, 'handler', handler)
    // A function of its own, because the program may add the same handler twice.
    const wrapper: Handler<T> = event => handler(event)
    this.#handlers.add(wrapper)
    return () => {
      this.#handlers.delete(wrapper)
    }
  }

  /** Calls the handlers in a microtask, because the device is in the middle of its work. */
  notify(event: T): void {
    queueMicrotask(() => {
      for (const handler of [...this.#handlers])
        try {
          // An earlier handler may have removed it.
          if (this.#handlers.has(handler)) handler(event)
        } catch (error) {
          // Thrown in a microtask of its own, so that it is an uncaught exception, and the other handlers still run.
          queueMicrotask(() => {
            throw error
          })
        }
    })
  }

  clear(): void {
    this.#handlers.clear()
  }
}
