/*
 * Events and messages that a call takes for its answer must be put back if the answer cannot be written to the caller's
 * memory.
 */
import type { CallContext } from './model.ts'

/** `putBack` is called if the call's answer cannot be delivered; several are called in reverse order. */
export const onUndelivered = (call: CallContext, putBack: () => void): void => {
  const previous = call.undelivered
  call.undelivered =
    previous === undefined
      ? putBack
      : () => {
          putBack()
          previous()
        }
}
