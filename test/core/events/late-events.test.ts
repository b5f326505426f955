/*
 * Events that a fault rule delays or repeats: order, counts and withdrawal.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { createEventQueue } from '../../../src/core/events/events.ts'
import { postLate } from '../../../src/core/events/late-events.ts'
import { type Affiliation, Armed, type EventRecord, type FdObject } from '../../../src/core/model.ts'

const elementOf = (): Affiliation => ({
  userHandle: 0n,
  route: { channel: undefined, asyncFd: undefined, handlers: undefined },
  armed: Armed.NO,
  wasArmed: false,
  state: undefined,
})
const eventOf = (element: Affiliation, number: number): EventRecord => ({
  element,
  bytes: Uint8Array.of(number),
  type: number,
})

/** A descriptor, and a clock whose waits end by `pass`. */
const stage = () => {
  const fd = { sink: createEventQueue(), isClosed: false } as unknown as FdObject
  let waits: { due: number; resolve: () => void }[] = []
  let time = 0
  const delays = {
    decide: () => undefined,
    wait: (milliseconds: number) =>
      new Promise<void>(resolve => void waits.push({ due: time + milliseconds, resolve })),
  }
  return {
    fd,
    delays,
    post(event: EventRecord, delay: number, again = 0) {
      postLate(fd, event, { delay, again, turn: 0 }, delays, () => fd.sink.post(event))
    },
    async pass(milliseconds: number) {
      time += milliseconds
      for (const { resolve } of waits.filter(({ due }) => due <= time)) resolve()
      waits = waits.filter(({ due }) => due > time)
      await new Promise(resolve => void setImmediate(resolve))
    },
    read: () => fd.sink.take(10).map(({ type }) => type),
  }
}

it('later events wait for a delayed one, and all count as unread', async () => {
  const { fd, post, pass, read } = stage()
  const element = elementOf()
  post(eventOf(element, 1), 20)
  fd.sink.post(eventOf(element, 2))
  assert.deepEqual([fd.sink.unread(), read()], [2, []])
  await pass(20)
  fd.sink.post(eventOf(element, 3))
  assert.deepEqual(read(), [1, 2, 3])
})

it('an event that skips a turn comes later, unless the thread has read it', async () => {
  for (const isRead of [false, true]) {
    const { fd, pass, read, delays } = stage()
    const skipped: number[] = []
    Object.assign(fd.sink, {
      skipTurn({ type }: EventRecord) {
        skipped.push(type)
        return isRead
      },
    })
    const element = elementOf()
    postLate(fd, eventOf(element, 1), { delay: 0, again: 0, turn: 20 }, delays, () => {})
    fd.sink.post(eventOf(element, 2))
    await pass(0)
    assert.deepEqual([skipped, read()], [[1], isRead ? [2] : []])
    await pass(20)
    assert.deepEqual(read(), isRead ? [] : [1, 2])
  }
})

it('an event comes again, unless its object is gone meanwhile', async () => {
  const { fd, post, pass, read } = stage()
  const [one, other] = [elementOf(), elementOf()]
  post(eventOf(one, 1), 0, 5)
  post(eventOf(other, 2), 0, 5)
  assert.deepEqual(read(), [1, 2])
  fd.sink.withdraw(one)
  await pass(5)
  assert.deepEqual(read(), [2])
})

it('held events are withdrawn with their object, and are given out when the descriptor ends', async () => {
  const { fd, post, pass } = stage()
  const [one, other] = [elementOf(), elementOf()]
  post(eventOf(one, 1), 20)
  post(eventOf(other, 2), 20)
  assert.deepEqual(
    fd.sink.withdraw(one).map(({ type }) => type),
    [1],
  )
  fd.sink.end()
  assert.deepEqual(
    fd.sink.take(Number.POSITIVE_INFINITY).map(({ type }) => type),
    [2],
  )
  await pass(20)
  assert.equal(fd.sink.unread(), 0)
})
