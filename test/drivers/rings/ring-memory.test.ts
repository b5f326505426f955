/*
 * Memory of rings, which is allocated in slabs.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  createRing,
  elementAt,
  emptyRing,
  loadConsumer,
  loadProducer,
  mmapInfo,
  type Ring,
  storeConsumer,
  storeProducer,
} from '../../../src/core/memory/rings.ts'
import { slabRings } from '../../../src/drivers/rings/ring-memory.ts'
import { compactLayout } from '../../../src/spec/drivers/compact-rings.ts'

/** Fills elements and indices of a ring with a value from 1 to 255; `isMarked` checks that they are unchanged. */
const mark = (ring: Ring, value: number): void => {
  for (let i = 0; i <= ring.mask; i++) {
    const at = elementAt(ring, i)
    ring.area.bytes.fill(value, at, at + 2 ** ring.log2Element)
  }
  storeProducer(ring, value)
  storeConsumer(ring, 2 * value)
}
const isMarked = (ring: Ring, value: number): boolean => {
  const end = elementAt(ring, ring.mask) + 2 ** ring.log2Element
  return (
    loadProducer(ring) === value &&
    loadConsumer(ring) === 2 * value &&
    ring.area.bytes.subarray(ring.elementsAt, end).every(byte => byte === value)
  )
}

test('rings of any size, allocated and freed in any order, keep their contents', () => {
  const step = fc.record({
    free: fc.option(fc.nat(), { nil: undefined, freq: 2 }),
    elements: fc.integer({ min: 1, max: 40 }),
    bytes: fc.integer({ min: 1, max: 200 }),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120, size: 'max' }), steps => {
      const memory = slabRings()
      const live: { ring: Ring; value: number }[] = []
      steps.forEach(({ free, elements, bytes }, i) => {
        if (free !== undefined && live.length > 0) {
          const [{ ring, value }] = live.splice(free % live.length, 1)
          assert.ok(isMarked(ring, value))
          memory.free(ring)
          return
        }
        const ring = createRing(memory, elements, bytes)
        assert.equal(loadProducer(ring), 0)
        assert.equal(loadConsumer(ring), 0)
        assert.ok(ring.capacity >= elements && ring.capacity < 2 * elements && 2 ** ring.log2Element >= bytes)
        mark(ring, (i % 250) + 1)
        live.push({ ring, value: (i % 250) + 1 })
      })
      for (const { ring, value } of live) {
        assert.ok(isMarked(ring, value))
        const { area, headerAt, elementsAt } = memory.at(mmapInfo(ring).offset)
        assert.deepEqual([area === ring.area, headerAt, elementsAt], [true, ring.headerAt, ring.elementsAt])
      }
      assert.equal(memory.stat().rings, live.length)
      for (const { ring } of live) memory.free(ring)
      assert.equal(memory.stat().rings, 0)
    }),
  )
})

test('an offset without a ring is an internal error', () => {
  const memory = slabRings()
  createRing(memory, 4, 64)
  for (const offset of [8n, 16n, 1n << 32n]) assert.throws(() => memory.at(offset), /there is no ring at offset/)
})

test('many rings need at most an eighth more memory than their contents; after they are freed, at most 1 MiB remains', () => {
  const memory = slabRings()
  const rings = Array.from({ length: 5000 }, () => createRing(memory, 16, 64))
  const needed = rings.length * (16 * 64 + compactLayout.header.DATA)
  assert.ok(memory.stat().bytes >= needed && memory.stat().bytes <= needed * 1.125)
  for (const ring of rings) memory.free(ring)
  /** Empty slabs of at most so many bytes are kept. */
  const MAX_IDLE_BYTES = 2 ** 20
  assert.ok(memory.stat().bytes <= MAX_IDLE_BYTES)
  const reused = createRing(memory, 16, 64)
  assert.equal(loadProducer(reused), 0)
  assert.ok(memory.stat().bytes <= MAX_IDLE_BYTES)
})

test('a queue that was not requested has no memory, and freeing it does nothing', () => {
  const memory = slabRings()
  memory.free(emptyRing)
  assert.deepEqual([emptyRing.capacity, loadProducer(emptyRing), loadConsumer(emptyRing)], [0, 0, 0])
  assert.deepEqual(memory.stat(), { rings: 0, bytes: 0 })
})
