/*
 * Events of connections and devices for listeners, as a DOM EventTarget has them.
 */

import { checkOptions, type KnownOptions } from './arguments/options.ts'
import { checkFunction, checkText } from './error.ts'
import { checkSignal } from './mailbox.ts'

/** Options of `addEventListener`. */
export interface ListenerOptions {
  /** Calls the listener at most once; default false. */
  readonly once?: boolean | undefined
  /** Removes the listener when it is aborted. */
  readonly signal?: AbortSignal | undefined
}
const listenerOptionNames: KnownOptions<ListenerOptions> = { once: 'flag', signal: true }

/** Objects with listeners. `M`: the events by type. */
export interface Listenable<M> {
  /** Calls `listener` with each event of this type. Throws RdmaError EINVAL. */
  addEventListener<T extends keyof M & string>(
    type: T,
    listener: (event: M[T]) => void,
    options?: ListenerOptions,
  ): void
  /** Removes a listener. */
  removeEventListener<T extends keyof M & string>(type: T, listener: (event: M[T]) => void): void
}

const checkListener = (call: string, type: unknown, listener: unknown): void => {
  checkText(call, 'type', type)
  checkFunction(call, 'listener', listener)
}

/** An EventTarget that is created with the first listener, because most objects have none. */
export class LazyEventTarget {
  #target: EventTarget | undefined
  readonly #owner: string
  readonly #onFirst: () => void

  /** `owner`: the name of the object in errors; `onFirst`: called when the first listener was added. */
  constructor(owner: string, onFirst: () => void) {
    this.#owner = owner
    this.#onFirst = onFirst
  }

  readonly addEventListener = (type: string, listener: (event: never) => void, options: ListenerOptions = {}): void => {
    const call = `${this.#owner}.addEventListener`
    checkListener(call, type, listener)
    checkOptions(call, 'options', options, listenerOptionNames)
    checkSignal(call, options)
    const { once = false, signal } = options
    const isFirst = this.#target === undefined
    this.#target ??= new EventTarget()
    this.#target.addEventListener(type, listener as (event: Event) => void, { once, ...(signal && { signal }) })
    if (isFirst) this.#onFirst()
  }

  readonly removeEventListener = (type: string, listener: (event: never) => void): void => {
    checkListener(`${this.#owner}.removeEventListener`, type, listener)
    this.#target?.removeEventListener(type, listener as (event: Event) => void)
  }

  /** Calls the listeners of the type with an event that has the properties of `details`. */
  dispatch(type: string, details: object): void {
    this.#target?.dispatchEvent(Object.assign(new Event(type), details))
  }
}
