/*
 * Event queues in the library (R38).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { EventQueue, QueuedEvent } from '../../../src/library/index.ts'
import { closeAll, completionText, eachCarrier, nextCompletion, pair, resourcesOn } from './endpoints.ts'

const nextQueued = async (queue: EventQueue): Promise<QueuedEvent> => {
  for await (const event of queue) return event
  throw new Error('the queue has ended')
}

eachCarrier(openTwo => {
  test('one queue accepts objects of several kinds, the device and a port; each event has its object', async () => {
    const { a, b } = await pair(openTwo)
    using events = b.device.eventQueue()
    const srq = b.pd.srq({ maxWr: 4 })
    const sources = [b.cq, b.qp, srq] as const
    for (const source of sources) events.attach(source)
    events.attach('device')
    events.attach({ port: 1 })
    assert.deepEqual(new Set(events.attached()), new Set([...sources, 'device', { port: 1 }]))

    b.qp.receive(b.mr.slice(0, 8), 5)
    b.cq.arm()
    a.qp.send(Uint8Array.of(1))
    assert.deepEqual(await nextQueued(events), { type: 'COMPLETION', source: b.cq, port: undefined })
    assert.equal(await completionText(b.cq), '5 RECV')

    srq.receive(b.mr.slice(0, 8), 1)
    srq.setLimit(2)
    const sender = a.pd.rcQp({ sendCq: a.cq })
    const receiver = b.pd.rcQp({ sendCq: b.cq, srq, peer: sender.endpoint })
    sender.connect(receiver.endpoint)
    sender.send(Uint8Array.of(2))
    assert.deepEqual(await nextQueued(events), { type: 'SRQ_LIMIT_REACHED', source: srq, port: undefined })
    // The CQ is not armed: this completion causes no event.
    assert.equal(await completionText(b.cq), '1 RECV')
    assert.equal(events.poll(), undefined)
    await closeAll(a, b)
  })

  test('`wait` of an attached completion queue resolves, and detaching discards unread events', async () => {
    const { a, b } = await pair(openTwo)
    using events = b.device.eventQueue()
    events.attach(b.cq)
    b.qp.receive(b.mr.slice(0, 8), 1)
    const first = nextCompletion(b.cq)
    a.qp.send(Uint8Array.of(1))
    assert.equal((await first).id, 1)
    events.detach(b.cq)
    assert.deepEqual(events.attached(), [])
    assert.equal(events.poll(), undefined)
    b.qp.receive(b.mr.slice(0, 8), 2)
    const second = nextCompletion(b.cq)
    a.qp.send(Uint8Array.of(1))
    assert.equal((await second).id, 2)
    await closeAll(a, b)
  })

  test('closing an object discards its unread events', async () => {
    const { a, b } = await pair(openTwo)
    using events = b.device.eventQueue()
    const cq = b.device.cq()
    const sender = a.pd.rcQp({ sendCq: a.cq })
    const receiver = b.pd.rcQp({ sendCq: cq, peer: sender.endpoint })
    sender.connect(receiver.endpoint)
    events.attach(cq)
    cq.arm()
    receiver.receive(b.mr.slice(0, 8), 1)
    sender.send(Uint8Array.of(1))
    // The event arrives, but is not taken.
    await events.wait()
    receiver.close()
    cq.close()
    assert.deepEqual(events.attached(), [])
    assert.equal(events.poll(), undefined)
    // The event of another source is the next one.
    events.attach(b.cq)
    b.cq.arm()
    b.qp.receive(b.mr.slice(0, 8), 2)
    a.qp.send(Uint8Array.of(2))
    assert.deepEqual(await nextQueued(events), { type: 'COMPLETION', source: b.cq, port: undefined })
    await closeAll(a, b)
  })

  test('after the close of the device a poll finds nothing', async () => {
    const [one, two] = await openTwo()
    const events = one.eventQueue()
    await one.close()
    // The carrier of a daemon checks the daemon at each 128th poll.
    for (let i = 0; i < 200; i++) assert.equal(events.poll(), undefined)
    assert.throws(() => events.attach('device'), { code: 'ERR_CLOSED' })
    await two.close()
  })

  test('invalid sources of attach and detach are refused with a message', async () => {
    const [one, two] = await openTwo()
    const a = resourcesOn(one)
    using events = a.device.eventQueue()
    using other = a.device.eventQueue()
    events.attach(a.cq)
    assert.throws(() => other.attach(a.cq), { code: 'EBUSY', class: 'event_queue', method: 'attach' })
    assert.throws(() => other.detach(a.cq), { code: 'ENOENT', method: 'detach' })
    assert.throws(() => events.attach(a.pd), { code: 'EINVAL', reason: /not an object of this device that has events/ })
    assert.throws(() => events.attach({ port: 9 }), { code: 'EINVAL', attribute: 'port', reason: /ports 1 to 1/ })
    const foreignCq = two.cq()
    assert.throws(() => events.attach(foreignCq), { code: 'EINVAL' })
    await closeAll(a, { device: two })
  })

  test('a wait ends when its signal is aborted, the queue is closed, or the device is closed', async () => {
    const [one, two] = await openTwo()
    const events = one.eventQueue()
    const stop = new AbortController()
    const aborted = assert.rejects(async () => {
      for await (const _ of events.arrivals({ signal: stop.signal })) assert.fail('nothing happens')
    }, /enough/)
    stop.abort(new Error('enough'))
    await aborted
    const closed = events.wait()
    events.close()
    await closed
    for await (const _ of events) assert.fail('it is closed')
    const otherEvents = two.eventQueue()
    const waiting = otherEvents.wait()
    await two.close()
    await waiting
    for await (const _ of otherEvents) assert.fail('the device is closed')
    await one.close()
  })
})
