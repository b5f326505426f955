/*
 * Receives shared by many queue pairs: order, limit, resizing, and a program that writes garbage.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  createReceiveQueue,
  pendingReceives,
  type ReceiveQueue,
  resizeReceives,
  takeReceive,
} from '../../../../src/drivers/rxe/rings/receive-queue.ts'
import { Receive, Sge } from '../../../../src/transport/types.ts'
import { isIntact, mapRing, postReceive, type TestRings, testRings } from '../provider.ts'

const SGES = 2

const setUp = (requests = 7) => {
  const memory = testRings()
  const limitEvents = { times: 0 }
  const queue = createReceiveQueue(memory, requests, SGES, () => {
    limitEvents.times++
  })
  const into = new Uint32Array(Receive.SGE + SGES * Sge.WORDS)
  return {
    memory,
    queue,
    limitEvents,
    ring: mapRing(queue.ring.area),
    /** The consumed id; undefined if the queue was empty. */
    take: (): number | undefined => (takeReceive(queue, into, 0) ? into[Receive.ID_LO] : undefined),
    into,
  }
}

const post = (ring: ReturnType<typeof mapRing>, ...ids: number[]): void => {
  for (const id of ids) assert.ok(postReceive(ring, BigInt(id), [{ address: 0x1000 * id, length: id, lkey: 7 }]))
}

test('the limit event is raised once, when fewer requests than the limit remain; the limit is then 0', () => {
  const { queue, ring, take, limitEvents } = setUp()
  post(ring, 1, 2, 3, 4, 5)
  queue.limit = 3
  take()
  take()
  assert.equal(limitEvents.times, 0)
  take()
  assert.deepEqual([limitEvents.times, queue.limit], [1, 0])
  take()
  take()
  assert.equal(take(), undefined)
  assert.equal(limitEvents.times, 1)
})

test('a receive queue of one queue pair raises no limit event', () => {
  const queue = createReceiveQueue(testRings(), 3, 1)
  assert.equal(queue.shared, false)
  assert.equal(createReceiveQueue(testRings(), 3, 1, () => {}).shared, true)
})

const moved = (memory: TestRings, queue: ReceiveQueue, requests: number): boolean => {
  const old = resizeReceives(memory, queue, requests)
  if (old === undefined) return false
  memory.free(old)
  return true
}

test('random posts, receives and resizes: each request is consumed once, in order, whole', () => {
  const step = fc.oneof(
    fc.record({ post: fc.integer({ min: 1, max: 5 }) }),
    fc.record({ take: fc.integer({ min: 1, max: 5 }) }),
    fc.record({ resize: fc.integer({ min: 1, max: 40 }) }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), steps => {
      const b = setUp(4)
      const { memory, queue, into } = b
      let { ring } = b
      const waiting: number[] = []
      let next = 1
      for (const one of steps) {
        if ('post' in one)
          for (let i = 0; i < one.post; i++) {
            if (!postReceive(ring, BigInt(next), [{ address: 4096 * next, length: next, lkey: 3 }])) break
            waiting.push(next++)
          }
        else if ('take' in one)
          for (let i = 0; i < one.take; i++) {
            assert.equal(b.take(), waiting.shift())
            if (into[Receive.SGES] === 1) assert.equal(into[Receive.SGE + Sge.LENGTH], into[Receive.ID_LO])
          }
        else {
          const fits = waiting.length <= one.resize
          assert.equal(moved(memory, queue, one.resize), fits)
          if (fits) ring = mapRing(queue.ring.area)
        }
        assert.equal(pendingReceives(queue), waiting.length)
        assert.equal(memory.live.size, 1)
      }
    }),
  )
})

test('garbage in the ring leads to no access outside it, also after a resize', () => {
  const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 })
  fc.assert(
    fc.property(
      fc.array(u32, { minLength: 40, maxLength: 200 }),
      u32,
      fc.integer({ min: 1, max: 30 }),
      (noise, to, n) => {
        const { memory, queue, take, into, limitEvents } = setUp(3)
        queue.limit = 3
        for (let round = 0; round < 3; round++) {
          const { area } = queue.ring
          for (let at = 0; at < area.length; at += 4)
            area.view.setUint32(area.at + at, noise[(at / 4 + round) % noise.length], true)
          mapRing(area).producer = to + round
          assert.ok(pendingReceives(queue) <= queue.ring.mask)
          take()
          assert.ok(into[Receive.SGES] <= SGES)
          assert.ok(isIntact(area))
          moved(memory, queue, n)
        }
        assert.ok(limitEvents.times <= 1)
      },
    ),
  )
})
