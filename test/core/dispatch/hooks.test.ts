/*
 * Hooks that refuse, fail or observe calls (R24).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  addHook,
  type Context,
  closeContext,
  type Hook,
  invokeNow,
  openContext,
  stat,
} from '../../../src/core/index.ts'
import { createCtxDevice } from '../../../src/drivers/ctx/device.ts'
import { createNullDevice, Sink } from '../../../src/drivers/null/device.ts'
import { ChainErrors } from '../../../src/spec/classes/device/interface.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { CallError, Errno } from '../../../src/spec/errno.ts'
import { encodeChain } from '../../../src/uapi/object/chain.ts'
import { errnoOf, openTestDevice, testCaller } from '../fixture.ts'

const { pd: Pd, cq: Cq, rc_qp: RcQp, interface: Interface } = Classes
const cq = { cqe: 10, userHandle: 1n, compVector: 0 }

/** Limits each context to `max` objects of a class. */
const quota = (className: string, max: number): Hook => ({
  class: className,
  method: 'create',
  pre({ context }) {
    const live = context.handles.slots.filter(object => object?.class.name === className).length
    // `live` includes the new object
    if (live > max) throw new CallError('ENOMEM', `${className}: this context may have ${max}`)
  },
})

test('pre-hooks can limit the objects of each context, and deny a class to one context', () => {
  const { device, context, caller } = openTestDevice()
  const otherContext = openContext(device, { isOpened: true })
  addHook(device, quota('pd', 2))
  addHook(device, {
    class: 'cq',
    pre(call) {
      if (call.context === otherContext) throw new CallError('EPERM', 'no completion queues for this context')
    },
  })
  const create = (target: Context) => errnoOf(() => invokeNow(target, Pd, 'create', 0, {}, caller))
  assert.deepEqual([create(context), create(context), create(context)], ['ok', 'ok', 'ENOMEM'])
  invokeNow(context, Pd, 'destroy', 0, {}, caller)
  assert.deepEqual([create(context), create(context), create(otherContext)], ['ok', 'ENOMEM', 'ok'])
  assert.equal(
    errnoOf(() => invokeNow(otherContext, Cq, 'create', 0, cq, caller)),
    'EPERM',
  )
  assert.equal(
    errnoOf(() => invokeNow(context, Cq, 'create', 0, cq, caller)),
    'ok',
  )
})

test('a pre-hook can refuse an entry of a chain', () => {
  const { core, device, context, caller } = openTestDevice()
  addHook(device, quota('pd', 2))
  const call = { class: Pd, methodName: 'create', method: Pd.methods.create, object: 0, args: {} }
  const entries = encodeChain([{ call }, { call }, { call }])
  for (const [onError, remaining] of [
    [ChainErrors.values.UNDO, 0],
    [ChainErrors.values.STOP, 2],
  ]) {
    const { out } = invokeNow(context, Interface, 'chain', 0, { entries, onError }, caller)
    assert.deepEqual([out.done, out.error, stat(core).objects], [2, Errno.ENOMEM, remaining])
  }
})

test('a call that a pre-hook refuses leaves nothing', () => {
  fc.assert(
    fc.property(fc.infiniteStream(fc.boolean()), faults => {
      const { core, device, context, caller, log } = openTestDevice()
      let injected = 0
      addHook(device, {
        pre() {
          if (!faults.next().value) return
          injected++
          throw new CallError('EIO', 'injected')
        },
      })
      let refused = 0
      const attempt = (call: () => { object?: number }): number => {
        for (;;)
          try {
            return call().object ?? 0
          } catch (error) {
            if ((error as CallError).code !== 'EIO') throw error
            refused++
          }
      }
      const cap = { maxSendWr: 1, maxRecvWr: 1, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 }
      const pd = attempt(() => invokeNow(context, Pd, 'create', 0, {}, caller))
      const queue = attempt(() => invokeNow(context, Cq, 'create', 0, cq, caller))
      const args = { pd, sendCq: queue, recvCq: queue, cap, userHandle: 0n }
      const qp = attempt(() => invokeNow(context, RcQp, 'create', 0, args, caller))
      assert.deepEqual([pd, queue, qp], [0, 1, 2], 'refused calls keep no handle')
      attempt(() => invokeNow(context, RcQp, 'destroy', qp, {}, caller))
      assert.equal(refused, injected)
      closeContext(context)
      assert.deepEqual([stat(core).objects, core.faults], [0, 0])
      assert.deepEqual(log, ['call rc_qp 2', 'close cq 1'], 'objects that the driver destroyed, and why')
    }),
    { numRuns: 50 },
  )
})

test('hooks see calls of private classes and creates of driver_ops', () => {
  const { core, caller } = openTestDevice()
  const seen: string[] = []
  const watch: Hook = { post: ({ entry }) => seen.push(`${entry.class.name}.${entry.name}`) }
  const sinks = openContext(createNullDevice(core, 'null0'), { isOpened: true })
  const contexts = openContext(createCtxDevice(core, 'ctx0'), { isOpened: true })
  addHook(sinks.device, watch)
  addHook(contexts.device, watch)
  const pd = invokeNow(sinks, Pd, 'create', 0, {}, caller).object as number
  const sink = invokeNow(sinks, Sink, 'create', 0, { pd }, caller).object as number
  invokeNow(sinks, Sink, 'take', sink, { data: new Uint8Array(1) }, caller)
  invokeNow(contexts, Classes.driver_ops, 'create', 0, {}, caller)
  assert.deepEqual(seen, ['pd.create', 'sink.create', 'sink.take', 'driver_ops.create'])
})

test('a destroy by core itself ignores refusals by pre-hooks, but reports their other exceptions', () => {
  const { core, device, context, caller } = openTestDevice()
  invokeNow(context, Pd, 'create', 0, {}, caller)
  const bug = new Error('a bug')
  for (const error of [new CallError('EPERM', 'not allowed'), bug])
    addHook(device, {
      pre() {
        throw error
      },
    })
  const reported: unknown[] = []
  Object.assign(core, { report: (error: unknown) => reported.push(error) })
  closeContext(context)
  assert.deepEqual(reported, [bug])
})

test("a post-hook cannot change a call's result", () => {
  const { core, device, context, caller } = openTestDevice()
  addHook(device, {
    post() {
      throw new CallError('EIO', 'too late')
    },
  })
  assert.equal(invokeNow(context, Pd, 'create', 0, {}, caller).object, 0)
  assert.deepEqual([stat(core).objects, core.faults], [1, 1])
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'destroy', 4, {}, testCaller())),
    'ENOENT',
  )
})

test('a post-hook sees every call once, even a call with a wrong argument or handle', () => {
  const { device, context, caller } = openTestDevice()
  const preCalls: string[] = []
  const postCalls: unknown[] = []
  const removeHook = addHook(device, {
    pre: ({ entry }) => void preCalls.push(`${entry.class.name}.${entry.name}`),
    post({ entry, why, context: callContext, caller: callCaller }, object, args, _out, error) {
      assert.deepEqual([why, callContext, callCaller], ['call', context, caller])
      postCalls.push([
        `${entry.class.name}.${entry.name}`,
        object?.handle,
        args,
        (error as CallError | undefined)?.code,
      ])
    },
  })
  const attempts: [() => unknown, string][] = [
    [() => invokeNow(context, Cq, 'create', 0, { cqe: 10 } as never, caller), 'EINVAL'],
    [() => invokeNow(context, Cq, 'create', 0, { ...cq, cqe: 'ten' } as never, caller), 'EINVAL'],
    [() => invokeNow(context, Cq, 'create', 0, { ...cq, channel: 9 }, caller), 'EBADF'],
    [() => invokeNow(context, Cq, 'create', 0, cq, caller), 'ok'],
    [() => invokeNow(context, Pd, 'destroy', 0, {}, caller), 'EINVAL'],
    [() => invokeNow(context, Pd, 'destroy', 7, {}, caller), 'ENOENT'],
  ]
  for (const [attempt, code] of attempts) assert.equal(errnoOf(attempt), code)
  assert.deepEqual(preCalls, ['cq.create'])
  assert.deepEqual(postCalls, [
    ['cq.create', undefined, { cqe: 10 }, 'EINVAL'],
    ['cq.create', undefined, { ...cq, cqe: 'ten' }, 'EINVAL'],
    ['cq.create', undefined, { ...cq, channel: 9 }, 'EBADF'],
    ['cq.create', 0, cq, undefined],
    ['pd.destroy', undefined, {}, 'EINVAL'],
    ['pd.destroy', undefined, {}, 'ENOENT'],
  ])
  removeHook()
  assert.equal(errnoOf(attempts[0][0]), 'EINVAL')
  assert.equal(postCalls.length, 6)
})

test('a post-hook gets the busy object of a refused destroy', () => {
  const { device, context, caller } = openTestDevice()
  const pd = invokeNow(context, Pd, 'create', 0, {}, caller).object ?? -1
  const queue = invokeNow(context, Cq, 'create', 0, cq, caller).object ?? -1
  const cap = { maxSendWr: 1, maxRecvWr: 1, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 }
  invokeNow(context, RcQp, 'create', 0, { pd, sendCq: queue, recvCq: queue, cap, userHandle: 0n }, caller)
  const seen: unknown[] = []
  addHook(device, { class: 'pd', post: (_call, object, _args, _out, error) => void seen.push(object?.handle, error) })
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'destroy', pd, {}, caller)),
    'EBUSY',
  )
  assert.equal(seen[0], pd)
  assert.equal((seen[1] as CallError).code, 'EBUSY')
})

test('a post-hook sees a chain entry with a wrong handle', () => {
  const { device, context, caller } = openTestDevice()
  const seen: string[] = []
  addHook(device, { class: 'pd', post: (_call, object, _args, _out, error) => void seen.push(`${object} ${error}`) })
  const call = { class: Pd, methodName: 'destroy', method: Pd.methods.destroy, object: 7, args: {} }
  const chain = { entries: encodeChain([{ call }]), onError: ChainErrors.values.STOP }
  invokeNow(context, Interface, 'chain', 0, chain, caller)
  assert.deepEqual(seen, ['undefined CallError: pd.destroy: there is no object with handle 7'])
})
