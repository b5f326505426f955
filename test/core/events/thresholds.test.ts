/*
 * Thresholds of completion events (R36), in virtual time.
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
} from '../../../src/core/index.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { describeDevice, errnoOf, testCaller } from '../fixture.ts'

const { cq: Cq, comp_channel: CompChannel } = Classes

const setUp = () => {
  const clock = { now: 1000 }
  const core = createCore({ now: () => clock.now })
  const context = openContext(register(core, describeDevice('test0')), { isOpened: true })
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
  const notify = (handle: number, threshold: { count?: number; period?: number } = {}, solicitedOnly = 0) =>
    invokeNow(context, Cq, 'reqNotify', handle, { solicitedOnly, ...threshold }, caller)
  /** The number of events since the last call. */
  const events = () => queue.queue.splice(0).length
  const wait = (microseconds: number) => {
    clock.now += microseconds
    expire(core, clock.now)
  }
  return { core, context, caller, clock, newCq, set, notify, events, wait }
}

test('an event is raised after a number of completions', () => {
  const { core, newCq, set, notify, events } = setUp()
  const cq = newCq()
  set(cq.handle, { count: 3 })
  completed(cq.events!, false) // before the CQ is armed: does not count
  notify(cq.handle)
  for (const expected of [0, 0, 1, 0, 0]) {
    completed(cq.events!, false)
    assert.equal(events(), expected)
  }
  assert.equal(nextDue(core), Number.POSITIVE_INFINITY)
  // each arming counts from 0
  notify(cq.handle)
  for (const expected of [0, 0, 1]) {
    completed(cq.events!, false)
    assert.equal(events(), expected)
  }
})

test('an event is raised a period after the first completion, unless the count is reached earlier', () => {
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
  // no second event is raised at the end of the period
  wait(50)
  assert.equal(events(), 0)
  assert.equal(nextDue(core), Number.POSITIVE_INFINITY)
})

test('an arming may have its own threshold, and may count only solicited completions', () => {
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

test('later thresholds and armings of an armed CQ can only make its event earlier', () => {
  const { core, clock, newCq, set, notify, events, wait } = setUp()
  const cq = newCq()
  const { handle } = cq
  const complete = (times: number) => {
    for (let i = 0; i < times; i++) completed(cq.events!, false)
  }
  // the threshold is lowered to the current count, removed, or raised
  set(handle, { count: 10 })
  notify(handle)
  complete(5)
  set(handle, { count: 6 })
  assert.equal(events(), 0)
  set(handle, { count: 5 })
  assert.equal(events(), 1)
  notify(handle)
  complete(1)
  set(handle, { count: 0, period: 0 })
  assert.equal(events(), 1)
  notify(handle)
  set(handle, { count: 100 })
  complete(1)
  assert.equal(events(), 1)

  // a longer period has no effect, a shorter period makes the event earlier
  set(handle, { count: 0, period: 50 })
  notify(handle)
  complete(1)
  wait(20)
  notify(handle, { period: 90 })
  set(handle, { period: 40 })
  assert.equal(nextDue(core), clock.now + 20)
  wait(20)
  assert.equal(events(), 1)

  // a later arming has a higher threshold, or the earlier of two is only for solicited completions
  set(handle, { count: 0, period: 0 })
  notify(handle)
  notify(handle, { count: 3 })
  complete(1)
  assert.equal(events(), 1)
  notify(handle, { count: 3 })
  complete(2)
  notify(handle, { count: 3 }, 1)
  notify(handle, { count: 30 })
  complete(1)
  assert.equal(events(), 1)
})

test('a CQ has at most one deadline, a destroyed CQ none', () => {
  const { core, context, caller, newCq, set, notify, events } = setUp()
  const [cq, otherCq] = [newCq(), newCq()]
  for (const { handle } of [cq, otherCq]) set(handle, { count: 3, period: 1000 })
  for (let i = 0; i < 5; i++) {
    for (const { handle } of [cq, otherCq]) notify(handle)
    for (const source of [cq, otherCq, cq]) completed(source.events!, false)
    set(cq.handle, { period: 500 })
    assert.deepEqual(
      core.deadlines.map(deadline => deadline.events === cq.events),
      [true, false],
    )
    for (const source of [otherCq, cq, otherCq]) completed(source.events!, false)
    assert.equal(events(), 2)
    set(cq.handle, { period: 1000 })
  }
  invokeNow(context, Cq, 'destroy', cq.handle, {}, caller)
  assert.deepEqual(
    core.deadlines.map(deadline => deadline.events === otherCq.events),
    [true],
  )
})

test('setting and canceling a deadline visits few of very many later deadlines', () => {
  const { core, context, caller, newCq, set, notify, events, wait } = setUp()
  const [cq, otherCq] = [newCq(), newCq()]
  let reads = 0
  for (let i = 0; i < 10_000; i++)
    core.deadlines.push({
      get due() {
        reads++
        return 1e9
      },
      events: otherCq.events!,
    })
  set(cq.handle, { period: 10 })
  for (let i = 0; i < 10; i++) {
    notify(cq.handle)
    completed(cq.events!, false)
    wait(10)
    assert.equal(events(), 1)
  }
  notify(cq.handle)
  completed(cq.events!, false)
  invokeNow(context, Cq, 'destroy', cq.handle, {}, caller)
  assert.ok(reads < 1000, `${reads} reads`)
  assert.equal(core.deadlines.length, 10_000)
})

test('a destroyed CQ raises no event', () => {
  const { context, caller, newCq, set, notify, events, wait } = setUp()
  const cq = newCq()
  set(cq.handle, { period: 50 })
  notify(cq.handle)
  completed(cq.events!, false)
  invokeNow(context, Cq, 'destroy', cq.handle, {}, caller)
  wait(1000)
  assert.equal(events(), 0)
})

test('core refuses to resize a CQ', () => {
  const { newCq, set } = setUp()
  assert.equal(
    errnoOf(() => set(newCq().handle, { cqe: 8 })),
    'EOPNOTSUPP',
  )
})

test('a CQ with several armings and thresholds raises its event when the first threshold is reached', () => {
  const threshold = fc.record({ count: fc.nat(4), period: fc.nat(60) })
  const step = fc.oneof(
    fc.record({ wait: fc.nat(40) }),
    fc.record({ complete: fc.nat(2) }),
    fc.record({ arm: fc.option(threshold) }),
    fc.record({ set: threshold }),
  )
  /** A CQ: its threshold, the thresholds of its armings, and the completion times since the first arming. */
  const model = () => ({
    threshold: { count: 0, period: 0 },
    armings: [] as { count: number; period: number }[],
    completionTimes: [] as number[],
  })
  type Model = ReturnType<typeof model>
  const isDue = ({ armings, completionTimes }: Model, now: number): boolean =>
    completionTimes.length > 0 &&
    armings.some(({ count, period }) => {
      const hasNoThreshold = count === 0 && period === 0
      const isCountReached = count > 0 && completionTimes.length >= count
      const isPeriodOver = period > 0 && completionTimes[0] + period <= now
      return hasNoThreshold || isCountReached || isPeriodOver
    })
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(2), step), { maxLength: 60, size: 'max' }), steps => {
      const { clock, newCq, set, notify, events, wait } = setUp()
      const cqs = [newCq(), newCq(), newCq()]
      const models = cqs.map(model)
      let expected = 0
      const expectIfDue = (cqModel: Model): void => {
        if (!isDue(cqModel, clock.now)) return
        expected++
        Object.assign(cqModel, { armings: [], completionTimes: [] })
      }
      for (const [index, action] of steps) {
        const cqModel = models[index]
        const { handle, events: source } = cqs[index]
        if ('wait' in action) wait(action.wait)
        else if ('set' in action) {
          set(handle, action.set)
          cqModel.threshold = action.set
          if (cqModel.armings.length > 0) cqModel.armings.push(action.set)
        } else if ('arm' in action) {
          notify(handle, action.arm ?? {})
          cqModel.armings.push(action.arm ?? cqModel.threshold)
        } else
          for (let i = 0; i < action.complete; i++) {
            completed(source!, false)
            if (cqModel.armings.length > 0) cqModel.completionTimes.push(clock.now)
            expectIfDue(cqModel)
          }
        // `wait` raises the events whose period is over
        wait(0)
        for (const each of models) expectIfDue(each)
        assert.equal(events(), expected)
        expected = 0
      }
    }),
    { numRuns: 500 },
  )
})
