/*
 * Runs an encoded call (docs/decisions/one-way-in.md): a dialect decodes the call, core runs it, the dialect encodes
 * the answer.
 *
 * If an answer cannot be delivered (EFAULT, ENOSPC), the call is undone, as on Linux: created objects are destroyed,
 * and events that the call took are put back. If the caller cannot get the new descriptors (EMFILE), the carrier undoes
 * the call (`Answer.undo`). A CallError of a handler becomes an answer. Any other exception is a bug and is rethrown.
 */
import { CallError, callError, gone } from '../../spec/errno.ts'
import { the } from '../../spec/reason.ts'
import { type Answer, type CallerView, type Decoded, isAnswer, type Result } from '../../uapi/call.ts'
import { creates } from '../../uapi/object/format.ts'
import type { Caller, Context, Entry } from '../model.ts'
import { findHandle } from '../objects/handles.ts'
import { execute, methodOf } from './invoke.ts'
import { undoResult } from './undo.ts'

/** The decoder of a byte format of calls, for example `decodeWrite`. `M`: the parameters for one call. */
export type Dialect<M extends readonly unknown[]> = (view: CallerView, ...message: M) => Decoded | Answer

/** The codecs' view of a context and one of its callers; one record for all calls. */
export const callerView = (context: Context, caller: Caller): CallerView => {
  let view = context.views.get(caller)
  if (view === undefined) {
    view = {
      schema: context.device.schema,
      copyIn: (address, length) => caller.copyIn(address, length),
      copyOut: (address, bytes) => caller.copyOut(address, bytes),
      classOf: handle => {
        const object = findHandle(context.handles, handle)
        return object === undefined || context.owned?.has(object) === true ? undefined : object.class
      },
      get hasContext() {
        return context.isOpened
      },
    }
    context.views.set(caller, view)
  }
  return view
}

/** What a call that is refused without a look at it was, for messages. */
const attemptOf = (decoded: Decoded | Answer): { readonly attempt?: string } => {
  if (!isAnswer(decoded)) return { attempt: `${decoded.call.class.name}.${decoded.call.methodName}` }
  return decoded.attempt === undefined ? {} : { attempt: decoded.attempt }
}

/** Returns a CallError; rethrows any other error. */
const refusal = (error: unknown): CallError => {
  if (error instanceof CallError) return error
  throw error
}

const undo = (context: Context, entry: Entry, result: Result): void => {
  undoResult(context, result)
  if (entry.kind === 'open') context.isOpened = false
}

/**
 * Runs one message. `descriptor`: number of the fd object, for a call on a descriptor. Returns a promise only if the
 * handler is asynchronous, or an event sink must prepare for the call (`EventSink.prepareWithdraw`).
 */
export const dispatch = <M extends readonly unknown[]>(
  context: Context,
  dialect: Dialect<M>,
  message: M,
  caller: Caller,
  descriptor?: number,
): Answer | Promise<Answer> => {
  if (!context.device.isAlive || context.isClosed) {
    const { errno, reason } = gone`the context was closed, or device ${context.device.name} removed`
    return { ret: -errno, installs: [], reason, ...attemptOf(dialect(callerView(context, caller), ...message)) }
  }
  const decoded = dialect(callerView(context, caller), ...message)
  if (isAnswer(decoded)) return decoded
  const { call } = decoded
  let entry: Entry
  let result: Result | Promise<Result>
  try {
    entry = methodOf(context, call.class, call.method.call, call.methodName)
    if (descriptor !== undefined && (call.object !== 0 || creates(call.method) || call.class.identity !== 'fd'))
      throw callError.EINVAL`${the.method(`${call.class.name}.${call.methodName}`)}: a call on a descriptor must be a method of its class, with object 0`
    result = execute(context, entry, descriptor ?? call.object, call.args, caller)
  } catch (error) {
    return decoded.answer(refusal(error))
  }
  const answerWith = (success: Result): Answer => {
    const answer = decoded.answer(success)
    if (answer.ret < 0) undo(context, entry, success)
    if (answer.installs.length === 0 && context.mapped?.isAdopting !== true) return answer
    return { ...answer, undo: () => undo(context, entry, success) }
  }
  if (result instanceof Promise) return result.then(answerWith, error => decoded.answer(refusal(error)))
  return answerWith(result)
}
