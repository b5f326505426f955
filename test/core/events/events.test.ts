/*
 * Completion events and asynchronous events (R34, R35, R37).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { armedFor, noRoute, setThreshold, shareArming } from '../../../src/core/events/events.ts'
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
import { ArmWord } from '../../../src/spec/context-logs.ts'
import { AsyncEventType } from '../../../src/spec/enums.ts'
import { cap, errnoOf, install, openTestDevice } from '../fixture.ts'

const { pd: Pd, cq: Cq, rc_qp: RcQp, comp_channel: CompChannel, async_fd: AsyncFd } = Classes
const { CQ_ERR, COMM_EST, QP_ACCESS_ERR, DEVICE_FATAL, PORT_ACTIVE, PORT_ERR } = AsyncEventType.values

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
  const notify = (handle: number, completions: 'any' | 'solicited') =>
    invokeNow(context, Cq, 'reqNotify', handle, { solicitedOnly: completions === 'solicited' ? 1 : 0 }, caller)
  const destroy = (handle: number) => ({ ...invokeNow(context, Cq, 'destroy', handle, {}, caller).out })
  return { ...setup, asyncFd, channel, newCq, notify, destroy }
}
/** Whether a completion is solicited. */
const [SOLICITED, UNSOLICITED] = [true, false]
/** With so many events in a queue, an event is dropped if one of the same source and type is queued. */
const MAX_UNREAD = 65_536
const readAll = (fd: FdObject) => readEvents(fd, Number.POSITIVE_INFINITY)
const hex = (events: readonly EventRecord[]) => events.map(({ bytes }) => Buffer.from(bytes).toString('hex'))
/** The bytes of struct ib_uverbs_async_event_desc: element (8 bytes), event type, reserved. */
const asyncEvent = (element: bigint, type: number): string => {
  const bytes = Buffer.alloc(16)
  bytes.writeBigUInt64LE(element, 0)
  bytes.writeUInt32LE(type, 8)
  return bytes.toString('hex')
}
const readError = (fd: FdObject) => errnoOf(() => readEvents(fd))

test('an armed CQ raises one event for the next completion (R35)', () => {
  const { channel, newCq, notify } = setUp()
  const cq = newCq(0x1122334455667788n)
  completed(cq.events!, SOLICITED)
  assert.equal(readError(channel), 'EAGAIN')
  notify(cq.handle, 'any')
  completed(cq.events!, UNSOLICITED)
  completed(cq.events!, SOLICITED)
  assert.deepEqual(hex(readAll(channel)), ['8877665544332211'])
  assert.equal(readError(channel), 'EAGAIN')
})

test('a program arms a CQ by its word as by a call, until the CQ has a threshold or is destroyed', () => {
  const { context, channel, newCq, notify, destroy } = setUp()
  const words = new Int32Array(2)
  Object.assign(context, { mapped: { armWord: () => ({ words, at: 1 }) } })
  const cq = newCq(1n)
  const events = cq.events!
  shareArming(cq)
  const raised = (...solicited: boolean[]): number => {
    for (const isSolicited of solicited) completed(events, isSolicited)
    return channel.sink.unread()
  }
  /** Stores `word`; returns the event counts after two completions. */
  const after = (word: number): number[] => {
    words[1] = word
    const counts = [raised(UNSOLICITED), raised(SOLICITED)]
    channel.sink.take(Number.POSITIVE_INFINITY)
    return counts
  }
  assert.deepEqual(after(ArmWord.NEXT), [1, 1])
  assert.equal(words[1], ArmWord.IDLE)
  assert.deepEqual(after(ArmWord.SOLICITED), [0, 1])
  for (const garbage of [ArmWord.NONE, ArmWord.IDLE, 4, 2 ** 31 - 1, -1]) assert.deepEqual(after(garbage), [0, 0])
  // A weaker arming by either way does not weaken the other.
  notify(cq.handle, 'any')
  assert.deepEqual(after(ArmWord.SOLICITED), [1, 1])
  words[1] = ArmWord.SOLICITED
  assert.equal(armedFor(events), Armed.SOLICITED)
  assert.deepEqual(after(ArmWord.NEXT), [1, 1])
  words[1] = ArmWord.NEXT
  setThreshold(cq, 1, undefined)
  assert.equal(words[1], ArmWord.NONE)
  assert.deepEqual(after(ArmWord.NEXT), [1, 1], 'the arming before the threshold')
  assert.deepEqual(after(ArmWord.NEXT), [0, 0])

  const other = newCq(2n)
  shareArming(other)
  assert.equal(words[1], ArmWord.IDLE)
  destroy(other.handle)
  assert.equal(words[1], ArmWord.NONE)
  assert.equal(words[0], 0)
})

test('a CQ that is armed only for solicited completions ignores other completions', () => {
  const { channel, newCq, notify } = setUp()
  const cq = newCq(1n)
  notify(cq.handle, 'solicited')
  completed(cq.events!, UNSOLICITED)
  assert.equal(readError(channel), 'EAGAIN')
  completed(cq.events!, SOLICITED)
  assert.equal(readAll(channel).length, 1)
  notify(cq.handle, 'any')
  notify(cq.handle, 'solicited')
  completed(cq.events!, UNSOLICITED)
  assert.equal(readAll(channel).length, 1, 'the second arming does not replace the first')
})

test('a destroy counts the read events and drops the unread events', () => {
  const { channel, newCq, notify, destroy } = setUp()
  const [firstCq, secondCq] = [newCq(5n), newCq(5n)]
  for (const cq of [firstCq, secondCq, firstCq, firstCq]) {
    notify(cq.handle, 'any')
    completed(cq.events!, UNSOLICITED)
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
  const createQp = (args: { userHandle: bigint; asyncFd?: number }) => {
    const { object } = invokeNow(context, RcQp, 'create', 0, { pd: 1, sendCq: 0, recvCq: 0, cap, ...args }, caller)
    return context.handles.slots[object!]!
  }
  const qp = createQp({ userHandle: 0xdefn, asyncFd: second.handle })
  raiseObjectEvent(cq, CQ_ERR)
  raiseObjectEvent(qp, COMM_EST)
  raiseObjectEvent(qp, QP_ACCESS_ERR)
  const otherQp = createQp({ userHandle: 0x123n })
  raiseObjectEvent(otherQp, COMM_EST)
  assert.deepEqual(hex(readAll(asyncFd)), [asyncEvent(0xabcn, CQ_ERR), asyncEvent(0x123n, COMM_EST)])
  invokeNow(context, RcQp, 'destroy', otherQp.handle, {}, caller)
  assert.deepEqual(hex(readEvents(second, 1)), [asyncEvent(0xdefn, COMM_EST)])
  assert.deepEqual({ ...invokeNow(context, RcQp, 'destroy', qp.handle, {}, caller).out }, { events: 1 })
  assert.equal(readError(second), 'EAGAIN')
  assert.deepEqual(destroy(cq.handle), { compEvents: 0, asyncEvents: 1 })
})

test('events of a port go to every async fd of its device', () => {
  const setup = setUp()
  const otherContext = openContext(setup.device, { isOpened: true })
  const otherFd = install(setup, invokeNow(otherContext, AsyncFd, 'create', 0, {}, setup.caller))
  raisePort(setup.device, 1, PORT_ACTIVE)
  for (const fd of [setup.asyncFd, otherFd])
    assert.deepEqual(hex(readAll(fd)), ['0100000000000000' + '09000000' + '00000000'], 'port, event type, reserved')
  assert.equal(readError(setup.channel), 'EAGAIN')
})

test('device removal raises DEVICE_FATAL on the async fd, and later reads fail with EIO', () => {
  const { device, asyncFd, channel, newCq, notify } = setUp()
  const cq = newCq(1n)
  notify(cq.handle, 'any')
  unregister(device)
  assert.deepEqual(hex(readAll(asyncFd)), [asyncEvent(0n, DEVICE_FATAL)])
  assert.equal(readError(asyncFd), 'EIO')
  assert.equal(readError(channel), 'EIO')
})

test('device removal discards unread events of objects, but not of ports', () => {
  const { device, asyncFd, channel, newCq } = setUp()
  const cq = newCq(1n)
  const fire = () => {
    const solicitedOnly = false
    arm(cq, solicitedOnly)
    completed(cq.events!, UNSOLICITED)
  }
  fire()
  raisePort(device, 1, PORT_ERR)
  raiseObjectEvent(cq, CQ_ERR)
  // events raised during the removal are not delivered either
  registerClient(device.core, {
    name: 'busy',
    add() {},
    remove() {
      fire()
      raiseObjectEvent(cq, CQ_ERR)
    },
  })
  unregister(device)
  assert.deepEqual(hex(readAll(asyncFd)), [asyncEvent(1n, PORT_ERR), asyncEvent(0n, DEVICE_FATAL)])
  assert.equal(readError(channel), 'EIO')
})

test('a closed descriptor gets no events; its unread events do not count as read', () => {
  const { core, channel, newCq, notify, destroy } = setUp()
  const cq = newCq(1n)
  for (let i = 0; i < 3; i++) {
    notify(cq.handle, 'any')
    completed(cq.events!, UNSOLICITED)
  }
  readEvents(channel)
  closeDescriptor(core, channel.handle)
  notify(cq.handle, 'any')
  completed(cq.events!, UNSOLICITED)
  assert.deepEqual(destroy(cq.handle), { compEvents: 1, asyncEvents: 0 })
})

test('after its context is closed an async fd still has events of ports, but not of objects', () => {
  const { context, device, asyncFd, newCq } = setUp()
  raiseObjectEvent(newCq(1n), CQ_ERR)
  raisePort(device, 1, PORT_ERR)
  closeContext(context)
  assert.deepEqual(
    readAll(asyncFd).map(({ type }) => type),
    [PORT_ERR],
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
    notify(handle, 'any')
    completed(events!, UNSOLICITED)
  }
  assert.deepEqual(destroy(withoutEvents!.handle), { compEvents: 0, asyncEvents: 0 })
  assert.deepEqual(destroy(withEvents[0]!.handle), { compEvents: 1, asyncEvents: 0 })
  closeDescriptor(core, channel.handle)
  assert.deepEqual(destroy(withEvents[1]!.handle), { compEvents: 1, asyncEvents: 0 })
  assert.deepEqual(
    queried,
    [withEvents[0]!.events, Number.POSITIVE_INFINITY],
    'withdraw of a destroy, take of the close',
  )
})

test('an attached sink gets the queued events, and a destroy withdraws undelivered events from the sink', () => {
  const { context, channel, newCq, notify, destroy } = setUp()
  const cq = newCq(1n)
  const fire = () => {
    notify(cq.handle, 'any')
    completed(cq.events!, UNSOLICITED)
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
    notify(cq.handle, 'any')
    completed(cq.events!, UNSOLICITED)
  }
  for (let i = 0; i < MAX_UNREAD + 64; i++) fire(busy)
  fire(late)
  const events = readAll(channel)
  assert.equal(events.length, MAX_UNREAD + 1)
  assert.equal(events.at(-1)?.element, late.events)
  assert.deepEqual(destroy(busy.handle), { compEvents: MAX_UNREAD, asyncEvents: 0 })
})

test('events that an attached sink has not delivered move to the next sink', () => {
  const { channel, newCq } = setUp()
  const [first, second] = [createEventQueue(), createEventQueue()]
  const cq = newCq(1n)
  const solicitedOnly = false
  arm(cq, solicitedOnly)
  completed(cq.events!, UNSOLICITED)
  attachSink(channel, first)
  attachSink(channel, second)
  assert.deepEqual([first.take(9).length, second.take(9).length], [0, 1])
})

test('the number of unread events of a port is bounded', () => {
  const { device, asyncFd } = setUp()
  for (let i = 0; i < MAX_UNREAD + 64; i++) raisePort(device, 1, PORT_ERR)
  raisePort(device, 1, PORT_ACTIVE)
  const events = readAll(asyncFd)
  assert.equal(events.length, MAX_UNREAD + 1)
  assert.equal(events.at(-1)?.type, PORT_ACTIVE)
})

const element = (): Affiliation => ({
  userHandle: 0n,
  route: noRoute,
  armed: Armed.NO,
  wasArmed: false,
  state: undefined,
})

test('a queue with very many events is not searched for each new event', () => {
  const [busy, late] = [element(), element()]
  let reads = 0
  const eventOf = (source: Affiliation): EventRecord => ({
    get element() {
      reads++
      return source
    },
    bytes: new Uint8Array(8),
    type: -1,
  })
  const queue = createEventQueue()
  for (let i = 0; i < MAX_UNREAD; i++) queue.post(eventOf(busy))
  reads = 0
  for (let i = 0; i < 100; i++) queue.post(eventOf(late))
  assert.ok(reads < 3 * MAX_UNREAD, `${reads} reads`)
  assert.equal(queue.unread(), MAX_UNREAD + 1)
})

/** A queue, and a function that posts events to it. */
const postQueue = () => {
  const queue = createEventQueue()
  const post = (source: Affiliation, { count = 1, type = -1 } = {}): void => {
    for (let i = 0; i < count; i++) queue.post({ element: source, bytes: new Uint8Array(8), type })
  }
  return { queue, post }
}

test('a full queue takes one event of each type of another source, until this event is withdrawn', () => {
  const [busy, late] = [element(), element()]
  const { queue, post } = postQueue()
  post(busy, { count: MAX_UNREAD })
  post(late, { count: 2 })
  assert.equal(queue.unread(), MAX_UNREAD + 1)
  post(late, { type: 3 })
  assert.equal(queue.unread(), MAX_UNREAD + 2)
  assert.equal(queue.withdraw(late).length, 2)
  post(late)
  assert.equal(queue.unread(), MAX_UNREAD + 1)
})

test('a queue drops events at the limit, and takes events of all sources below it', () => {
  const [busy, late] = [element(), element()]
  const { queue, post } = postQueue()
  post(busy, { count: MAX_UNREAD })
  post(late)
  queue.take(1)
  post(busy)
  assert.equal(queue.unread(), MAX_UNREAD, 'dropped at the limit')
  queue.take(MAX_UNREAD - 10)
  post(busy)
  assert.equal(queue.unread(), 11, '9 of busy, 1 of late, 1 of busy')
  post(late, { count: MAX_UNREAD })
  assert.equal(queue.unread(), MAX_UNREAD)
  assert.equal(queue.take(10).at(-1)?.element, late)
  assert.equal(queue.withdraw(late).length, MAX_UNREAD - 11)
  assert.deepEqual(
    queue.take(MAX_UNREAD).map(event => event.element),
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
  setup.notify(cq.handle, 'any')
  completed(cq.events!, UNSOLICITED)
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
  const [busy, early, late] = [element(), element(), element()]
  const { queue, post } = postQueue()
  post(early)
  post(busy, { count: MAX_UNREAD })
  post(late)
  assert.equal(queue.unread(), MAX_UNREAD + 1)
  assert.equal(queue.take(1)[0]?.element, early)
  post(early)
  assert.equal(queue.unread(), MAX_UNREAD + 1)
})
