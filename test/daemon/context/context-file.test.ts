/*
 * A context's memory file, which has the rings.
 */
import assert from 'node:assert/strict'
import { closeSync, fstatSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import type { MappedChunk } from '../../../src/core/memory/mappable-memory.ts'
import type { Account } from '../../../src/core/model.ts'
import { createSharedLimits } from '../../../src/daemon/accounts.ts'
import { ContextMemory } from '../../../src/daemon/context/context-file.ts'
import { Freeing } from '../../../src/daemon/context/freeing.ts'
import { createSlices, type Slices } from '../../../src/host/event-loop/slices.ts'
import { createRingPool, type RingPool } from '../../../src/host/memory/mapping.ts'
import { createMemfd, SEAL_GROW, SEAL_SEAL, SEAL_SHRINK, sealsOf } from '../../../src/host/memory/memfd.ts'
import { createFileRings } from '../../../src/library/verbs/remote/file-rings.ts'
import { ArmWords } from '../../../src/spec/context-logs.ts'
import { ContextFile } from '../../../src/spec/session.ts'
import { accountIn, GUEST } from '../../core/accounts.ts'
import { fill, processorTime } from '../../host/processor-time.ts'

const PAGE = 4096

const withMemory = (body: (memory: ContextMemory, pool: RingPool, slices: Slices) => void): void => {
  const pool = createRingPool()
  const slices = createSlices()
  const memory = new ContextMemory(pool, false, undefined, undefined, new Freeing(slices, assert.ifError))
  try {
    body(memory, pool, slices)
  } finally {
    memory.close()
    slices.finish()
  }
  const { mapped, mappedBytes } = pool.counters
  assert.deepEqual({ mapped, mappedBytes }, { mapped: 0, mappedBytes: 0 }, 'all mappings are released')
}

const bytesOf = ({ bytes, at, length }: MappedChunk): Uint8Array => bytes.subarray(at, at + length)

test('the file is sized once and sealed', () =>
  withMemory(memory => {
    assert.equal(fstatSync(memory.fd).size, ContextFile.doorbells + ContextFile.doorbellBytes)
    assert.equal(sealsOf(memory.fd), SEAL_SHRINK | SEAL_GROW | SEAL_SEAL)
    const { ino, dev } = fstatSync(memory.fd)
    assert.deepEqual([memory.inode, memory.dev], [ino, dev])
    assert.equal(fstatSync(memory.fd).blocks, 0, 'nothing is used yet')
  }))

test('a ring is visible in the file at its offset, after the first page', () =>
  withMemory((memory, pool) => {
    for (const bytes of [1, PAGE, PAGE + 1, 300_000]) {
      const chunk = memory.allocate(bytes)
      assert.ok(chunk.offset >= PAGE && chunk.offset % PAGE === 0)
      assert.equal(chunk.length, Math.ceil(bytes / PAGE) * PAGE)
      bytesOf(chunk).fill(bytes & 0xff)
      const seen = pool.map(memory.fd, chunk.offset, chunk.length)
      assert.ok(seen.bytes.subarray(0, chunk.length).every(byte => byte === (bytes & 0xff)))
      seen.bytes[5] = 99
      assert.equal(bytesOf(chunk)[5], 99)
      assert.equal(chunk.view.getUint8(chunk.at + 5), 99)
      pool.release(seen)
    }
  }))

test('a range with doorbells lies in its own part of the file, and is reused for doorbells', () =>
  withMemory((memory, pool) => {
    const keep = memory.allocate(PAGE)
    const doorbells = memory.allocate(8, 'doorbells')
    const { offset, length } = doorbells
    assert.ok(offset >= ContextFile.doorbells)
    assert.equal(length, PAGE)
    bytesOf(doorbells).fill(7)
    const seen = pool.map(memory.fd, offset, length)
    assert.equal(seen.bytes[5], 7)
    pool.release(seen)
    memory.free(doorbells)
    const again = memory.allocate(PAGE, 'doorbells')
    assert.equal(again.offset, offset)
    assert.equal(again.bytes[again.at + 5], 0)
    memory.free(keep)
  }))

test('a range at a given page lies before all rings; hiding a clock leaves its last time', () =>
  withMemory((memory, pool) => {
    const placed = memory.allocateAt(0x500, 8)
    assert.equal(placed.offset, 0x500 * PAGE)
    assert.ok(memory.allocate(PAGE).offset >= ContextFile.firstRing)
    let time = 1
    const clock = memory.readClock(placed, () => placed.view.setUint32(placed.at, time++))
    const seen = pool.map(memory.fd, placed.offset, PAGE)
    clock.tick()
    memory.hideClock()
    assert.equal(clock.isReadable, false)
    assert.equal(seen.view.getUint32(0), 2)
    pool.release(seen)
    memory.free(placed)
    for (const page of [0, -1, ContextFile.firstRing / PAGE, 2 ** 52])
      assert.throws(() => memory.allocateAt(page, PAGE), /ENOMEM|page/)
  }))

test("a range at a given page is zero, also in the middle of one that was freed in a guest's file", () =>
  withMemory(memory => {
    memory.heldByGuest(GUEST)
    const freed = memory.allocateAt(8, 4 * PAGE)
    bytesOf(freed).fill(7)
    memory.free(freed)
    for (const page of [8, 9, 10])
      assert.ok(
        bytesOf(memory.allocateAt(page, PAGE)).every(byte => byte === 0),
        `page ${page}`,
      )
  }))

test('rings begin and end at page boundaries, also with pages larger than 4 KiB', () => {
  const pool = createRingPool()
  const [isPacked, pageBytes] = [false, 2 ** 16]
  const memory = new ContextMemory(pool, isPacked, undefined, pageBytes)
  const file = createFileRings(memory.fd, pageBytes)
  // A large ring has its own mapping, and crosses a chunk boundary in the library.
  for (const bytes of [1, 70_000, 2_000_000, 1]) {
    const { offset, length, at, bytes: ring } = memory.allocate(bytes)
    assert.deepEqual([offset % pageBytes, length % pageBytes], [0, 0])
    assert.ok(offset > 0)
    ring[at + 8] = bytes & 0xff
    const seen = file.ring({ offset: BigInt(offset), size: length })
    assert.equal(seen.bytes[seen.headerAt + 8], bytes & 0xff)
  }
  file.close()
  memory.close()
})

/** Undefined: only the daemon's own user has the file. */
for (const guest of [undefined, 1000])
  test(`rings never overlap, and are zero when allocated${guest === undefined ? '' : ", of a guest's file"}`, () => {
    const anyStep = fc.oneof(
      fc.record({ bytes: fc.oneof(fc.integer({ min: 1, max: 40_000 }), fc.integer({ min: 200_000, max: 600_000 })) }),
      fc.record({ free: fc.nat(50) }),
    )
    fc.assert(
      fc.property(fc.array(anyStep, { maxLength: 60, size: 'max' }), steps =>
        withMemory((memory, pool, slices) => {
          const live: MappedChunk[] = []
          if (guest !== undefined) memory.heldByGuest(guest)
          for (const step of steps) {
            if ('bytes' in step) {
              const ring = memory.allocate(step.bytes)
              assert.ok(
                bytesOf(ring).every(byte => byte === 0),
                'zero',
              )
              for (const { offset, length } of live)
                assert.ok(ring.offset >= offset + length || offset >= ring.offset + ring.length, 'no overlap')
              bytesOf(ring).fill(0xee)
              live.push(ring)
            } else if (live.length > 0) memory.free(live.splice(step.free % live.length, 1)[0])
            assert.equal(memory.ringCount, live.length)
            assert.equal(
              memory.ringBytes,
              live.reduce((sum, { length }) => sum + length, 0),
            )
          }
          for (const ring of live.splice(0)) memory.free(ring)
          slices.finish()
          if (guest !== undefined) return
          assert.equal(pool.counters.mapped, 0, 'parts of the file without rings are not mapped')
          assert.equal(fstatSync(memory.fd).blocks, 0, 'and use no memory')
        }),
      ),
      { numRuns: 50 },
    )
  })

test('rings lie below the arm words', () =>
  withMemory(memory => {
    const { words, at } = memory.armWord(3)!
    for (const bytes of [4096, 2 ** 20, 2 ** 22]) {
      const { offset, length, bytes: all, at: start } = memory.allocate(bytes)
      assert.ok(offset + length <= ArmWords.offset, `${offset}`)
      all.fill(0xff, start, start + length)
    }
    assert.equal(words[at], 0)
  }))

test('rings of one size are reused: many allocations and frees do not exhaust the file', () =>
  withMemory((memory, _pool, slices) => {
    // This ring keeps the mapping that small rings share.
    const keep = memory.allocate(PAGE)
    const offsets = new Set<number>()
    for (let i = 0; i < 1000; i++) {
      const small = memory.allocate(3 * PAGE)
      const large = memory.allocate(2 ** 27)
      offsets.add(small.offset).add(large.offset)
      memory.free(small)
      memory.free(large)
      slices.finish()
    }
    assert.equal(offsets.size, 2)
    memory.free(keep)
  }))

test('an allocation in a full file fails with ENOMEM, and freed space can be allocated again, also before its pages are freed', () =>
  withMemory((memory, pool) => {
    // The file has 64 GiB. The pages before the first ring and the logs at the end are not for rings.
    const chunks = Array.from({ length: 29 }, () => memory.allocate(2 ** 31))
    assert.throws(() => memory.allocate(2 ** 31), { code: 'ENOMEM' })
    assert.throws(() => memory.allocate(2 ** 40), { code: 'ENOMEM' })
    assert.equal(memory.ringBytes, 29 * 2 ** 31)
    assert.equal(pool.counters.mapped, 29)
    const { offset } = chunks[3]
    memory.free(chunks[3])
    assert.equal(memory.allocate(2 ** 31).offset, offset)
    // Smaller rings fit.
    assert.equal(memory.allocate(PAGE).length, PAGE)
  }))

test('a large ring is returned to the system in slices, also if the context is closed before', () =>
  withMemory((memory, pool, slices) => {
    const [first, second] = [memory.allocate(2 ** 24), memory.allocate(2 ** 24)]
    for (const ring of [first, second]) bytesOf(ring).fill(1)
    const blocks = (): number => fstatSync(memory.fd).blocks / 2 ** 11
    assert.equal(blocks(), 32)
    memory.free(first)
    assert.equal(blocks(), 24, 'two slices of 4 MiB')
    assert.equal(pool.counters.mapped, 2)
    memory.free(second)
    memory.close()
    assert.ok(blocks() > 0)
    slices.finish()
    assert.equal(pool.counters.mapped, 0)
    assert.throws(blocks, { code: 'EBADF' })
    memory.close = () => {}
  }))

test('a context with many chunks is closed in slices', () =>
  withMemory((memory, pool, slices) => {
    const chunks = 64
    for (let i = 0; i < chunks; i++) memory.allocate(2 ** 20)
    memory.close()
    memory.close = () => {}
    assert.ok(pool.counters.mapped > chunks / 2, `${pool.counters.mapped} are mapped`)
    slices.finish()
    assert.equal(pool.counters.mapped, 0)
  }))

test('freeing a ring twice, or another context’s ring, throws an Error', () =>
  withMemory(memory => {
    const chunk = memory.allocate(1)
    memory.free(chunk)
    assert.throws(() => memory.free(chunk), /freed before/)
    withMemory(other => {
      const foreign = other.allocate(1)
      assert.throws(() => memory.free(foreign), /does not belong to this context/)
    })
  }))

test('rings freed after device removal keep their contents, for a program that maps them after the end too', () =>
  withMemory((memory, pool) => {
    const rings = [memory.allocate(100), memory.allocate(300_000)]
    for (const chunk of rings) bytesOf(chunk).fill(7)
    const mapped = rings.map(({ offset, length }) => pool.map(memory.fd, offset, length))
    const areKept = (): boolean =>
      mapped.every(({ bytes }, i) => bytes.subarray(0, rings[i]!.length).every(byte => byte === 7))
    memory.keepMapped()
    for (const chunk of rings) memory.free(chunk)
    assert.deepEqual([memory.ringCount, memory.ringBytes], [0, 0])
    assert.ok(areKept())
    memory.close()
    memory.close = () => {}
    assert.ok(areKept())
    for (const range of mapped) pool.release(range)
  }))

test('the last close of a file that a guest has filled takes no time of the daemon', async () => {
  const ended = async (account: Account | undefined, isFilled: boolean): Promise<number> => {
    const memory = new ContextMemory(createRingPool(), false, account)
    memory.allocate(PAGE)
    if (isFilled) fill(memory.fd, ContextFile.firstRing)
    return processorTime(() => memory.close())
  }
  const guest = accountIn(createSharedLimits(), GUEST)
  // What is used first takes longer.
  await ended(guest, false)
  const file = createMemfd('large', 2 ** 30)
  fill(file)
  const direct = await processorTime(() => closeSync(file))
  const elsewhere = await ended(guest, true)
  assert.ok(elsewhere < direct / 2, `${elsewhere} and ${direct} µs`)
})

test('what a program writes outside all ranges is surplus; ranges that were handed out are not', () => {
  const pool = createRingPool()
  const memory = new ContextMemory(pool)
  for (const [bytes, use] of [
    [2 ** 22, 'rings'],
    [2 ** 16, 'doorbells'],
  ] as const) {
    const range = memory.allocate(bytes, use)
    pool.map(memory.fd, range.offset, range.length).bytes.fill(1, 0, range.length)
    memory.free(range)
  }
  const placed = memory.allocateAt(5, 2 ** 16)
  bytesOf(placed).fill(1)
  assert.ok(memory.surplusBytes <= 0)
  fill(memory.fd, ContextFile.firstRing)
  assert.ok(memory.surplusBytes > 2 ** 27)
  memory.close()
})
