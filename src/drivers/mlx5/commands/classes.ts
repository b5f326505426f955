/*
 * The classes of firmware commands (spec/drivers/mlx5-devx.ts).
 */
import { answered, driverClass } from '../../../core/devices/driver.ts'
import { findObject } from '../../../core/dispatch/invoke.ts'
import { destroyOwned } from '../../../core/dispatch/owned.ts'
import type { DriverClass } from '../../../core/driver-contract.ts'
import type { CallContext, CoreObject } from '../../../core/model.ts'
import { findHandle } from '../../../core/objects/handles.ts'
import { Devx, DevxObj } from '../../../spec/drivers/mlx5-devx.ts'
import type { CommandMethod } from '../../../spec/drivers/mlx5-firmware/commands.ts'
import { callError } from '../../../spec/errno.ts'
import { the } from '../../../spec/reason.ts'
import { asyncAnswersClass, postAnswer, reserveAnswer } from './async-answers.ts'
import { eventChannelClass, subscribeTo } from './events/channels.ts'
import { type Executed, execute } from './execute.ts'
import type { DevxObject, Subject } from './handler.ts'
import { type Identity, identityOf } from './identity.ts'
import { eqnOf } from './lookup.ts'
import { umemClass } from './umem.ts'

/** The object of a modify or query: of a command, or of verbs. Throws CallError as `findObject`. */
const aboutHandle = (
  call: CallContext,
  handle: number,
): { readonly identity: Identity | undefined; readonly subject: Subject } => {
  const name = findHandle(call.context.handles, handle)?.class.name ?? 'devx_obj'
  const object = findObject(call.context, name, handle, call.entry)
  if (name !== 'devx_obj') return { identity: identityOf(object), subject: { object, own: undefined } }
  const { target = object, own, command, number } = (object as CoreObject<DevxObject>).state
  return { identity: { command, number }, subject: { object: target, own } }
}

interface ObjectArguments {
  readonly handle: number
  readonly input: Uint8Array
  readonly outBytes: number
}

const executeAbout = (
  call: CallContext,
  method: CommandMethod,
  object: CoreObject,
  { handle, input, outBytes }: ObjectArguments,
) => answered(execute(call, method, object, input, outBytes, aboutHandle(call, handle)), ({ output }) => ({ output }))

const devxClass = driverClass(Devx, {
  command: (call, object, { input, outBytes }) =>
    answered(execute(call, 'general', object, input, outBytes), ({ output }) => ({ output })),
  modify: (call, object, args) => executeAbout(call, 'modify', object, args),
  query: (call, object, args) => executeAbout(call, 'query', object, args),
  queryAsync(call, object, { handle, input, channel, outputBytes, wrId }) {
    const outBytes = reserveAnswer(channel, outputBytes)
    const post = (executed: Executed): Record<never, never> => {
      postAnswer(channel, wrId, { executed })
      return {}
    }
    const postRefusal = (error: unknown): Record<never, never> => {
      postAnswer(channel, wrId, { error })
      return {}
    }
    try {
      const result = answered(execute(call, 'query', object, input, outBytes, aboutHandle(call, handle)), post)
      return result instanceof Promise ? result.catch(postRefusal) : result
    } catch (error) {
      return postRefusal(error)
    }
  },
  queryUar(_call, _object, { index }) {
    throw callError.EINVAL`${the.method('devx.queryUar')}: index ${index}: the context has no pages from its beginning; allocate one`
  },
  subscribe(call, _object, { handle, ...args }) {
    subscribeTo(call, handle === undefined ? undefined : findObject(call.context, 'devx_obj', handle, call.entry), args)
    return {}
  },
  queryEqn({ device: { numCompVectors } }, _object, { vector }) {
    if (vector >= numCompVectors)
      throw callError.ENOENT`${the.method('devx.queryEqn')}: vector ${vector}: the device has ${numCompVectors}, from 0`
    return { eqn: eqnOf(vector) }
  },
})

const devxObjClass = driverClass<typeof DevxObj, DevxObject>(DevxObj, {
  create: (call, object, { input, outBytes }) =>
    answered(execute(call, 'create', object, input, outBytes), ({ output, command, number, made }) => {
      object.state = { command, number, target: made?.target, own: made?.own, end: made?.end }
      return { output }
    }),
  destroy(call, object) {
    const { target, end } = object.state
    const finish = (): Record<never, never> => {
      end?.(call)
      return {}
    }
    if (target === undefined) return finish()
    const destroying = destroyOwned(call, object, target)
    return destroying === undefined ? finish() : destroying.then(finish)
  },
})

export const commandClasses: readonly DriverClass[] = [
  devxClass,
  devxObjClass,
  umemClass,
  asyncAnswersClass,
  eventChannelClass,
]
