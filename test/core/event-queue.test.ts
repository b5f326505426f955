/*
 * Event queues (R38), and the methods that read events of a descriptor (R37, R39).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  arm,
  attachSink,
  closeContext,
  closeDescriptor,
  completed,
  createEventQueue,
  type FdObject,
  invoke,
  invokeNow,
  raiseObjectEvent,
  raisePort,
  readEvents,
  unregister,
} from '../../src/core/index.ts'
import { DeviceAttributes } from '../../src/spec/classes/device/device.ts'
import { Event } from '../../src/spec/classes/events/event_queue.ts'
import { ClassId } from '../../src/spec/classes/ids.ts'
import { Classes } from '../../src/spec/classes.ts'
import { AsyncEventType, EventKind } from '../../src/spec/enums.ts'
import { recordSize, zeroRecord } from '../../src/spec/schema/schema.ts'
import { cap, errnoOf, install, openTestDevice } from './fixture.ts'

const { cq: Cq, rc_qp: RcQp, pd: Pd, comp_channel: CompChannel, async_fd: AsyncFd, event_queue: Queue } = Classes
const { COMPLETION } = EventKind.values
const { QP_FATAL, COMM_EST, CQ_ERR, PORT_ERR, DEVICE_FATAL } = AsyncEventType.values

/** More events than any queue here has. */
const MANY = 16

const setUp = () => {
  const setup = openTestDevice()
  const { context, caller } = setup
  const newQueue = () => install(setup, invokeNow(context, Queue, 'create', 0, {}, caller))
  const asyncFd = install(setup, invokeNow(context, AsyncFd, 'create', 0, {}, caller))
  const channel = install(setup, invokeNow(context, CompChannel, 'create', 0, {}, caller))
  const objectAt = (handle: number) => context.handles.slots[handle]!
  const cqArgs = { cqe: 4, userHandle: 7n, compVector: 0, channel: channel.handle }
  const cq = objectAt(invokeNow(context, Cq, 'create', 0, cqArgs, caller).object!)
  const pd = invokeNow(context, Pd, 'create', 0, {}, caller).object!
  const qpArgs = { pd, sendCq: cq.handle, recvCq: cq.handle, cap, userHandle: 8n }
  const qp = objectAt(invokeNow(context, RcQp, 'create', 0, qpArgs, caller).object!)
  const attach = (queue: FdObject, args: Parameters<typeof invokeNow<typeof Queue, 'attach'>>[4]) =>
    invokeNow(context, Queue, 'attach', queue.handle, args, caller)
  const detach = (queue: FdObject, args: Parameters<typeof invokeNow<typeof Queue, 'detach'>>[4]) =>
    invokeNow(context, Queue, 'detach', queue.handle, args, caller)
  const read = (queue: FdObject, max = MANY) =>
    invokeNow(context, Queue, 'getEvents', queue.handle, { max }, caller).out.events.map(
      ({ cookie, class: cls, object, type }) => [cookie, cls, object, type],
    )
  /** Arms the CQ for any completion, and reports one. */
  const complete = () => {
    arm(cq, false)
    completed(cq.events!, false)
  }
  return { ...setup, newQueue, asyncFd, channel, cq, qp, attach, detach, read, complete }
}

test('one queue receives events of the device, a port, a CQ and a QP, in order, each with its cookie', () => {
  const { device, newQueue, cq, qp, attach, read, complete, context, caller } = setUp()
  const queue = newQueue()
  attach(queue, { cookie: 1n, device: 1 })
  attach(queue, { cookie: 2n, port: 1 })
  attach(queue, { cookie: 3n, cq: cq.handle })
  attach(queue, { cookie: 0xffff_ffff_ffff_ffffn, rc_qp: qp.handle })
  const { attached } = invokeNow(context, Queue, 'query', queue.handle, {}, caller).out
  assert.deepEqual(
    attached.map(source => [source.cookie, source.class, source.object]),
    [
      [1n, ClassId.device, 0],
      [2n, ClassId.port, 1],
      [3n, ClassId.cq, cq.handle],
      [0xffff_ffff_ffff_ffffn, ClassId.rc_qp, qp.handle],
    ],
  )
  raiseObjectEvent(qp, COMM_EST)
  complete()
  raisePort(device, 1, PORT_ERR)
  raiseObjectEvent(cq, CQ_ERR)
  assert.deepEqual(read(queue, 2), [
    [0xffff_ffff_ffff_ffffn, ClassId.rc_qp, qp.handle, COMM_EST],
    [3n, ClassId.cq, cq.handle, COMPLETION],
  ])
  assert.deepEqual(read(queue), [
    [2n, ClassId.port, 1, PORT_ERR],
    [3n, ClassId.cq, cq.handle, CQ_ERR],
  ])
  assert.equal(
    errnoOf(() => read(queue)),
    'EAGAIN',
  )
})

test('events of an attached object go only to the queue, and after detach to channel and async fd', () => {
  const { newQueue, channel, asyncFd, cq, qp, attach, detach, read, complete, context, caller } = setUp()
  const queue = newQueue()
  attach(queue, { cookie: 3n, cq: cq.handle })
  attach(queue, { cookie: 4n, rc_qp: qp.handle })
  complete()
  raiseObjectEvent(qp, QP_FATAL)
  assert.equal(
    errnoOf(() => invokeNow(context, CompChannel, 'getEvent', channel.handle, {}, caller)),
    'EAGAIN',
  )
  assert.equal(
    errnoOf(() => invokeNow(context, AsyncFd, 'getEvent', asyncFd.handle, {}, caller)),
    'EAGAIN',
  )
  assert.deepEqual(read(queue, 1), [[3n, ClassId.cq, cq.handle, COMPLETION]])
  // detaching the queue pair drops its unread event
  detach(queue, { rc_qp: qp.handle })
  detach(queue, { cq: cq.handle })
  assert.equal(
    errnoOf(() => read(queue)),
    'EAGAIN',
  )
  complete()
  raiseObjectEvent(qp, QP_FATAL)
  assert.equal(invokeNow(context, CompChannel, 'getEvent', channel.handle, {}, caller).out.userHandle, 7n)
  assert.deepEqual(
    { ...invokeNow(context, AsyncFd, 'getEvent', asyncFd.handle, {}, caller).out },
    { element: 8n, type: QP_FATAL },
  )
  // one completion event was read from the queue, one from the channel (R35)
  invokeNow(context, RcQp, 'destroy', qp.handle, {}, caller)
  assert.deepEqual(
    { ...invokeNow(context, Cq, 'destroy', cq.handle, {}, caller).out },
    { compEvents: 2, asyncEvents: 0 },
  )
})

test('a destroyed object or a closed queue drops its unread events', () => {
  const { core, newQueue, channel, cq, qp, attach, read, complete, context, caller } = setUp()
  const queue = newQueue()
  attach(queue, { cookie: 3n, cq: cq.handle })
  attach(queue, { cookie: 4n, rc_qp: qp.handle })
  raiseObjectEvent(qp, QP_FATAL)
  complete()
  assert.deepEqual({ ...invokeNow(context, RcQp, 'destroy', qp.handle, {}, caller).out }, { events: 0 })
  assert.deepEqual(read(queue), [[3n, ClassId.cq, cq.handle, COMPLETION]])
  complete()
  closeDescriptor(core, queue.handle)
  complete()
  assert.equal(invokeNow(context, CompChannel, 'getEvent', channel.handle, {}, caller).out.userHandle, 7n)
  assert.equal(invokeNow(context, Cq, 'destroy', cq.handle, {}, caller).out.compEvents, 2)
})

test('the device’s removal is the last event of a queue to which the device is attached', () => {
  const { device, newQueue, attach, cq, qp, complete } = setUp()
  const queue = newQueue()
  const otherQueue = newQueue()
  attach(queue, { cookie: 1n, device: 1 })
  attach(otherQueue, { cookie: 2n, cq: cq.handle })
  attach(queue, { cookie: 3n, rc_qp: qp.handle })
  // these unread events are dropped with their objects, as in Linux
  complete()
  raiseObjectEvent(qp, COMM_EST)
  unregister(device)
  const [event, ...more] = queue.sink.take(MANY)
  assert.deepEqual(more, [])
  assert.equal(new DataView(event.bytes.buffer).getUint32(Event.type.offset, true), DEVICE_FATAL)
  assert.equal(event.bytes.length, recordSize(Event))
  assert.equal(otherQueue.sink.take(MANY).length, 0)
})

test('attach and detach of a wrong source are refused', () => {
  const { newQueue, cq, qp, attach, detach } = setUp()
  const [queue, otherQueue] = [newQueue(), newQueue()]
  const assertRefused = (code: string, message: RegExp, call: () => unknown) => assert.throws(call, { code, message })
  assertRefused('EINVAL', /no source is named: name one source/, () => attach(queue, { cookie: 0n }))
  assertRefused('EINVAL', /port and cq are named/, () => attach(queue, { cookie: 0n, port: 1, cq: cq.handle }))
  assertRefused('EINVAL', /attribute port: 2: device test0 has ports 1 to 1/, () =>
    attach(queue, { cookie: 0n, port: 2 }),
  )
  assertRefused('EINVAL', /handle \d+ is of class rc_qp, not cq/, () => attach(queue, { cookie: 0n, cq: qp.handle }))
  attach(queue, { cookie: 0n, cq: cq.handle })
  attach(queue, { cookie: 0n, port: 1 })
  assertRefused('EBUSY', /cq \d+ is attached to a queue already/, () =>
    attach(otherQueue, { cookie: 0n, cq: cq.handle }),
  )
  assertRefused('EBUSY', /port 1 is attached/, () => attach(queue, { cookie: 0n, port: 1 }))
  attach(otherQueue, { cookie: 0n, port: 1 })
  assertRefused('ENOENT', /not attached to this queue/, () => detach(otherQueue, { cq: cq.handle }))
  assertRefused('ENOENT', /not attached to this queue/, () => detach(queue, { device: 1 }))
  detach(queue, { port: 1 })
})

test('a port of a device without ports cannot be attached', () => {
  const setup = openTestDevice({ attributes: zeroRecord(DeviceAttributes), ports: [] })
  const { context, caller } = setup
  const queue = install(setup, invokeNow(context, Queue, 'create', 0, {}, caller))
  assert.throws(() => invokeNow(context, Queue, 'attach', queue.handle, { cookie: 0n, port: 1 }, caller), {
    code: 'EINVAL',
    message: /attribute port: 1: device test0 has no ports/,
  })
})

test('closing a descriptor does not visit all objects of the context', () => {
  const { core, context, newQueue, channel, cq, attach, read, complete } = setUp()
  const [queue, otherQueue] = [newQueue(), newQueue()]
  attach(queue, { cookie: 1n, cq: cq.handle })
  const { slots } = context.handles
  let accesses = 0
  const counted = new Proxy(slots, {
    get(target, key, receiver) {
      accesses++
      return Reflect.get(target, key, receiver)
    },
  })
  Object.defineProperty(context.handles, 'slots', { value: counted })
  closeDescriptor(core, channel.handle)
  closeDescriptor(core, queue.handle)
  assert.ok(accesses < slots.length, `${accesses} accesses`)
  Object.defineProperty(context.handles, 'slots', { value: slots })
  attach(otherQueue, { cookie: 2n, cq: cq.handle })
  complete()
  assert.deepEqual(
    read(otherQueue).map(([cookie]) => cookie),
    [2n],
  )
})

test('an attached object’s events go to the queue instead of its handlers', () => {
  const { newQueue, attach, read, context, caller } = setUp()
  const events: string[] = []
  const handlers = { completion: () => void events.push('completion'), event: () => void events.push('event') }
  const args = { cqe: 4, userHandle: 7n, compVector: 0 }
  const { object: handle = -1 } = invokeNow(context, Cq, 'create', 0, args, { ...caller, handlers })
  const cq = context.handles.slots[handle]!
  const queue = newQueue()
  attach(queue, { cookie: 3n, cq: handle })
  arm(cq, false)
  completed(cq.events!, false)
  raiseObjectEvent(cq, CQ_ERR)
  assert.deepEqual(read(queue), [
    [3n, ClassId.cq, handle, COMPLETION],
    [3n, ClassId.cq, handle, CQ_ERR],
  ])
  assert.deepEqual(events, [])
})

test('after its context is closed a queue still has events of the device and its ports, but not of objects', () => {
  const { device, newQueue, cq, attach, context } = setUp()
  const queue = newQueue()
  attach(queue, { cookie: 1n, port: 1 })
  attach(queue, { cookie: 2n, cq: cq.handle })
  raiseObjectEvent(cq, CQ_ERR)
  raisePort(device, 1, PORT_ERR)
  closeContext(context)
  assert.deepEqual(
    readEvents(queue, MANY).map(({ type }) => type),
    [PORT_ERR],
  )
})

test('a destroy waits until the sink of the object’s event queue is prepared', async () => {
  const { newQueue, cq, qp, attach, complete, context, caller } = setUp()
  invokeNow(context, RcQp, 'destroy', qp.handle, {}, caller)
  const queue = newQueue()
  attach(queue, { cookie: 1n, cq: cq.handle })
  let preparations = 0
  const prepareWithdraw = () => (preparations++ === 0 ? Promise.resolve() : undefined)
  attachSink(queue, { ...createEventQueue(), prepareWithdraw })
  complete()
  const { out } = await invoke(context, Cq, 'destroy', cq.handle, {}, caller)
  assert.deepEqual([{ ...out }, preparations], [{ compEvents: 0, asyncEvents: 0 }, 2])
})

test('an object that moves to another queue is independent of the first, which may be closed', () => {
  const { core, device, newQueue, cq, attach, detach, read, complete, channel } = setUp()
  const [first, second] = [newQueue(), newQueue()]
  complete()
  assert.equal(readEvents(channel)[0]?.bytes.length, 8)
  attach(first, { cookie: 1n, cq: cq.handle })
  complete()
  assert.deepEqual(read(first), [[1n, ClassId.cq, cq.handle, COMPLETION]])
  detach(first, { cq: cq.handle })
  attach(second, { cookie: 2n, cq: cq.handle })
  attach(second, { cookie: 3n, port: 1 })
  closeDescriptor(core, first.handle)
  complete()
  raisePort(device, 1, PORT_ERR)
  detach(second, { port: 1 }) // drops the unread event of the port
  assert.deepEqual(read(second), [[2n, ClassId.cq, cq.handle, COMPLETION]])
})
