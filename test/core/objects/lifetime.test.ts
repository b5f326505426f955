/*
 * Lifetimes of objects and descriptors (R23).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  addParent,
  closeContext,
  closeDescriptor,
  driverClass,
  dropParent,
  invoke,
  invokeNow,
  openContext,
  stat,
} from '../../../src/core/index.ts'
import type { CallContext, CoreObject } from '../../../src/core/model.ts'
import { undoSteps } from '../../../src/core/objects/lifetime.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { CallError } from '../../../src/spec/errno.ts'
import { CREATE_FD, DESTROY, method, objectClass, ref } from '../../../src/spec/schema/schema.ts'
import { cap, cqClass, errnoOf, install, openTestDevice, qpClass, testClasses, testDriver } from '../fixture.ts'

const { pd: Pd, cq: Cq, rc_qp: RcQp, comp_channel: CompChannel, async_fd: AsyncFd } = Classes
const cq = { cqe: 1, userHandle: 1n, compVector: 0 }

test('closing a context destroys each object before the objects on which it depends', () => {
  const setup = openTestDevice()
  const { context, caller, log } = setup
  invokeNow(context, Pd, 'create', 0, {}, caller)
  for (let i = 0; i < 2; i++) invokeNow(context, Cq, 'create', 0, cq, caller)
  for (let i = 0; i < 2; i++)
    invokeNow(context, RcQp, 'create', 0, { pd: 0, sendCq: 1, recvCq: 2, cap, userHandle: 0n }, caller)
  closeContext(context)
  assert.deepEqual(log, ['close rc_qp 4', 'close rc_qp 3', 'close cq 1', 'close cq 2'])
  assert.equal(stat(setup.core).contexts, 0)
  assert.equal(stat(setup.core).objects, 0)
  // has no effect
  closeContext(context)
})

test('closing a context destroys an object before a newer object on which it depends', () => {
  const { context, caller, log } = openTestDevice()
  for (let i = 0; i < 3; i++) invokeNow(context, Cq, 'create', 0, cq, caller)
  const [first, second, third] = context.handles.slots
  addParent(first!, third!)
  addParent(third!, second!)
  assert.equal(
    errnoOf(() => invokeNow(context, Cq, 'destroy', 2, {}, caller)),
    'EBUSY',
  )
  // a dropped parent can be added again
  dropParent(third!, second!)
  addParent(third!, second!)
  closeContext(context)
  assert.deepEqual(log, ['close cq 0', 'close cq 2', 'close cq 1'])
})

test('closing a context destroys a descriptor’s object before the objects that it uses', () => {
  const destroyed: string[] = []
  const logged = {
    destroy(_call: CallContext, { class: cls }: CoreObject) {
      destroyed.push(cls.name)
      return {}
    },
  }
  const Assignment = objectClass('assignment', 0x8000, {
    identity: 'fd',
    methods: {
      create: method(CREATE_FD, { in: { pd: ref(1, 'pd') }, out: {} }),
      destroy: method(DESTROY, { in: {}, out: {} }),
    },
  })
  const classes = testClasses.filter(cls => cls.class !== Pd)
  const ownClass = driverClass(Assignment, { create: () => ({}), ...logged })
  const { context, caller } = openTestDevice({}, testDriver([...classes, driverClass(Pd, logged), ownClass]))
  invokeNow(context, Pd, 'create', 0, {}, caller)
  invokeNow(context, Assignment, 'create', 0, { pd: 0 }, caller)
  closeContext(context)
  assert.deepEqual(destroyed, ['assignment', 'pd'])
})

test('closing a context during an asynchronous modify destroys the queue pair before its CQ', async () => {
  const ends: (() => void)[] = []
  const slowQp = driverClass(RcQp, {
    ...qpClass.handlers,
    modify: () => new Promise<undefined>(end => ends.push(() => end(undefined))),
  })
  const classes = testClasses.map(cls => (cls === qpClass ? slowQp : cls))
  const { context, caller, core, log } = openTestDevice({}, testDriver(classes))
  for (let i = 0; i < 2; i++) invokeNow(context, Pd, 'create', 0, {}, caller)
  invokeNow(context, Cq, 'create', 0, cq, caller)
  invokeNow(context, Pd, 'destroy', 1, {}, caller)
  // the queue pair has a lower handle than its CQ
  invokeNow(context, RcQp, 'create', 0, { pd: 0, sendCq: 2, recvCq: 2, cap, userHandle: 0n }, caller)
  const modifying = invoke(context, RcQp, 'modify', 1, {}, caller)
  closeContext(context)
  assert.deepEqual(log, ['close rc_qp 1', 'close cq 2'])
  for (const end of ends) end()
  await assert.rejects(async () => modifying, { code: 'EIO' })
  assert.equal(stat(core).objects, 0)
})

test('a handler that throws or a cyclic dependency does not stop the destruction', () => {
  const seen: number[] = []
  const failingPd = driverClass(Pd, {
    destroy: (_call, object) => {
      seen.push(object.handle)
      throw new Error('a bug')
    },
  })
  const setup = openTestDevice({}, testDriver(testClasses.map(cls => (cls.class.name === 'pd' ? failingPd : cls))))
  const { context, caller } = setup
  for (let i = 0; i < 4; i++) invokeNow(context, Pd, 'create', 0, {}, caller)
  const [first, second] = context.handles.slots
  addParent(first!, second!)
  addParent(second!, first!)
  closeContext(context)
  assert.deepEqual(seen, [3, 2, 1, 0])
  assert.deepEqual([stat(setup.core).objects, stat(setup.core).faults], [0, 4])
})

test('the rejection of an asynchronous destroy by core itself is a fault', async () => {
  const refusing = driverClass(Pd, { destroy: async () => Promise.reject(new CallError('EBUSY', 'not now')) })
  const { context, caller, core } = openTestDevice(
    {},
    testDriver(testClasses.map(cls => (cls.class === Pd ? refusing : cls))),
  )
  invokeNow(context, Pd, 'create', 0, {}, caller)
  closeContext(context)
  await new Promise(setImmediate)
  assert.deepEqual([stat(core).objects, stat(core).faults], [0, 1])
})

test('closing a context does not repeat an asynchronous destroy that ends before the close reaches the object', async () => {
  const ends: (() => void)[] = []
  const destroyed: string[] = []
  const slowPd = driverClass(Pd, {
    async destroy(call, object) {
      destroyed.push(`${call.why} ${object.handle}`)
      await new Promise<void>(end => ends.push(end))
      return {}
    },
  })
  const setup = openTestDevice({}, testDriver(testClasses.map(cls => (cls.class === Pd ? slowPd : cls))))
  const { context, caller, core } = setup
  const deferredJobs: Iterator<unknown>[] = []
  const { runJob } = core
  Object.assign(core, { runJob: (job: Iterator<unknown>) => deferredJobs.push(job) })
  invokeNow(context, Pd, 'create', 0, {}, caller)
  const destroying = invoke(context, Pd, 'destroy', 0, {}, caller)
  closeContext(context)
  for (const end of ends) end()
  await assert.rejects(async () => destroying, { code: 'EIO' })
  for (const job of deferredJobs) runJob(job)
  assert.deepEqual(destroyed, ['call 0'])
  assert.deepEqual([stat(core).objects, stat(core).contexts, stat(core).faults], [0, 0, 0])
})

test('descriptors can be used after 2^31 objects were created', () => {
  const setup = openTestDevice()
  const { context, caller, core } = setup
  core.nextObject = 2 ** 31
  const channel = install(setup, invokeNow(context, CompChannel, 'create', 0, {}, caller))
  const { object } = invokeNow(context, Cq, 'create', 0, { ...cq, channel: channel.handle }, caller)
  assert.equal(context.handles.slots[object!]?.events?.route.channel, channel)
})

test('a channel with a closed descriptor exists until its last CQ is destroyed', () => {
  const setup = openTestDevice()
  const { context, caller, core } = setup
  const channel = install(setup, invokeNow(context, CompChannel, 'create', 0, {}, caller))
  invokeNow(context, Cq, 'create', 0, { ...cq, channel: channel.handle }, caller)
  closeDescriptor(core, channel.handle)
  assert.equal(core.descriptors.has(channel.handle), true)
  assert.equal(
    errnoOf(() => invokeNow(context, Cq, 'create', 0, { ...cq, channel: channel.handle }, caller)),
    'EBADF',
  )
  invokeNow(context, Cq, 'destroy', 0, {}, caller)
  assert.equal(core.descriptors.has(channel.handle), false)
  assert.equal(stat(core).objects, 0)
  closeDescriptor(core, channel.handle)
})

test('an unused descriptor is destroyed when it is closed, or with its context', () => {
  const setup = openTestDevice()
  const { context, caller, core } = setup
  const channel = install(setup, invokeNow(context, CompChannel, 'create', 0, {}, caller))
  install(setup, invokeNow(context, AsyncFd, 'create', 0, {}, caller))
  closeDescriptor(core, channel.handle)
  assert.equal(stat(core).descriptors, 1)
  closeContext(context)
  assert.deepEqual([stat(core).descriptors, stat(core).objects], [0, 0])
})

test('closing a context with 10,001 objects destroys no object of another context', () => {
  const setup = openTestDevice()
  const { context, caller, core, device } = setup
  const otherContext = openContext(device, { isOpened: true })
  invokeNow(otherContext, Pd, 'create', 0, {}, caller)
  invokeNow(context, Pd, 'create', 0, {}, caller)
  for (let i = 0; i < 5000; i++) {
    const handle = invokeNow(context, Cq, 'create', 0, cq, caller).object!
    invokeNow(context, RcQp, 'create', 0, { pd: 0, sendCq: handle, recvCq: handle, cap, userHandle: 0n }, caller)
  }
  assert.equal(stat(core).objects, 10_002)
  closeContext(context)
  assert.deepEqual(stat(core).devices.test0.objects, { pd: 1 })
})

test('closing a context keeps the objects of another context that its objects used', () => {
  const { context, device, caller, core } = openTestDevice()
  const otherContext = openContext(device, { isOpened: true })
  invokeNow(otherContext, Pd, 'create', 0, {}, caller)
  invokeNow(context, Cq, 'create', 0, cq, caller)
  const [pd] = otherContext.handles.slots
  addParent(context.handles.slots[0]!, pd!)
  closeContext(context)
  assert.deepEqual(stat(core).devices.test0?.objects, { pd: 1 })
  assert.equal(pd!.uses, 0)
})

test('closing a context during an asynchronous call destroys each object before those on which it depends', async () => {
  const ends: (() => void)[] = []
  const slowCq = driverClass(Cq, { ...cqClass.handlers, modify: () => new Promise<never>((_, end) => ends.push(end)) })
  const { context, caller, log } = openTestDevice(
    {},
    testDriver(testClasses.map(cls => (cls === cqClass ? slowCq : cls))),
  )
  for (let i = 0; i < 3; i++) invokeNow(context, Cq, 'create', 0, cq, caller)
  const [first, second, third] = context.handles.slots
  addParent(first!, second!)
  addParent(second!, third!)
  const modifying = invoke(context, Cq, 'modify', 0, { count: 1 }, caller)
  closeContext(context)
  assert.deepEqual(log, ['close cq 0', 'close cq 1', 'close cq 2'])
  for (const end of ends) end()
  await assert.rejects(async () => modifying)
})

test('an undo leaves the objects that other calls use or destroy between its steps', async () => {
  const ends: (() => void)[] = []
  const noEvents = { compEvents: 0, asyncEvents: 0 }
  const slowCq = driverClass(Cq, {
    ...cqClass.handlers,
    destroy: () => new Promise<typeof noEvents>(end => ends.push(() => end(noEvents))),
  })
  const { context, caller } = openTestDevice({}, testDriver(testClasses.map(cls => (cls === cqClass ? slowCq : cls))))
  for (let i = 0; i < 3; i++) invokeNow(context, Pd, 'create', 0, {}, caller)
  for (let i = 0; i < 2; i++) invokeNow(context, Cq, 'create', 0, cq, caller)
  const [unused, used, , destroyed, user] = context.handles.slots
  const steps = undoSteps(context, context.handles.slots.slice(0, 4))
  const destroying = invoke(context, Cq, 'destroy', destroyed!.handle, {}, caller)
  steps.next()
  addParent(user!, used!)
  while (!steps.next().done);
  assert.deepEqual(
    [unused, used, destroyed, user].map(object => context.handles.slots.includes(object)),
    [false, true, true, true],
  )
  for (const end of ends) end()
  await destroying
  assert.ok(!context.handles.slots.includes(destroyed))
})
