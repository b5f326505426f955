/*
 * Completion events and asynchronous events (R34, R35, R37).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { noRoute } from '../../../src/core/events/events.ts'
import {
  arm,
  attachSink,
  closeContext,
  closeDescriptor,
  completed,
  createEventQueue,
  type EventRecord,
  type FdObject,
  invokeNow,
  openContext,
  raiseObjectEvent,
  raisePort,
  readEvents,
  registerClient,
  unregister,
} from '../../../src/core/index.ts'
import { type Affiliation, Armed } from '../../../src/core/model.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { AsyncEventType } from '../../../src/spec/enums.ts'
import { cap, errnoOf, install, openTestDevice } from '../fixture.ts'

const { pd: Pd, cq: Cq, rc_qp: RcQp, comp_channel: CompChannel, async_fd: AsyncFd } = Classes

const setUp = () => {
  const setup = openTestDevice()
  const { context, caller } = setup
  const asyncFd = install(setup, invokeNow(context, AsyncFd, 'create', 0, {}, caller))
  const channel = install(setup, invokeNow(context, CompChannel, 'create', 0, {}, caller))
  const newCq = (userHandle: bigint) => {
    const { object } = invokeNow(
      context,
      Cq,
      'create',
      0,
      { cqe: 4, userHandle, compVector: 0, channel: channel.handle },
      caller,
    )
    return context.handles.slots[object!]!
  }
  const notify = (handle: number, solicitedOnly: 0 | 1) =>
    invokeNow(context, Cq, 'reqNotify', handle, { solicitedOnly }, caller)
  const destroy = (handle: number) => ({ ...invokeNow(context, Cq, 'destroy', handle, {}, caller).out })
  return { ...setup, asyncFd, channel, newCq, notify, destroy }
}
const hex = (events: readonly EventRecord[]) => events.map(({ bytes }) => Buffer.from(bytes).toString('hex'))
const readError = (fd: FdObject) => errnoOf(() => readEvents(fd))

test('an armed CQ raises one event for the next completion (R35)', () => {
  const { channel, newCq, notify } = setUp()
  const cq = newCq(0x1122334455667788n)
  completed(cq.events!, true)
  assert.equal(readError(channel), 'EAGAIN')
  notify(cq.handle, 0)
  completed(cq.events!, false)
  completed(cq.events!, true)
  assert.deepEqual(hex(readEvents(channel, 9)), ['8877665544332211'])
  assert.equal(readError(channel), 'EAGAIN')
})

test('a CQ that is armed only for solicited completions ignores other completions', () => {
  const { channel, newCq, notify } = setUp()
  const cq = newCq(1n)
  notify(cq.handle, 1)
  completed(cq.events!, false)
  assert.equal(readError(channel), 'EAGAIN')
  completed(cq.events!, true)
  assert.equal(readEvents(channel, 9).length, 1)
  notify(cq.handle, 0)
  notify(cq.handle, 1)
  completed(cq.events!, false)
  assert.equal(readEvents(channel, 9).length, 1, 'the second arming does not replace the first')
})

test('a destroy counts the read events and drops the unread events', () => {
  const { channel, newCq, notify, destroy } = setUp()
  const [firstCq, secondCq] = [newCq(5n), newCq(5n)]
  for (const cq of [firstCq, secondCq, firstCq, firstCq]) {
    notify(cq.handle, 0)
    completed(cq.events!, false)
  }
  readEvents(channel, 2)
  assert.deepEqual(destroy(firstCq.handle), { compEvents: 1, asyncEvents: 0 })
  assert.equal(readError(channel), 'EAGAIN')
  assert.deepEqual(destroy(secondCq.handle), { compEvents: 1, asyncEvents: 0 })
})

test("an async event goes to the async fd of the object's create, otherwise to the context's first async fd", () => {
  const setup = setUp()
  const { context, caller, asyncFd, newCq, destroy } = setup
  const second = install(setup, invokeNow(context, AsyncFd, 'create', 0, {}, caller))
  const cq = newCq(0xabcn)
  invokeNow(context, Pd, 'create', 0, {}, caller)
  const qpArgs = { pd: 1, sendCq: 0, recvCq: 0, cap, userHandle: 0xdefn, asyncFd: second.handle }
  const qp = context.handles.slots[invokeNow(context, RcQp, 'create', 0, qpArgs, caller).object!]!
  raiseObjectEvent(cq, AsyncEventType.values.CQ_ERR)
  raiseObjectEvent(qp, AsyncEventType.values.COMM_EST)
  raiseObjectEvent(qp, AsyncEventType.values.QP_ACCESS_ERR)
  const { asyncFd: _, ...otherArgs } = { ...qpArgs, userHandle: 0x123n }
  const otherQp = context.handles.slots[invokeNow(context, RcQp, 'create', 0, otherArgs, caller).object!]!
  raiseObjectEvent(otherQp, AsyncEventType.values.COMM_EST)
  assert.deepEqual(hex(readEvents(asyncFd, 9)), [
    'bc0a000000000000' + '00000000' + '00000000',
    '2301000000000000' + '04000000' + '00000000',
  ])
  invokeNow(context, RcQp, 'destroy', otherQp.handle, {}, caller)
  assert.deepEqual(hex(readEvents(second, 1)), ['ef0d000000000000' + '04000000' + '00000000'])
  assert.deepEqual({ ...invokeNow(context, RcQp, 'destroy', qp.handle, {}, caller).out }, { events: 1 })
  assert.equal(readError(second), 'EAGAIN')
  assert.deepEqual(destroy(cq.handle), { compEvents: 0, asyncEvents: 1 })
})

test('events of a port go to every async fd of its device', () => {
  const setup = setUp()
  const otherContext = openContext(setup.device, { isOpened: true })
  const otherFd = install(setup, invokeNow(otherContext, AsyncFd, 'create', 0, {}, setup.caller))
  raisePort(setup.device, 1, AsyncEventType.values.PORT_ACTIVE)
  for (const fd of [setup.asyncFd, otherFd])
    assert.deepEqual(hex(readEvents(fd, 9)), ['0100000000000000' + '09000000' + '00000000'])
  assert.equal(readError(setup.channel), 'EAGAIN')
})

test('device removal raises DEVICE_FATAL on the async fd, and later reads fail with EIO', () => {
  const { device, asyncFd, channel, newCq, notify } = setUp()
  const cq = newCq(1n)
  notify(cq.handle, 0)
  unregister(device)
  assert.deepEqual(hex(readEvents(asyncFd, 9)), ['0000000000000000' + '08000000' + '00000000'])
  assert.equal(readError(asyncFd), 'EIO')
  assert.equal(readError(channel), 'EIO')
})

test('device removal discards unread events of objects, but not of ports', () => {
  const { device, asyncFd, channel, newCq } = setUp()
  const cq = newCq(1n)
  const fire = () => {
    arm(cq, false)
    completed(cq.events!, false)
  }
  fire()
  raisePort(device, 1, AsyncEventType.values.PORT_ERR)
  raiseObjectEvent(cq, AsyncEventType.values.CQ_ERR)
  // events raised during the removal are not delivered either
  registerClient(device.core, {
    name: 'busy',
    add() {},
    remove() {
      fire()
      raiseObjectEvent(cq, AsyncEventType.values.CQ_ERR)
    },
  })
  unregister(device)
  assert.deepEqual(hex(readEvents(asyncFd, 9)), [
    '0100000000000000' + '0a000000' + '00000000',
    '0000000000000000' + '08000000' + '00000000',
  ])
  assert.equal(readError(channel), 'EIO')
})

test('a closed descriptor gets no events; its unread events do not count as read', () => {
  const { core, channel, newCq, notify, destroy } = setUp()
  const cq = newCq(1n)
  for (let i = 0; i < 3; i++) {
    notify(cq.handle, 0)
    completed(cq.events!, false)
  }
  readEvents(channel)
  closeDescriptor(core, channel.handle)
  notify(cq.handle, 0)
  completed(cq.events!, false)
  assert.deepEqual(destroy(cq.handle), { compEvents: 1, asyncEvents: 0 })
})

test('after its context is closed an async fd still has events of ports, but not of objects', () => {
  const { context, device, asyncFd, newCq } = setUp()
  raiseObjectEvent(newCq(1n), AsyncEventType.values.CQ_ERR)
  raisePort(device, 1, AsyncEventType.values.PORT_ERR)
  closeContext(context)
  assert.deepEqual(
    readEvents(asyncFd, 9).map(({ type }) => type),
    [AsyncEventType.values.PORT_ERR],
  )
  assert.equal(readError(asyncFd), 'EIO')
})

test('a destroy queries the sink only if the object has raised events, a close queries the sink once', () => {
  const { core, channel, newCq, notify, destroy } = setUp()
  const queried: unknown[] = []
  attachSink(channel, {
    post() {},
    withdraw: element => {
      queried.push(element)
      return []
    },
    unread: () => 0,
    take: limit => {
      queried.push(limit)
      return []
    },
    end() {},
  })
  const [withoutEvents, ...withEvents] = [newCq(1n), newCq(2n), newCq(3n), newCq(4n)]
  for (const { handle, events } of withEvents) {
    notify(handle, 0)
    completed(events!, false)
  }
  assert.deepEqual(destroy(withoutEvents!.handle), { compEvents: 0, asyncEvents: 0 })
  assert.deepEqual(destroy(withEvents[0]!.handle), { compEvents: 1, asyncEvents: 0 })
  closeDescriptor(core, channel.handle)
  assert.deepEqual(destroy(withEvents[1]!.handle), { compEvents: 1, asyncEvents: 0 })
  assert.deepEqual(queried, [withEvents[0]!.events, Number.POSITIVE_INFINITY])
})

test('an attached sink gets the queued events, and a destroy withdraws undelivered events from the sink', () => {
  const { context, channel, newCq, notify, destroy } = setUp()
  const cq = newCq(1n)
  const fire = () => {
    notify(cq.handle, 0)
    completed(cq.events!, false)
  }
  fire()
  const posted: EventRecord[] = []
  let ended = 0
  attachSink(channel, {
    post: event => posted.push(event),
    withdraw: element => posted.filter(event => event.element === element).slice(1),
    unread: () => posted.length,
    take: () => [],
    end: () => ended++,
  })
  fire()
  assert.equal(posted.length, 2)
  assert.equal(posted[0], posted[1])
  assert.equal(
    errnoOf(() => readEvents(channel)),
    'EAGAIN',
  )
  assert.deepEqual(destroy(cq.handle), { compEvents: 1, asyncEvents: 0 })
  closeContext(context)
  assert.equal(ended, 1)
})

test('the number of unread events of one object is bounded, and events of other objects still arrive', () => {
  const { channel, newCq, notify, destroy } = setUp()
  const [busy, late] = [newCq(1n), newCq(2n)]
  const fire = (cq: typeof busy) => {
    notify(cq.handle, 0)
    completed(cq.events!, false)
  }
  for (let i = 0; i < 65_600; i++) fire(busy)
  fire(late)
  const events = readEvents(channel, 1e6)
  assert.equal(events.length, 65_537)
  assert.equal(events.at(-1)?.element, late.events)
  assert.deepEqual(destroy(busy.handle), { compEvents: 65_536, asyncEvents: 0 })
})

test('events that an attached sink has not delivered move to the next sink', () => {
  const { channel, newCq } = setUp()
  const [first, second] = [createEventQueue(), createEventQueue()]
  const cq = newCq(1n)
  arm(cq, false)
  completed(cq.events!, false)
  attachSink(channel, first)
  attachSink(channel, second)
  assert.deepEqual([first.take(9).length, second.take(9).length], [0, 1])
})

test('the number of unread events of a port is bounded', () => {
  const { device, asyncFd } = setUp()
  for (let i = 0; i < 65_600; i++) raisePort(device, 1, AsyncEventType.values.PORT_ERR)
  raisePort(device, 1, AsyncEventType.values.PORT_ACTIVE)
  const events = readEvents(asyncFd, 1e6)
  assert.equal(events.length, 65_537)
  assert.equal(events.at(-1)?.type, AsyncEventType.values.PORT_ACTIVE)
})

test('a queue with very many events is not searched for each new event', () => {
  const element = (): Affiliation => ({ userHandle: 0n, route: noRoute, armed: Armed.NO, state: undefined })
  const [busy, late] = [element(), element()]
  let reads = 0
  const eventOf = (source: Affiliation, type = -1): EventRecord => ({
    get element() {
      reads++
      return source
    },
    bytes: new Uint8Array(8),
    type,
  })
  const queue = createEventQueue()
  for (let i = 0; i < 65_536; i++) queue.post(eventOf(busy))
  reads = 0
  for (let i = 0; i < 100; i++) queue.post(eventOf(late))
  assert.ok(reads < 3 * 65_536, `${reads} reads`)
  assert.equal(queue.unread(), 65_537)
  queue.post(eventOf(late, 3))
  assert.equal(queue.unread(), 65_538, 'another type')
  assert.equal(queue.withdraw(late).length, 2)
  queue.post(eventOf(late))
  assert.equal(queue.unread(), 65_537, 'queued again after it was withdrawn')
  queue.take(1)
  queue.post(eventOf(busy))
  assert.equal(queue.unread(), 65_536, 'dropped at the limit')
  queue.take(40_000)
  queue.post(eventOf(busy))
  assert.equal(queue.unread(), 25_537, 'queued below the limit')
  for (let i = 0; i < 50_000; i++) queue.post(eventOf(late))
  assert.equal(queue.unread(), 65_536)
  assert.equal(queue.take(25_536).at(-1)?.element, late)
  assert.equal(queue.withdraw(late).length, 39_999)
  assert.deepEqual(
    queue.take(9).map(({ element }) => element),
    [busy],
  )
})

test('an event queue wakes its reader at each event and when the queue ends', () => {
  let wakeUps = 0
  const setup = setUp()
  attachSink(
    setup.channel,
    createEventQueue(() => wakeUps++),
  )
  const cq = setup.newCq(1n)
  setup.notify(cq.handle, 0)
  completed(cq.events!, false)
  assert.equal(wakeUps, 1)
  closeContext(setup.context)
  assert.equal(wakeUps, 2)
  // a sink that is attached after the end of its context ends at once
  attachSink(
    setup.asyncFd,
    createEventQueue(() => wakeUps++),
  )
  assert.equal(wakeUps, 3)
})

test('an event that was read does not count against the next event of its source', () => {
  const element = (): Affiliation => ({ userHandle: 0n, route: noRoute, armed: Armed.NO, state: undefined })
  const [busy, early, late] = [element(), element(), element()]
  const queue = createEventQueue()
  const post = (source: Affiliation) => queue.post({ element: source, bytes: new Uint8Array(8), type: -1 })
  post(early)
  for (let i = 0; i < 65_536; i++) post(busy)
  post(late)
  assert.equal(queue.unread(), 65_537)
  assert.equal(queue.take(1)[0]?.element, early)
  post(early)
  assert.equal(queue.unread(), 65_537)
})
