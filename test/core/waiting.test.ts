/*
 * Asynchronous handlers of several contexts that end in any order, while other calls run, contexts and descriptors are
 * closed, and devices are removed. Closes, removals and the rest of long chains (`interface.chain`)
 * are jobs, which run some steps at a time.
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
import { type AnyHandler, type CoreObject, Lifecycle } from '../../src/core/model.ts'
import { objectBytes } from '../../src/core/objects/object-bytes.ts'
import { ChainErrors } from '../../src/spec/classes/device/interface.ts'
import { QpAddress } from '../../src/spec/classes/qp/qp.ts'
import { Classes } from '../../src/spec/classes.ts'
import { QpState } from '../../src/spec/enums.ts'
import { CallError } from '../../src/spec/errno.ts'
import { type AnyValues, type ObjectClass, zeroRecord } from '../../src/spec/schema/schema.ts'
import { type ChainLink, encodeChain } from '../../src/uapi/object/chain.ts'
import { createRandomSource, type RandomSource } from '../random/model/random.ts'
import { ownAccount } from './accounts.ts'
import {
  cap,
  channelWithEvent,
  describeDevice,
  openTestDevice,
  testCaller,
  testClasses,
  testDriver,
} from './fixture.ts'

const { interface: Interface, pd: Pd, ah: Ah, cq: Cq, mr: Mr, rc_qp: RcQp, comp_channel: Channel } = Classes
const { INIT } = QpState.values

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

/** Classes whose handlers may wait. */
const WAITING_CLASSES = new Set(['pd', 'ah', 'cq', 'rc_qp'])
const mayWait = (object: CoreObject): boolean => WAITING_CLASSES.has(object.class.name)

const coreDestroy: AnyHandler = (call, object, args, core) => core(call, object, args, core)

/** The test driver's classes; handlers of WAITING_CLASSES may wait. */
const waitingClasses = (gate: Gate): DriverClass[] => {
  const release = ({ id, life, parents }: CoreObject): void => {
    assert.ok(gate.live.delete(id), 'an object was released twice')
    // while the create or destroy of an object waits, core may remove the object, and its parents, without a call of
    // the driver
    if (life === Lifecycle.DESTROYED) return
    for (const parent of parents.filter(mayWait))
      assert.ok(gate.live.has(parent.id), 'an object was destroyed before an object that depends on it')
  }
  const create =
    (inner: AnyHandler): AnyHandler =>
    (call, object, args, core) => {
      const make = () => {
        const out = inner(call, object, args, core)
        assert.ok(!gate.live.has(object.id), 'an object was created twice')
        gate.live.add(object.id)
        return out
      }
      return gate.shouldWait ? waitAtGate(gate).then(make) : make()
    }
  const destroy =
    (inner: AnyHandler): AnyHandler =>
    (call, object, args, core) => {
      const end = () => {
        release(object)
        return inner(call, object, args, core)
      }
      if (call.why !== 'call' || !gate.shouldWait) return end()
      // a failed destroy leaves the object alive; if core removed the object meanwhile, core runs this handler again
      return waitAtGate(gate).then(end)
    }
  const modify: AnyHandler = () => (gate.shouldWait ? waitAtGate(gate).then(() => ({})) : {})
  return testClasses.map(testClass => {
    const { name } = testClass.class
    if (!WAITING_CLASSES.has(name)) return testClass
    const own = testClass.handlers as Record<string, AnyHandler | undefined>
    const handlers = {
      create: create(own.create ?? (() => ({}))),
      destroy: destroy(own.destroy ?? coreDestroy),
      ...(testClass.class.methods.modify && { modify }),
    }
    return driverClass(testClass.class as typeof RcQp, handlers as never)
  })
}

const setUp = () => {
  const gate: Gate = { pending: [], shouldWait: false, live: new Set() }
  /** Closes and removals, and the rest of chains. */
  const jobs: Iterator<unknown>[] = []
  /** What core reports: errors that no call can return. */
  const faults: unknown[] = []
  let time = 0
  const core = createCore({
    run: job => {
      jobs.push(job)
    },
    // µs. A chain reads the clock before each step, so it continues as a job after 8 steps, or after fewer if other
    // calls have read the clock meanwhile.
    now: () => time++,
    maxCallTime: 8,
    report: error => {
      faults.push(error)
    },
  })
  const caller = testCaller()
  const start = BigInt(caller.memory.add(new Uint8Array(64)))
  /** With memory for about 30 objects. */
  const account = ownAccount(40_000)
  return {
    gate,
    jobs,
    core,
    caller,
    start,
    account,
    charged: () => account.memory.used,
    faults,
    devices: [] as Device[],
    contexts: [] as Context[],
    running: new Set<Promise<unknown>>(),
  }
}
type Fixture = ReturnType<typeof setUp>

const link = (cls: ObjectClass, methodName: string, args: AnyValues, options: Partial<ChainLink> = {}): ChainLink => ({
  call: { class: cls, methodName, method: cls.methods[methodName], object: 0, args },
  ...options,
})

const address = { ...zeroRecord(QpAddress), port: 1 }

/** Class, method, object, arguments. */
type AnyCall = [ObjectClass, string, number, AnyValues]

/** A random call. */
const anyCall = ({ caller, start }: Fixture, { handles }: Context, random: RandomSource): AnyCall => {
  /** The handle of an object of the class; a random number if there is none, and in 5 % of cases. */
  const handle = (cls: ObjectClass): number => {
    const existing = handles.slots.filter(object => object?.class.name === cls.name)
    return existing.length > 0 && random.hits(0.95) ? random.pick(existing)!.handle : random.int(8)
  }
  const channel = [...caller.fds.keys()].slice(-1)
  const cq = {
    cqe: 1,
    userHandle: 1n,
    compVector: 0,
    ...(random.hits(0.3) && channel.length > 0 && { channel: channel[0] }),
  }
  const inState = random.hits(0.5) ? { state: INIT, pkeyIndex: 0, port: 1, accessFlags: 0 } : {}
  const qp = { cap, userHandle: 0n, ...inState }
  const chain = [
    link(Pd, 'create', {}),
    link(Cq, 'create', cq),
    link(RcQp, 'create', qp, { refs: { pd: 0, sendCq: 1, recvCq: 1 } }),
    ...(random.hits(0.5) ? [link(RcQp, 'modify', {}, { object: 2 })] : []),
    ...(random.hits(0.5) ? [link(Pd, 'createAhs', { addresses: [address, address] }, { object: 0 })] : []),
    ...(random.hits(0.5) ? [link(Pd, 'destroy', {}, { object: 0 })] : []),
  ]
  const onError = random.pick(Object.values(ChainErrors.values))
  return random.pick<AnyCall>([
    [Pd, 'create', 0, {}],
    [Cq, 'create', 0, cq],
    [Cq, 'create', 0, cq],
    [Mr, 'create', 0, { pd: handle(Pd), start, length: 64n, iova: start, access: 1 }],
    [RcQp, 'create', 0, { pd: handle(Pd), sendCq: handle(Cq), recvCq: handle(Cq), ...qp }],
    [RcQp, 'modify', handle(RcQp), {}],
    [Cq, 'modify', handle(Cq), {}],
    [Pd, 'createAhs', handle(Pd), { addresses: [address, address, address] }],
    [Pd, 'destroyAhs', handle(Pd), { handles: [{ handle: handle(Ah) }, { handle: handle(Ah) }] }],
    [Pd, 'destroy', handle(Pd), {}],
    [Cq, 'destroy', handle(Cq), {}],
    [RcQp, 'destroy', handle(RcQp), {}],
    [Mr, 'destroy', handle(Mr), {}],
    [Channel, 'create', 0, {}],
    [Interface, 'chain', 0, { entries: encodeChain(chain), onError }],
  ])
}

/** Accepts a CallError, and rethrows any other error. */
const refusedOnly = (error: unknown): void => {
  if (!(error instanceof CallError)) throw error
}

const call = ({ caller, running }: Fixture, context: Context, [cls, method, object, args]: AnyCall): void => {
  try {
    const result = invoke(context, cls, method, object, args as never, caller)
    if (result instanceof Promise) {
      const ended: Promise<unknown> = result.catch(refusedOnly).finally(() => running.delete(ended))
      running.add(ended)
    } else for (const { object: fd } of result.descriptors ?? []) caller.fds.set(fd, fd)
  } catch (error) {
    refusedOnly(error)
  }
}

/** Waits until all promise callbacks have run. */
const turn = (): Promise<void> => new Promise(done => setImmediate(done))

/** Asserts that core has reported no faults, and that its counts are those of the objects. */
const compare = ({ core, gate, devices, running, charged, faults }: Fixture): void => {
  const objects = devices.flatMap(({ contexts }) =>
    [...contexts].flatMap(({ handles, descriptors }) => [
      ...handles.slots.filter(object => object !== undefined),
      ...descriptors,
    ]),
  )
  assert.deepEqual(faults, [])
  for (const object of objects) assert.ok(object.uses >= 0, 'the use count is negative')
  const counted = devices.reduce((sum, { counts }) => sum + Object.values(counts).reduce((a, b) => a + b, 0), 0)
  assert.equal(counted, objects.length)
  assert.equal(
    charged(),
    objects.reduce((sum, { class: cls }) => sum + objectBytes(cls), 0),
  )
  if (running.size > 0) return
  assert.equal(stat(core).waiting, 0)
  for (const object of objects) {
    const needed = objects.reduce((n, { parents }) => n + parents.filter(parent => parent === object).length, 0)
    assert.equal(object.uses, needed, `${object.class.name} ${object.handle}`)
    assert.equal(object.life, Lifecycle.LIVE)
    for (const parent of object.parents)
      assert.notEqual(parent.life, Lifecycle.DESTROYED, 'a live object needs a destroyed object')
  }
  assert.deepEqual(
    [...gate.live].sort(),
    objects
      .filter(mayWait)
      .map(({ id }) => id)
      .sort(),
  )
}

const runSteps = (jobs: Iterator<unknown>[], index: number, count: number): void => {
  for (let i = 0; i < count; i++)
    if (jobs[index]!.next().done) {
      jobs.splice(index, 1)
      return
    }
}

const addDevice = ({ core, gate, devices }: Fixture): void => {
  const description = describeDevice('test0', testDriver(waitingClasses(gate)), { limits: { rc_qp: 4 } })
  devices.push(register(core, description) as Device)
}

/** Opens a context that has a PD and a CQ. */
const openWithObjects = (fixture: Fixture): void => {
  const context = openContext(fixture.devices.at(-1)!, { isOpened: true, account: fixture.account })
  fixture.contexts.push(context)
  call(fixture, context, [Pd, 'create', 0, {}])
  call(fixture, context, [Cq, 'create', 0, { cqe: 1, userHandle: 1n, compVector: 0 }])
}

/** One step of a run. An action that has nothing to act on falls to the next one. */
const act = (fixture: Fixture, random: RandomSource): void => {
  const { core, devices, gate, jobs, contexts, caller } = fixture
  const device = devices.at(-1)!
  /** Chooses the action: the bounds below are cumulative probabilities, in thirtieths. */
  const action = random.int(30)
  gate.shouldWait = random.hits(0.5)
  if (contexts.length === 0 || (action === 0 && contexts.length < 3)) openWithObjects(fixture)
  if (action === 1) closeContext(contexts.splice(random.int(contexts.length), 1)[0])
  else if (action === 2 && caller.fds.size > 0) {
    const fd = random.pick([...caller.fds.keys()])
    caller.fds.delete(fd)
    closeDescriptor(core, fd)
  } else if (action === 3 && random.hits(0.3)) {
    unregister(device)
    contexts.length = 0
    addDevice(fixture)
  } else if (action < 8 && jobs.length > 0) {
    runSteps(jobs, random.int(jobs.length), 1 + random.int(4))
  } else if (action < 15 && gate.pending.length > 0) {
    const [end] = gate.pending.splice(random.int(gate.pending.length), 1)
    end(random.hits(0.7))
  } else {
    const context = random.pick(contexts)
    call(fixture, context, anyCall(fixture, context, random))
  }
}

const run = async (seeds: readonly number[]): Promise<void> => {
  const fixture = setUp()
  const { core, devices, gate, jobs, contexts, running } = fixture
  addDevice(fixture)
  for (const seed of seeds) {
    act(fixture, createRandomSource(seed))
    await turn()
    compare(fixture)
  }
  gate.shouldWait = false
  // the number of seeds decides how the run ends: by a removal or by closes, and whether waiting handlers fail
  if (seeds.length % 2 === 0) unregister(devices.at(-1)!)
  else for (const context of contexts) closeContext(context)
  while (gate.pending.length + jobs.length > 0) {
    gate.pending.shift()?.(seeds.length % 3 > 0)
    if (jobs.length > 0) runSteps(jobs, 0, 8)
    await turn()
  }
  await Promise.all(running)
  compare(fixture)
  const { objects, descriptors, waiting } = stat(core)
  const keys = devices.reduce((sum, { memory }) => sum + memory.liveKeys, 0)
  assert.deepEqual([objects, descriptors, waiting, gate.live.size, keys], [0, 0, 0, 0, 0])
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
  await turn()
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
