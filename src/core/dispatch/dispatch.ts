/*
 * From bytes to answer (docs/decisions/one-way-in.md): a dialect decodes a call, core runs it, the dialect writes the
 * answer.
 *
 * Core knows no byte format: a dialect is a function, and a tracer wraps it. If an answer cannot be delivered (EFAULT),
 * the call is undone, as on Linux: created objects are destroyed, since the caller could not name them, and taken
 * events are put back. Refusals become answers; an exception of a handler that is not a CallError is our own mistake
 * and stays an exception.
 */
import { CallError } from '../../spec/errno.ts'
import { type Answer, type CallerView, type Decoded, isAnswer, type Result } from '../../uapi/call.ts'
import { creates } from '../../uapi/object/format.ts'
import type { Caller, Context, Entry } from '../model.ts'
import { findHandle } from '../objects/handles.ts'
import { undoObjects } from '../objects/lifetime.ts'
import { execute, methodOf } from './invoke.ts'

/** A byte format of calls (`decodeWrite`, …); `M` is what its carrier passes for one call. */
export type Dialect<M extends readonly unknown[]> = (view: CallerView, ...message: M) => Decoded | Answer

/** A context and one of its callers, for codecs; one record for all calls. */
export const callerView = (context: Context, caller: Caller): CallerView => {
  let view = context.views.get(caller)
  if (view === undefined) {
    view = {
      schema: context.device.schema,
      copyIn: (address, length) => caller.copyIn(address, length),
      copyOut: (address, bytes) => caller.copyOut(address, bytes),
      classOf: handle => findHandle(context.handles, handle)?.class,
      get hasContext() {
        return context.opened
      },
    }
    context.views.set(caller, view)
  }
  return view
}

const refusal = (error: unknown): CallError => {
  if (error instanceof CallError) return error
  throw error
}

/** The answer was not delivered: destroys what the call created and puts back what it took, newest first. */
const undo = (context: Context, entry: Entry, { object, also = [], descriptors = [], undelivered }: Result): void => {
  const { core } = context.device
  const handles = object === undefined ? also : [...also, object]
  const fds = descriptors.map(({ object: number }) => core.descriptors.get(number))
  undoObjects(context, [...handles.map(handle => findHandle(context.handles, handle)), ...fds])
  if (entry.kind === 'open') context.opened = false
  undelivered?.()
}

/**
 * Runs one message. `descriptor` is the number of the fd object on whose descriptor the call was made, if any. Returns
 * a promise only if a handler waits.
 */
export const dispatch = <M extends readonly unknown[]>(
  context: Context,
  dialect: Dialect<M>,
  message: M,
  caller: Caller,
  descriptor?: number,
): Answer | Promise<Answer> => {
  if (!context.device.alive || context.closed) {
    const { errno, message: reason } = new CallError('EIO', `the context or its device ${context.device.name} is gone`)
    return { ret: -errno, installs: [], reason }
  }
  const decoded = dialect(callerView(context, caller), ...message)
  if (isAnswer(decoded)) return decoded
  const { call } = decoded
  let entry: Entry
  let result: Result | Promise<Result>
  try {
    entry = methodOf(context, call.class, call.method.call, call.methodName)
    if (descriptor !== undefined && (call.object !== 0 || creates(call.method) || call.class.identity !== 'fd'))
      throw new CallError(
        'EINVAL',
        `${call.class.name}.${call.methodName}: on a descriptor its own methods are called, and object is 0`,
      )
    result = execute(context, entry, descriptor ?? call.object, call.args, caller)
  } catch (error) {
    return decoded.answer(refusal(error))
  }
  const succeed = (done: Result): Answer => {
    const answer = decoded.answer(done)
    if (answer.ret < 0) undo(context, entry, done)
    return answer
  }
  if (result instanceof Promise) return result.then(succeed, error => decoded.answer(refusal(error)))
  return succeed(result)
}
