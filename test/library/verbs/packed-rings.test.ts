/*
 * Packed rings in a context's memory file (drivers/rings/ring-memory.ts), as the device and the library see them.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  createRing,
  elementAt,
  emptyRing,
  loadProducer,
  mmapInfo,
  type Ring,
  storeConsumer,
} from '../../../src/core/memory/rings.ts'
import { ContextMemory } from '../../../src/daemon/context/context-file.ts'
import { Freeing } from '../../../src/daemon/context/freeing.ts'
import { ringMemoryOf } from '../../../src/drivers/rings/context.ts'
import { createSlices } from '../../../src/host/event-loop/slices.ts'
import { createRingPool } from '../../../src/host/memory/mapping.ts'
import { hasNative } from '../../../src/host/native.ts'
import { createFileRings } from '../../../src/library/verbs/remote/file-rings.ts'
import { nextSlot, type ProgramRing, produce, programRing } from '../../../src/library/verbs/ring.ts'
import { RingHeader } from '../../../src/spec/drivers/mapped-rings.ts'
import { mappedLayout } from '../../../src/spec/drivers/ring-layout.ts'

const native = { skip: !hasNative() }
const PAGE_BYTES = 4096

/** `programRingOf` returns the program's side of a device's ring. */
const deviceAndLibrary = (isPacked: boolean) => {
  const pool = createRingPool()
  const slices = createSlices()
  const memory = new ContextMemory(pool, isPacked, undefined, undefined, new Freeing(slices, assert.ifError))
  const rings = ringMemoryOf({ state: undefined, mapped: memory } as never)
  const file = createFileRings(memory.fd)
  const programRingOf = (ring: Ring): ProgramRing =>
    programRing({ layout: mappedLayout, ring: file.ring }, mmapInfo(ring))
  const close = (): void => {
    file.close()
    memory.close()
    slices.finish()
    assert.equal(pool.counters.mapped, 0)
  }
  return { memory, rings, file, programRingOf, close }
}

const size = fc.oneof(
  {
    arbitrary: fc.record({ elements: fc.integer({ min: 1, max: 300 }), bytes: fc.constantFrom(64, 128, 256) }),
    weight: 6,
  },
  { arbitrary: fc.record({ elements: fc.integer({ min: 3000, max: 20_000 }), bytes: fc.constant(128) }), weight: 1 },
)

for (const isPacked of [true, false])
  test(
    `device and library see the same elements, ${isPacked ? 'rings packed' : 'each ring in its own pages'}`,
    native,
    () => {
      const step = fc.record({ freedIndex: fc.option(fc.nat(), { nil: undefined, freq: 2 }), ringSize: size })
      fc.assert(
        fc.property(fc.array(step, { maxLength: 60, size: 'max' }), steps => {
          const { rings, file, programRingOf, close } = deviceAndLibrary(isPacked)
          const liveRings: { ring: Ring; program: ProgramRing; mark: number }[] = []
          const check = ({ ring, program, mark }: (typeof liveRings)[number]): void => {
            assert.equal(loadProducer(ring), 1)
            for (const index of [0, ring.mask]) {
              assert.equal(ring.area.view.getUint32(elementAt(ring, index), true), mark)
              assert.equal(program.view.getUint32(program.elementsAt + (index << program.log2Element), true), mark)
            }
          }
          steps.forEach(({ freedIndex, ringSize }, i) => {
            if (freedIndex !== undefined && liveRings.length > 0) {
              const [freed] = liveRings.splice(freedIndex % liveRings.length, 1)
              check(freed)
              file.release(mmapInfo(freed.ring))
              rings.free(freed.ring)
              return
            }
            const ring = createRing(rings, ringSize.elements, ringSize.bytes)
            const program = programRingOf(ring)
            assert.deepEqual(
              [program.mask, program.log2Element, program.capacity],
              [ring.mask, ring.log2Element, ring.capacity],
            )
            program.view.setUint32(nextSlot(program), i + 1, true)
            program.view.setUint32(program.elementsAt + (program.mask << program.log2Element), i + 1, true)
            produce(program)
            liveRings.push({ ring, program, mark: i + 1 })
          })
          for (const entry of liveRings) check(entry)
          close()
        }),
        { numRuns: 40 },
      )
    },
  )

test('headers of packed rings share pages, separate from their elements', native, () => {
  const { memory, rings, close } = deviceAndLibrary(true)
  const created = Array.from({ length: 10 }, () => createRing(rings, 255, 64))
  const headerPages = new Set(
    // `area.offset` is the offset of the area in the file, `area.at` in its view.
    created.map(({ area, headerAt }) => Math.floor((area.offset + headerAt - area.at) / PAGE_BYTES)),
  )
  assert.ok(headerPages.size <= 2, `${headerPages.size} pages for 10 headers`)
  assert.equal(memory.ringCount, 10)
  for (const ring of created) rings.free(ring)
  rings.free(emptyRing)
  assert.equal(memory.ringCount, 0)
  close()
})

test("a program’s writes to its header do not move the device's elements", native, () => {
  const { rings, programRingOf, close } = deviceAndLibrary(true)
  const ring = createRing(rings, 15, 64)
  const before = elementAt(ring, 3)
  const { view } = programRingOf(ring)
  for (let at = 0; at < RingHeader.PRODUCER; at += 4)
    view.setUint32(ring.headerAt - ring.area.at + at, 0xffff_fff0, true)
  assert.equal(elementAt(ring, 3), before)
  storeConsumer(ring, 2)
  assert.equal(elementAt(ring, 3), before)
  close()
})

test('rings of a slab that crosses a chunk boundary of the file are mapped', native, () => {
  const { rings, programRingOf, close } = deviceAndLibrary(true)
  // A chunk has 256 pages. Before the last slab, which has 3 pages, 1 + 193 + 36 + 20 + 4 pages of the last chunk are
  // used. Columns: number of rings, elements, bytes of an element.
  const sizes = [
    [1, 20_000, 128], // ends one page after a chunk boundary
    [1, 2047, 128], // a slab of 193 pages
    [32, 63, 64], // two slabs of 18 pages
    [32, 31, 64], // two slabs of 10 pages
    [1, 7, 64], // a slab of 4 pages
    [16, 3, 64], // a slab of 3 pages
  ]
  const created = sizes.flatMap(([count, elements, bytes]) =>
    Array.from({ length: count }, () => createRing(rings, elements, bytes)),
  )
  for (const [i, ring] of created.entries()) {
    const program = programRingOf(ring)
    program.view.setUint32(nextSlot(program), i, true)
    produce(program)
    assert.equal(loadProducer(ring), 1)
    assert.equal(ring.area.view.getUint32(elementAt(ring, 0), true), i)
  }
  close()
})
