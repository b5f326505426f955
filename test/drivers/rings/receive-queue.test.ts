/*
 * Receive queues of queue pairs and SRQs.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { createReceiveQueue, type RingReceives, resizeReceives } from '../../../src/drivers/rings/receive-queue.ts'
import { Receive, Sge } from '../../../src/transport/engine/types.ts'
import { isIntact, mapRing, postReceive, type TestRings, testRings } from '../rxe/provider.ts'

/** max_sge of the queues. */
const SGES = 2

const setUp = (requests = 7) => {
  const memory = testRings()
  const limitEvents = { count: 0 }
  const queue = createReceiveQueue(memory, requests, SGES, () => {
    limitEvents.count++
  })
  const wqe = new Uint32Array(Receive.SGE + SGES * Sge.WORDS)
  return {
    memory,
    queue,
    limitEvents,
    ring: mapRing(queue.ring.area),
    /** Takes a receive into `wqe`, and returns its ID; undefined if the queue is empty. */
    take: (): number | undefined => (queue.take(wqe, 0) ? wqe[Receive.ID_LO] : undefined),
    wqe,
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
  assert.equal(limitEvents.count, 0)
  take()
  assert.deepEqual([limitEvents.count, queue.limit], [1, 0])
  take()
  take()
  assert.equal(take(), undefined)
  assert.equal(limitEvents.count, 1)
})

test('a receive queue is shared if and only if it has a function for the limit event', () => {
  const queue = createReceiveQueue(testRings(), 3, 1)
  assert.equal(queue.isShared, false)
  assert.equal(createReceiveQueue(testRings(), 3, 1, () => {}).isShared, true)
})

/** Resizes to `requests`, and frees the old ring. Returns false if more requests are posted. */
const resize = (memory: TestRings, queue: RingReceives, requests: number): boolean => {
  const old = resizeReceives(memory, queue, requests)
  if (old === undefined) return false
  memory.free(old)
  return true
}

test('random posts, receives and resizes: each request is taken once, in order and unchanged', () => {
  const step = fc.oneof(
    fc.record({ post: fc.integer({ min: 1, max: 5 }) }),
    fc.record({ take: fc.integer({ min: 1, max: 5 }) }),
    fc.record({ resize: fc.integer({ min: 1, max: 40 }) }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60, size: 'max' }), steps => {
      const setup = setUp(4)
      const { memory, queue, take, wqe } = setup
      let { ring } = setup
      const waiting: number[] = []
      let next = 1
      for (const step of steps) {
        if ('post' in step)
          for (let i = 0; i < step.post; i++) {
            if (!postReceive(ring, BigInt(next), [{ address: 4096 * next, length: next, lkey: 3 }])) break
            waiting.push(next++)
          }
        else if ('take' in step)
          for (let i = 0; i < step.take; i++) {
            const id = take()
            assert.equal(id, waiting.shift())
            if (id !== undefined) assert.deepEqual([wqe[Receive.SGES], wqe[Receive.SGE + Sge.LENGTH]], [1, id])
          }
        else {
          const fits = waiting.length <= step.resize
          assert.equal(resize(memory, queue, step.resize), fits)
          if (fits) ring = mapRing(queue.ring.area)
        }
        assert.equal(queue.pending(), waiting.length)
        assert.equal(memory.live.size, 1, 'only the present ring is allocated')
      }
    }),
  )
})

test('garbage in the ring leads to no access outside it, also after a resize', () => {
  const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 })
  fc.assert(
    fc.property(
      fc.array(u32, { minLength: 40, maxLength: 200, size: 'max' }),
      u32,
      fc.integer({ min: 1, max: 30 }),
      (noise, producer, newSize) => {
        const { memory, queue, take, wqe, limitEvents } = setUp(3)
        queue.limit = 3
        for (let round = 0; round < 3; round++) {
          const { area } = queue.ring
          for (let i = 0; i < area.length / 4; i++)
            area.view.setUint32(area.at + 4 * i, noise[(i + round) % noise.length], true)
          mapRing(area).producer = producer + round
          assert.ok(queue.pending() <= queue.ring.mask)
          take()
          assert.ok(wqe[Receive.SGES] <= SGES)
          assert.ok(isIntact(area))
          resize(memory, queue, newSize)
        }
        assert.ok(limitEvents.count <= 1)
      },
    ),
  )
})
