/*
 * A program's handlers for events of one source: `device.onEvent`, `system.onChange`.
 */
import { checkFunction } from './error.ts'

type Handler<T> = (event: T) => void

export class Handlers<T> {
  readonly #handlers = new Set<Handler<T>>()

  /** Adds a handler; the returned function removes it. `call`: for errors. Throws RdmaError EINVAL. */
  add(call: string, handler: Handler<T>): () => void {
    checkFunction(call, 'handler', handler)
    // A new function for each call, because the program may add the same handler twice.
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
          // An earlier handler may have removed this one.
          if (this.#handlers.has(handler)) handler(event)
        } catch (error) {
          // An uncaught exception; the remaining handlers still run.
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
