/*
 * If a call's answer cannot be written to the caller's memory, the events and messages that the call took must be put
 * back.
 */
import type { CallContext } from './model.ts'

/** Calls `putBack` if the call's answer cannot be delivered; the last registered first. */
export const onUndelivered = (call: CallContext, putBack: () => void): void => {
  const previous = call.putBack
  call.putBack =
    previous === undefined
      ? putBack
      : () => {
          putBack()
          previous()
        }
}
