/*
 * The daemon's loop: polls, parking, timers, turns of the event loop.
 */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { ScanScope } from '../../src/core/driver-contract.ts'
import { storeProducer } from '../../src/core/memory/rings.ts'
import { Loop, type Pollable } from '../../src/daemon/loop.ts'
import { createReceiveQueue } from '../../src/drivers/rings/receive-queue.ts'
import { createSendQueue } from '../../src/drivers/rings/send-queue.ts'
import { createPostScan, SLICE_ROWS } from '../../src/drivers/soft/posts.ts'
import { nowMicroseconds } from '../../src/host/event-loop/clock.ts'
import { ParkedPage } from '../../src/spec/session.ts'
import type { Engine } from '../../src/transport/engine/engine.ts'
import { testRings } from '../drivers/rxe/provider.ts'

const setUp = (device: Pollable, onTurn?: () => void): { loop: Loop; parked: () => number } => {
  const words = new Int32Array(ParkedPage.bytes / 4)
  const loop = new Loop(words, [device], onTurn)
  return { loop, parked: () => words[ParkedPage.PARKED] }
}

/** Stops the clock of the loop; returns a function that advances the clock. */
const stopClock = (t: TestContext): ((microseconds: number) => void) => {
  let now = performance.now()
  t.mock.method(performance, 'now', () => now)
  return microseconds => {
    now += microseconds / 1000
  }
}

test('the loop is parked at the start, awake while there is work, and parked when idle', async () => {
  /** The parked word at each poll. */
  const parkedWords: number[] = []
  const { loop, parked } = setUp({
    poll: () => {
      parkedWords.push(parked())
      return parkedWords.length < 3
    },
    nextTimeout: () => Number.POSITIVE_INFINITY,
  })
  assert.equal(parked(), 1)
  loop.kick()
  // On a busy machine a slice may end early.
  while (parked() === 0) await new Promise(setImmediate)
  assert.deepEqual(parkedWords.slice(0, 3), [0, 0, 0])
  // The last poll follows the write of the parked word, and finds late posts.
  assert.equal(parkedWords.at(-1), 1)
  assert.deepEqual(
    parkedWords.slice(0, -1).filter(word => word === 1),
    [],
  )
  loop.stop()
})

test('the loop continues unparked if its poll after parking finds work', t => {
  const advanceClock = stopClock(t)
  let latePosts = 0
  /** The parked word at each poll. */
  const parkedWords: number[] = []
  const { loop, parked } = setUp({
    poll: () => {
      advanceClock(1)
      parkedWords.push(parked())
      // A program that has read the old parked word posts while the loop parks.
      if (parked() === 1 && latePosts < 2) {
        latePosts++
        return true
      }
      return false
    },
    nextTimeout: () => Number.POSITIVE_INFINITY,
  })
  loop.kick()
  assert.equal(latePosts, 2)
  assert.equal(parkedWords.filter(word => word === 1).length, 3)
  for (let i = 0; i < parkedWords.length - 1; i++)
    if (parkedWords[i] === 1) assert.equal(parkedWords[i + 1], 0, 'awake again')
  assert.equal(parked(), 1)
  loop.stop()
})

test('the loop parks even if a deadline is near or past', t => {
  const advanceClock = stopClock(t)
  for (const due of [100, 0, -1000]) {
    const begin = nowMicroseconds()
    let polls = 0
    const { loop, parked } = setUp({
      poll: () => {
        advanceClock(1)
        assert.ok(++polls <= 2, 'the loop does not poll until the deadline')
        return false
      },
      nextTimeout: () => begin + due,
    })
    loop.kick()
    assert.equal(parked(), 1)
    loop.stop()
  }
})

test('a kick from within the loop, or after stop, has no effect', () => {
  let polls = 0
  const { loop } = setUp({
    poll: () => {
      polls++
      loop.kick()
      return false
    },
    nextTimeout: () => Number.POSITIVE_INFINITY,
  })
  loop.kick()
  const after = polls
  loop.stop()
  loop.kick()
  assert.equal(polls, after)
})

test('a busy loop is never parked, and lets the event loop run', async () => {
  let isBusy = true
  let polls = 0
  const { loop, parked } = setUp({
    poll: () => {
      polls++
      return isBusy
    },
    nextTimeout: () => Number.POSITIVE_INFINITY,
  })
  loop.kick()
  for (let turns = 0; turns < 5; turns++) {
    assert.equal(parked(), 0, 'no doorbell rings while it is busy')
    assert.equal(loop.isAwake, true)
    const before = polls
    await new Promise(done => setImmediate(done))
    assert.ok(polls > before, 'it continues by itself')
  }
  isBusy = false
  await new Promise(done => setImmediate(done))
  assert.equal(parked(), 1)
  const idlePolls = polls
  await new Promise(done => setImmediate(done))
  assert.equal(polls, idlePolls, 'and is then idle')
  assert.equal(loop.isAwake, false)
  loop.stop()
})

test('a busy loop polls for 500 µs before it lets the event loop run', t => {
  const advanceClock = stopClock(t)
  let polls = 0
  const { loop } = setUp({
    poll: () => {
      advanceClock(1)
      assert.ok(++polls < 1000, 'the loop does not return')
      return true
    },
    nextTimeout: () => Number.POSITIVE_INFINITY,
  })
  loop.kick()
  assert.ok(polls >= 500 && polls < 550, `${polls} polls of 1 µs in a slice`)
  loop.stop()
})

test('the event loop runs even if every poll after parking finds work', async t => {
  const advanceClock = stopClock(t)
  let isBusy = true
  let polls = 0
  const { loop, parked } = setUp({
    poll: () => {
      // The loop polls for about 20 µs before it parks.
      advanceClock(1)
      assert.ok(++polls < 1000, 'the loop does not return')
      return isBusy && parked() === 1
    },
    nextTimeout: () => Number.POSITIVE_INFINITY,
  })
  for (let slices = 0; slices < 5; slices++) {
    polls = 0
    if (slices === 0) loop.kick()
    else await new Promise(setImmediate)
    assert.ok(polls >= 500 && polls < 550, `${polls} polls of 1 µs in a slice`)
    assert.equal(parked(), 0)
  }
  isBusy = false
  await new Promise(setImmediate)
  assert.equal(parked(), 1)
  loop.stop()
})

test('a kick between two slices leaves the work to the next slice', async () => {
  let isBusy = true
  let polls = 0
  const { loop, parked } = setUp({
    poll: () => {
      polls++
      return isBusy
    },
    nextTimeout: () => Number.POSITIVE_INFINITY,
  })
  loop.kick()
  const before = polls
  isBusy = false
  loop.kick()
  assert.deepEqual([polls, parked(), loop.isAwake], [before, 0, true])
  await new Promise(setImmediate)
  assert.ok(polls > before)
  assert.deepEqual([parked(), loop.isAwake], [1, false])
  loop.stop()
})

test('a device’s timer calls the device, also after a change to an earlier deadline', async () => {
  let due = Number.POSITIVE_INFINITY
  let fired = (): void => {}
  const { loop } = setUp({
    poll: now => {
      if (now < due) return false
      due = Number.POSITIVE_INFINITY
      fired()
      return true
    },
    nextTimeout: () => due,
  })
  const wait = (microseconds: number): Promise<void> =>
    new Promise(done => {
      fired = done
      due = nowMicroseconds() + microseconds
      loop.kick()
    })
  await wait(3000)
  // The timer is set to an hour, then to 2 ms.
  due = nowMicroseconds() + 3600e6
  loop.kick()
  await wait(2000)
  loop.stop()
})

test('each kick of an idle loop calls `onTurn` once', () => {
  let turns = 0
  const { loop } = setUp({ poll: () => false, nextTimeout: () => Number.POSITIVE_INFINITY }, () => turns++)
  loop.kick()
  loop.kick()
  assert.equal(turns, 2)
  loop.stop()
})

test('advance polls changed queues only', () => {
  const polled: ScanScope[] = []
  const { loop, parked } = setUp({
    poll: (_now, scope) => polled.push(scope) < 4,
    nextTimeout: () => Number.POSITIVE_INFINITY,
  })
  loop.advance()
  assert.deepEqual(polled, [ScanScope.CHANGED, ScanScope.CHANGED, ScanScope.CHANGED, ScanScope.CHANGED])
  assert.equal(parked(), 1)
  loop.stop()
})

test('after eight polls with work, advance starts the loop', async () => {
  const polled: ScanScope[] = []
  const { loop, parked } = setUp({
    poll: (_now, scope) => polled.push(scope) < 20,
    nextTimeout: () => Number.POSITIVE_INFINITY,
  })
  loop.advance()
  while (parked() === 0) await new Promise(setImmediate)
  assert.equal(polled.indexOf(ScanScope.USED), 8)
  assert.ok(polled.length >= 20 && polled.at(-1) === ScanScope.BEGIN)
  loop.stop()
})

test('a device that advances the loop in its poll is polled again afterwards, not within that poll', () => {
  // As a device that receives a message of the connection manager, which answers at once.
  for (const call of ['advance', 'touch'] as const) {
    let polls = 0
    let isInPoll = false
    const { loop, parked } = setUp({
      poll: () => {
        assert.equal(isInPoll, false, `a poll within a poll, after ${call}`)
        isInPoll = true
        polls++
        if (polls < 3) loop.advance()
        isInPoll = false
        return false
      },
      nextTimeout: () => Number.POSITIVE_INFINITY,
    })
    loop[call]()
    assert.ok(polls >= 2)
    assert.equal(parked(), 1)
    loop.stop()
  }
})

test('each turn checks a slice of very many idle queue pairs, and a post is found', async () => {
  const COUNT = 20 * SLICE_ROWS
  const memory = testRings()
  const rings = Array.from({ length: COUNT }, () => ({
    send: createSendQueue(memory, 15, 1, 0),
    receive: createReceiveQueue(memory, 15, 1),
  }))
  let checked = 0
  const counted = new Proxy(rings, {
    get(target, key, receiver) {
      if (typeof key === 'string' && /^\d+$/.test(key)) checked++
      return Reflect.get(target, key, receiver)
    },
  })
  const found: number[] = []
  const engine = { onDoorbell: (row: number) => found.push(row), onReceiveScan() {} } as unknown as Engine
  const posts = createPostScan(counted, engine, () => false)
  // After its creation each queue pair is checked once, and is then idle.
  for (let row = 0; row < COUNT; row++) posts.recheck(row)
  posts.scan(ScanScope.CHANGED)
  const { loop, parked } = setUp({
    poll: (_now, scope) => posts.scan(scope),
    isUnfinished: posts.isUnfinished,
    nextTimeout: () => Number.POSITIVE_INFINITY,
  })
  const turn = async (act = () => {}): Promise<void> => {
    checked = 0
    act()
    await new Promise(setImmediate)
    // At most the slice of a kick, the next slice, and a slice after a found post.
    assert.ok(checked <= 3 * SLICE_ROWS, `${checked} in one turn`)
  }
  found.length = 0
  storeProducer(rings[COUNT - 1].send.ring, 1)
  await turn(() => loop.kick())
  assert.equal(parked(), 1)
  for (let turns = 0; found.length === 0; turns++) {
    assert.ok(turns < 100)
    await turn()
  }
  assert.deepEqual(found, [COUNT - 1])
  storeProducer(rings[3].send.ring, 1)
  await turn(() => {
    posts.recheck(3)
    loop.kick()
  })
  assert.deepEqual(found, [COUNT - 1, 3])
  while (posts.isUnfinished()) await turn()
  assert.equal(parked(), 1)
  loop.stop()
})

test('a client that calls without pause does not keep the loop from the event loop', t => {
  const advanceClock = stopClock(t)
  const words = new Int32Array(ParkedPage.bytes / 4)
  let calls = 0
  const endless = {
    poll: () => {
      advanceClock(10)
      return ++calls < 10_000
    },
    park: () => false,
  }
  const idle: Pollable = { poll: () => false, nextTimeout: () => Number.POSITIVE_INFINITY }
  const loop = new Loop(words, [idle], undefined, undefined, undefined, endless)
  loop.kick()
  assert.ok(calls < 1000, `${calls} calls before the loop returned`)
  assert.ok(loop.isAwake)
  loop.stop()
})
