/*
 * Events and messages that a call takes for its answer, and must put back if the answer cannot be written to the
 * caller's memory (as on Linux, where a read removes them only after the copy).
 */
import type { CallContext } from './model.ts'

/** `putBack` is called if the call's answer is not delivered; if there are several, in reverse order. */
export const onUndelivered = (call: CallContext, putBack: () => void): void => {
  const before = call.undelivered
  call.undelivered =
    before === undefined
      ? putBack
      : () => {
          putBack()
          before()
        }
}
