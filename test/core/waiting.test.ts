/*
 * Asynchronous handlers of several contexts that end in any order, while other calls run, contexts and descriptors are
 * closed, and the device is removed.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  type Context,
  closeContext,
  closeDescriptor,
  createCore,
  type Device,
  type DriverClass,
  driverClass,
  invoke,
  invokeNow,
  openContext,
  register,
  stat,
  unregister,
} from '../../src/core/index.ts'
import { type AnyHandler, Lifecycle } from '../../src/core/model.ts'
import { ChainErrors } from '../../src/spec/classes/device/interface.ts'
import { Classes } from '../../src/spec/classes.ts'
import { CallError } from '../../src/spec/errno.ts'
import type { AnyValues, ObjectClass } from '../../src/spec/schema/schema.ts'
import { type ChainLink, encodeChain } from '../../src/uapi/object/chain.ts'
import { createRandomSource, type RandomSource } from '../model/random.ts'
import {
  cap,
  channelWithEvent,
  describeDevice,
  openTestDevice,
  testCaller,
  testClasses,
  testDriver,
} from './fixture.ts'

const { interface: Interface, pd: Pd, cq: Cq, mr: Mr, rc_qp: RcQp, comp_channel: Channel } = Classes

/** Lets the test end waiting handlers in any order. */
interface Gate {
  /** Each function ends one handler: with success if `ok`, otherwise with EAGAIN. */
  readonly pending: ((ok: boolean) => void)[]
  /** Whether a handler that starts now waits. */
  shouldWait: boolean
  /** IDs of the objects that the driver's handlers have created and not destroyed. */
  readonly live: Set<number>
}

const waitAtGate = async (gate: Gate): Promise<void> => {
  const ok = await new Promise<boolean>(done => {
    gate.pending.push(done)
  })
  if (!ok) throw new CallError('EAGAIN', 'the test lets this call fail')
}

/** The test driver's classes; handlers of CQs and queue pairs may wait. */
const waitingClasses = (gate: Gate): DriverClass[] => {
  const take = (id: number): void => {
    assert.ok(!gate.live.has(id), 'an object was created twice')
    gate.live.add(id)
  }
  const release = (id: number): void => {
    assert.ok(gate.live.delete(id), 'an object was released twice')
  }
  const create =
    (inner: AnyHandler): AnyHandler =>
    (call, object, args, core) => {
      const make = () => {
        const out = inner(call, object, args, core)
        take(object.id)
        return out
      }
      return gate.shouldWait ? waitAtGate(gate).then(make) : make()
    }
  const destroy =
    (inner: AnyHandler): AnyHandler =>
    (call, object, args, core) => {
      const end = () => {
        release(object.id)
        return inner(call, object, args, core)
      }
      if (call.why !== 'call' || !gate.shouldWait) return end()
      // a failed destroy leaves the object alive; if core removed the object meanwhile, core runs this handler again
      return waitAtGate(gate).then(end)
    }
  const modify: AnyHandler = () => (gate.shouldWait ? waitAtGate(gate).then(() => ({})) : {})
  return testClasses.map(testClass => {
    const { name } = testClass.class
    if (name !== 'cq' && name !== 'rc_qp') return testClass
    const { create: make, destroy: end } = testClass.handlers as Record<string, AnyHandler>
    const cls = testClass.class as typeof RcQp
    const handlers = { create: create(make), destroy: destroy(end), modify }
    return driverClass(cls, handlers as never)
  })
}

const setUp = () => {
  const gate: Gate = { pending: [], shouldWait: false, live: new Set() }
  const core = createCore()
  const device = register(core, describeDevice('test0', testDriver(waitingClasses(gate)))) as Device
  const caller = testCaller()
  const start = BigInt(caller.memory.add(new Uint8Array(64)))
  return { gate, core, device, caller, start, contexts: [] as Context[], running: new Set<Promise<unknown>>() }
}
type Fixture = ReturnType<typeof setUp>

const link = (cls: ObjectClass, methodName: string, args: AnyValues, options: Partial<ChainLink> = {}): ChainLink => ({
  call: { class: cls, methodName, method: cls.methods[methodName], object: 0, args },
  ...options,
})

/** A random call. Its handles are small numbers, which usually exist. */
const anyCall = ({ caller, start }: Fixture, random: RandomSource): [ObjectClass, string, number, AnyValues] => {
  const handle = () => random.int(6)
  const channel = [...caller.fds.keys()].slice(-1)
  const cq = {
    cqe: 1,
    userHandle: 1n,
    compVector: 0,
    ...(random.hits(0.3) && channel.length > 0 && { channel: channel[0] }),
  }
  const chain = [
    link(Pd, 'create', {}),
    link(Cq, 'create', cq),
    link(RcQp, 'create', { cap, userHandle: 0n }, { refs: { pd: 0, sendCq: 1, recvCq: 1 } }),
    ...(random.hits(0.5) ? [link(RcQp, 'modify', {}, { object: 2 })] : []),
    ...(random.hits(0.5) ? [link(Pd, 'destroy', {}, { object: 0 })] : []),
  ]
  const onError = random.pick(Object.values(ChainErrors.values))
  return random.pick<[ObjectClass, string, number, AnyValues]>([
    [Pd, 'create', 0, {}],
    [Cq, 'create', 0, cq],
    [Cq, 'create', 0, cq],
    [Mr, 'create', 0, { pd: handle(), start, length: 64n, iova: start, access: 1 }],
    [RcQp, 'create', 0, { pd: handle(), sendCq: handle(), recvCq: handle(), cap, userHandle: 0n }],
    [RcQp, 'modify', handle(), {}],
    [Pd, 'destroy', handle(), {}],
    [Cq, 'destroy', handle(), {}],
    [RcQp, 'destroy', handle(), {}],
    [Mr, 'destroy', handle(), {}],
    [Channel, 'create', 0, {}],
    [Interface, 'chain', 0, { entries: encodeChain(chain), onError }],
  ])
}

/** Accepts a CallError, and rethrows any other error. */
const refusedOnly = (error: unknown): void => {
  if (!(error instanceof CallError)) throw error
}

const call = (fixture: Fixture, context: Context, random: RandomSource): void => {
  const { gate, caller, running } = fixture
  const [cls, method, object, args] = anyCall(fixture, random)
  gate.shouldWait = random.hits(0.5)
  try {
    const result = invoke(context, cls, method, object, args as never, caller)
    if (result instanceof Promise) {
      const ended: Promise<unknown> = result.catch(refusedOnly).finally(() => running.delete(ended))
      running.add(ended)
    } else for (const { object: number } of result.descriptors ?? []) caller.fds.set(number, number)
  } catch (error) {
    refusedOnly(error)
  }
}

/** Waits until all promise callbacks have run. */
const turn = (): Promise<void> => new Promise(done => setImmediate(done))

const compare = ({ core, gate, device, contexts }: Fixture): void => {
  const objects = contexts.flatMap(({ handles, descriptors }) => [
    ...handles.slots.filter(object => object !== undefined),
    ...descriptors,
  ])
  for (const object of objects) assert.ok(object.uses >= 0, 'the use count is negative')
  if (gate.pending.length > 0) return
  assert.equal(stat(core).waiting, 0)
  for (const object of objects) {
    const needed = objects.reduce((n, { parents }) => n + parents.filter(parent => parent === object).length, 0)
    assert.equal(object.uses, needed, `${object.class.name} ${object.handle}`)
    assert.equal(object.life, Lifecycle.LIVE)
    for (const parent of object.parents)
      assert.notEqual(parent.life, Lifecycle.DESTROYED, 'a live object needs a destroyed object')
  }
  const driverObjects = objects.filter(({ class: { name } }) => name === 'cq' || name === 'rc_qp')
  assert.deepEqual([...gate.live].sort(), driverObjects.map(({ id }) => id).sort())
  assert.equal(
    Object.values(device.counts).reduce((sum, n) => sum + n, 0),
    objects.length,
  )
}

const run = async (seeds: readonly number[]): Promise<void> => {
  const fixture = setUp()
  const { core, device, gate, contexts, caller, running } = fixture
  for (const seed of seeds) {
    const random = createRandomSource(seed)
    const action = random.int(20)
    if (contexts.length === 0 || (action === 0 && contexts.length < 3))
      contexts.push(openContext(device, { isOpened: true }))
    const context = random.pick(contexts)
    if (action === 1) {
      closeContext(context)
      contexts.splice(contexts.indexOf(context), 1)
    } else if (action === 2 && caller.fds.size > 0) {
      const fd = random.pick([...caller.fds.keys()])
      caller.fds.delete(fd)
      closeDescriptor(core, fd)
    } else if (action < 9 && gate.pending.length > 0) {
      const [end] = gate.pending.splice(random.int(gate.pending.length), 1)
      // whether the handlers of a chain's next entries wait
      gate.shouldWait = random.hits(0.5)
      end(random.hits(0.7))
    } else call(fixture, context, random)
    await turn()
    compare(fixture)
  }
  gate.shouldWait = false
  if (seeds.length % 2 === 0) unregister(device)
  else for (const context of contexts) closeContext(context)
  while (gate.pending.length > 0) {
    gate.pending.shift()!(seeds.length % 3 > 0)
    await turn()
  }
  await Promise.all(running)
  const { objects, descriptors, waiting, faults } = stat(core)
  assert.deepEqual([objects, descriptors, waiting, faults, gate.live.size, device.memory.liveKeys], [0, 0, 0, 0, 0, 0])
}

test('asynchronous calls in any order leave a consistent state', async () => {
  const steps = fc.array(fc.nat(0x7fff_ffff), { minLength: 1, maxLength: 120, size: 'max' })
  await fc.assert(fc.asyncProperty(steps, run), { numRuns: 150 })
})

test('invokeNow refuses an asynchronous method, and the end of the call has no effect', async () => {
  const waiting = driverClass(Pd, { create: async () => Promise.reject(new CallError('EAGAIN', 'too late')) })
  const classes = testClasses.map(cls => (cls.class === Pd ? waiting : cls))
  const context = openContext(register(createCore(), describeDevice('test0', testDriver(classes))), { isOpened: true })
  assert.throws(
    () => invokeNow(context, Pd, 'create', 0, {}, testCaller()),
    /^Error: pd\.create is asynchronous: use invoke$/,
  )
  // an unhandled rejection would fail the test
  await new Promise(setImmediate)
  assert.equal(context.device.counts.pd, 0)
})

test('an event that an asynchronous handler takes is put back if invokeNow refuses the call', async () => {
  const slowChannel = driverClass(Channel, {
    getEvent: async (call, object, args, core) => core(call, object, args),
  })
  const classes = testClasses.map(cls => (cls.class === Channel ? slowChannel : cls))
  const setup = openTestDevice({}, testDriver(classes))
  const { context, caller } = setup
  const { channel } = channelWithEvent(setup)
  assert.throws(() => invokeNow(context, Channel, 'getEvent', channel.handle, {}, caller), /use invoke$/)
  await turn()
  assert.equal(channel.sink.unread(), 1)
})
