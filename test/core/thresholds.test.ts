/*
 * Thresholds of completion events (R36), in virtual time: so many completions, or so many microseconds, whichever comes
 * first, without anything of the driver.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  attachSink,
  completed,
  createCore,
  createEventQueue,
  expire,
  invokeNow,
  nextDue,
  openContext,
  register,
} from '../../src/core/index.ts'
import { Classes } from '../../src/spec/classes.ts'
import { describeDevice, errnoOf, testCaller } from './fixture.ts'

const { cq: Cq, comp_channel: CompChannel } = Classes

const setUp = () => {
  const clock = { now: 1000 }
  const core = createCore({ now: () => clock.now })
  const context = openContext(register(core, describeDevice('test0')), { opened: true })
  const caller = testCaller()
  const fd = invokeNow(context, CompChannel, 'create', 0, {}, caller).descriptors![0].object
  caller.fds.set(fd, fd)
  const queue = createEventQueue()
  attachSink(core.descriptors.get(fd)!, queue)
  const newCq = () => {
    const args = { cqe: 4, userHandle: 1n, compVector: 0, channel: fd }
    return context.handles.slots[invokeNow(context, Cq, 'create', 0, args, caller).object!]!
  }
  const set = (handle: number, args: { count?: number; period?: number; cqe?: number }) =>
    invokeNow(context, Cq, 'modify', handle, args, caller)
  const notify = (handle: number, more: { count?: number; period?: number } = {}, solicitedOnly = 0) =>
    invokeNow(context, Cq, 'reqNotify', handle, { solicitedOnly, ...more }, caller)
  /** How many events came since it was asked last. */
  const events = () => queue.queue.splice(0).length
  const wait = (microseconds: number) => {
    clock.now += microseconds
    expire(core, clock.now)
  }
  return { core, context, caller, clock, newCq, set, notify, events, wait }
}

test('an event comes after so many completions', () => {
  const { core, newCq, set, notify, events } = setUp()
  const cq = newCq()
  set(cq.handle, { count: 3 })
  completed(cq.events!, false)
  notify(cq.handle)
  for (const expected of [0, 0, 1, 0, 0]) {
    completed(cq.events!, false)
    assert.equal(events(), expected)
  }
  assert.equal(nextDue(core), Number.POSITIVE_INFINITY)
  // Counting begins with the arming.
  notify(cq.handle)
  for (const expected of [0, 0, 1]) {
    completed(cq.events!, false)
    assert.equal(events(), expected)
  }
})

test('or so many microseconds after the first of them, whichever comes first', () => {
  const { core, clock, newCq, set, notify, events, wait } = setUp()
  const cq = newCq()
  set(cq.handle, { count: 2, period: 50 })
  notify(cq.handle)
  wait(500)
  assert.equal(nextDue(core), Number.POSITIVE_INFINITY)
  completed(cq.events!, false)
  assert.equal(nextDue(core), clock.now + 50)
  wait(49)
  assert.equal(events(), 0)
  wait(1)
  assert.equal(events(), 1)
  assert.equal(nextDue(core), Number.POSITIVE_INFINITY)
  notify(cq.handle)
  completed(cq.events!, false)
  completed(cq.events!, false)
  assert.equal(events(), 1)
  // The time of the event that came by count is over without another one.
  wait(50)
  assert.equal(events(), 0)
  assert.equal(nextDue(core), Number.POSITIVE_INFINITY)
})

test('one arming may have a threshold of its own, and only solicited completions may count', () => {
  const { newCq, notify, events } = setUp()
  const cq = newCq()
  notify(cq.handle, { count: 2 }, 1)
  completed(cq.events!, true)
  completed(cq.events!, false)
  assert.equal(events(), 0)
  completed(cq.events!, true)
  assert.equal(events(), 1)
  notify(cq.handle)
  completed(cq.events!, false)
  assert.equal(events(), 1)
})

test('a threshold that is taken away, or changed while armed, holds at once', () => {
  const { newCq, set, notify, events } = setUp()
  const cq = newCq()
  set(cq.handle, { count: 100, period: 1000 })
  notify(cq.handle)
  completed(cq.events!, false)
  set(cq.handle, { count: 0, period: 0 })
  completed(cq.events!, false)
  assert.equal(events(), 1)
})

test('a queue that goes leaves no event behind; its driver resizes, core does not', () => {
  const { context, caller, newCq, set, notify, events, wait } = setUp()
  const cq = newCq()
  set(cq.handle, { period: 50 })
  notify(cq.handle)
  completed(cq.events!, false)
  invokeNow(context, Cq, 'destroy', cq.handle, {}, caller)
  wait(1000)
  assert.equal(events(), 0)
  assert.equal(
    errnoOf(() => set(newCq().handle, { cqe: 8 })),
    'EOPNOTSUPP',
  )
})

test('any completions at any times: events are those that the definition gives', () => {
  const step = fc.oneof(fc.record({ wait: fc.nat(40) }), fc.record({ complete: fc.nat(2) }), fc.constant({ arm: 1 }))
  fc.assert(
    fc.property(
      fc.nat(4),
      fc.nat(60),
      fc.array(fc.tuple(fc.nat(2), step), { maxLength: 60 }),
      (count, period, steps) => {
        const { clock, newCq, set, notify, events, wait } = setUp()
        const cqs = [newCq(), newCq(), newCq()]
        for (const { handle } of cqs) set(handle, { count, period })
        const model = cqs.map(() => ({ armed: false, seen: 0, due: Number.POSITIVE_INFINITY }))
        let expected = 0
        const fire = (one: (typeof model)[number]) => {
          expected++
          one.armed = false
          one.due = Number.POSITIVE_INFINITY
        }
        for (const [which, what] of steps) {
          const one = model[which]
          if ('wait' in what) {
            wait(what.wait)
            for (const each of model) if (each.due <= clock.now) fire(each)
          } else if ('arm' in what) {
            notify(cqs[which].handle)
            Object.assign(one, { armed: true, seen: 0, due: Number.POSITIVE_INFINITY })
          } else
            for (let i = 0; i < what.complete; i++) {
              completed(cqs[which].events!, false)
              if (!one.armed) continue
              one.seen++
              if ((count === 0 && period === 0) || (count > 0 && one.seen >= count)) fire(one)
              else if (one.seen === 1 && period > 0) one.due = clock.now + period
            }
          assert.equal(events(), expected)
          expected = 0
        }
      },
    ),
    { numRuns: 200 },
  )
})
