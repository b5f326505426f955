import assert from 'node:assert/strict'
import { constants } from 'node:buffer'
import { closeSync, fstatSync, ftruncateSync, openSync, readFileSync, readSync, writeSync } from 'node:fs'
import { test } from 'node:test'
import { getHeapStatistics } from 'node:v8'
import {
  addressOf,
  createRingPool,
  dropEntries,
  type Mapping,
  mapArena,
  releaseArena,
  zeroResident,
} from '../../../src/host/memory/mapping.ts'
import { addSeals, createMemfd, SEAL_FUTURE_WRITE, SEAL_SHRINK } from '../../../src/host/memory/memfd.ts'
import { closeProcess, openProcess, readAt } from '../../../src/host/memory/process.ts'
import { collectGarbage } from '../../tools.ts'

const PAGE = 4096

const newFile = (t: { after(fn: () => void): void }, size: number, fill?: string): number => {
  const fd = createMemfd('test', size)
  t.after(() => closeSync(fd))
  addSeals(fd, SEAL_SHRINK)
  if (fill) writeSync(fd, fill.repeat(size), 0)
  return fd
}

const byteAt = (fd: number, offset: number): string => {
  const byte = Buffer.alloc(1)
  readSync(fd, byte, 0, 1, offset)
  return byte.toString('latin1')
}

const text = (mapping: Mapping, from: number, to: number): string =>
  Buffer.from(mapping.bytes.slice(from, to)).toString('latin1')

const mappingCount = (): number => readFileSync('/proc/self/maps', 'latin1').split('\n').length

test('an arena is zero, rounded up to pages, and its views are one memory', () => {
  const arena = mapArena(5000)
  assert.equal(arena.length, 2 * PAGE)
  assert.equal(arena.bytes.length, 2 * PAGE)
  assert.ok(arena.bytes.every(byte => byte === 0))
  assert.ok(Number.isSafeInteger(arena.address) && arena.address % PAGE === 0)
  arena.u32[1] = 0x01020304
  assert.deepEqual([...arena.bytes.subarray(4, 8)], [4, 3, 2, 1])
  assert.equal(arena.view.getInt32(4, true), arena.i32[1])
})

test('a released arena has no memory, and is used again for the next arena of its length', () => {
  const arena = mapArena(7 * PAGE)
  arena.bytes.fill(1)
  releaseArena(arena)
  assert.ok(arena.bytes.every(byte => byte === 0))
  assert.notEqual(mapArena(8 * PAGE).address, arena.address)
  assert.equal(mapArena(7 * PAGE).buffer, arena.buffer)
  assert.notEqual(mapArena(7 * PAGE).address, arena.address)
})

test('memory that is too large for an array is refused with ENOMEM', t => {
  // where arrays may be longer than 2 ** 52 bytes, the address space is too small
  const bytes = Math.min(constants.MAX_LENGTH + PAGE, 2 ** 52)
  assert.throws(() => mapArena(bytes), { code: 'ENOMEM' })
  const pool = createRingPool()
  assert.throws(() => pool.map(newFile(t, bytes), 0, bytes), { code: 'ENOMEM' })
  assert.deepEqual(pool.counters, { mapped: 0, mappedBytes: 0, idle: 0 })
})

test('a write-sealed file can be mapped for reading', t => {
  const fd = newFile(t, PAGE, 'x')
  const writer = createRingPool()
  const written = writer.map(fd, 0, PAGE)
  addSeals(fd, SEAL_FUTURE_WRITE)
  assert.throws(() => writer.map(fd, 0, PAGE), { code: 'EPERM' })
  assert.deepEqual(
    writer.counters,
    { mapped: 1, mappedBytes: PAGE, idle: 1 },
    'the range of the refused mapping is kept',
  )
  const seen = writer.map(fd, 0, 100, 'read')
  written.bytes[7] = 5
  assert.equal(text(seen, 6, 9), 'x\x05x')
  assert.throws(() => writer.map(fd, 0, PAGE + 1, 'read'), { code: 'EINVAL' })
  writer.release(written)
  writer.release(seen)
})

test('a range that was mapped for reading can be mapped for writing', t => {
  const [first, second] = [newFile(t, PAGE, 'a'), newFile(t, PAGE, 'b')]
  const pool = createRingPool()
  const old = pool.map(first, 0, PAGE, 'read')
  pool.release(old)
  const next = pool.map(second, 0, PAGE)
  assert.equal(next.address, old.address)
  next.bytes[7] = 'X'.charCodeAt(0)
  assert.deepEqual([byteAt(first, 7), byteAt(second, 7)], ['a', 'X'])
  pool.release(next)
})

test('the address of a buffer is that of its bytes, for small buffers on V8’s heap too', () => {
  const small = Uint8Array.of(1, 2, 3)
  const large = new Uint8Array(100_000)
  const part = large.subarray(500, 600)
  const addresses = [small, large, part].map(addressOf)
  assert.equal(addresses[2], addresses[1] + 500n)
  for (let i = 0; i < 3; i++) collectGarbage()
  assert.deepEqual([small, large, part].map(addressOf), addresses)
  // a read at the address returns the byte
  large[500] = 77
  const self = openProcess(process.pid)
  assert.ok(!(self instanceof Error))
  const copy = mapArena(16)
  assert.equal(readAt(self, Number(addresses[2]), copy, 0, 1), 1)
  assert.equal(copy.bytes[0], 77)
  closeProcess(self)
  assert.equal(addressOf(new Uint8Array(0)), 0n)
})

test('an arena of an invalid size is refused', () => {
  for (const size of [0, -1, 1.5, Number.NaN]) assert.throws(() => mapArena(size), RangeError)
})

test('a mapping and its file are one memory', t => {
  const fd = newFile(t, 4 * PAGE, 'f')
  const pool = createRingPool()
  const mapping = pool.map(fd, PAGE, 2 * PAGE)
  assert.equal(text(mapping, 0, 3), 'fff')
  writeSync(fd, 'GH', PAGE + 5)
  assert.equal(text(mapping, 4, 8), 'fGHf')
  mapping.bytes[2 * PAGE - 1] = 'z'.charCodeAt(0)
  assert.equal(byteAt(fd, 3 * PAGE - 1), 'z')
  assert.equal(byteAt(fd, 3 * PAGE), 'f')
  pool.release(mapping)
})

test('the mapping exists longer than the descriptor', t => {
  const fd = newFile(t, PAGE, 'f')
  const again = openSync(`/proc/self/fd/${fd}`, 'r+')
  const pool = createRingPool()
  const mapping = pool.map(again, 0, PAGE)
  closeSync(again)
  mapping.bytes[0] = 'q'.charCodeAt(0)
  assert.equal(byteAt(fd, 0), 'q')
  pool.release(mapping)
})

test('address space of a pool is no used memory for V8, which would collect garbage', t => {
  const bytes = 2 ** 29
  const fd = newFile(t, bytes)
  const { external_memory: before } = getHeapStatistics()
  const pool = createRingPool()
  const mappings = [pool.map(fd, 0, bytes), pool.map(fd, 0, bytes)]
  for (const { address, bytes: view } of mappings) {
    assert.equal(address % PAGE, 0)
    view[bytes - 1] = 7
  }
  assert.equal(byteAt(fd, bytes - 1), '\x07')
  assert.ok(getHeapStatistics().external_memory < before + 2 ** 20)
  for (const mapping of mappings) pool.release(mapping)
})

test('after release old views show zeros, and writes through them reach no file', t => {
  const fd = newFile(t, 2 * PAGE, 'f')
  const pool = createRingPool()
  const mapping = pool.map(fd, 0, 2 * PAGE)
  pool.release(mapping)
  assert.ok(mapping.bytes.every(byte => byte === 0))
  mapping.bytes.fill('X'.charCodeAt(0))
  assert.equal(byteAt(fd, 0), 'f')
  assert.equal(byteAt(fd, 2 * PAGE - 1), 'f')
})

test('pages whose entries are dropped stay in the file; those in memory are zeroed, and others stay holes', t => {
  const fd = newFile(t, 2 ** 23)
  const pool = createRingPool()
  const mapping = pool.map(fd, 0, 2 ** 23)
  mapping.bytes.fill(1, 2 ** 22, 2 ** 22 + 2 * PAGE)
  dropEntries(mapping, 0, 2 ** 23)
  assert.equal(mapping.bytes[2 ** 22], 1)
  assert.equal(zeroResident(mapping, 0, 2 ** 23), 2 * PAGE)
  assert.deepEqual([mapping.bytes[2 ** 22], fstatSync(fd).blocks * 512], [0, 2 * PAGE])
  pool.release(mapping)
})

test('a range is reused for the next file of its size class, with the same ArrayBuffer', t => {
  const [first, second] = [newFile(t, 4 * PAGE, 'a'), newFile(t, 4 * PAGE, 'b')]
  const pool = createRingPool()
  const old = pool.map(first, 0, 4 * PAGE)
  pool.release(old)
  old.bytes.fill('X'.charCodeAt(0))
  const next = pool.map(second, 0, 3 * PAGE)
  assert.equal(next.address, old.address)
  assert.equal(next.buffer, old.buffer)
  assert.equal(next.bytes, old.bytes)
  assert.equal(text(next, 0, 2), 'bb')
  assert.equal(next.length, 3 * PAGE)
  assert.equal(next.bytes[3 * PAGE], 'X'.charCodeAt(0), 'the tail is the private page that was written')
  old.bytes[0] = 'n'.charCodeAt(0)
  assert.equal(byteAt(first, 0), 'a')
  pool.release(next)
  assert.ok(
    next.bytes.every(byte => byte === 0),
    'release clears the tail too',
  )
})

test('the unused tail of a size class is private', t => {
  const fd = newFile(t, 4 * PAGE, 'f')
  const pool = createRingPool()
  const mapping = pool.map(fd, 0, 2 * PAGE + 100)
  assert.equal(mapping.bytes.length, 4 * PAGE)
  assert.equal(mapping.bytes[3 * PAGE - 1], 'f'.charCodeAt(0))
  assert.equal(mapping.bytes[3 * PAGE], 0)
  mapping.bytes[3 * PAGE] = 1
  assert.equal(byteAt(fd, 3 * PAGE), 'f')
  pool.release(mapping)
})

test('the oldest idle range is used first', t => {
  const fd = newFile(t, PAGE)
  const pool = createRingPool()
  const three = [pool.map(fd, 0, PAGE), pool.map(fd, 0, PAGE), pool.map(fd, 0, PAGE)]
  for (const mapping of three) pool.release(mapping)
  assert.equal(pool.map(fd, 0, PAGE).address, three[0].address)
})

test('counters count ranges and bytes', t => {
  const fd = newFile(t, 4 * PAGE)
  const pool = createRingPool()
  assert.deepEqual(pool.counters, { mapped: 0, mappedBytes: 0, idle: 0 })
  const [a, b] = [pool.map(fd, 0, 3 * PAGE), pool.map(fd, PAGE, 10)]
  assert.deepEqual(pool.counters, { mapped: 2, mappedBytes: 4 * PAGE, idle: 0 })
  pool.release(a)
  assert.deepEqual(pool.counters, { mapped: 1, mappedBytes: PAGE, idle: 1 })
  pool.release(b)
  assert.deepEqual(pool.counters, { mapped: 0, mappedBytes: 0, idle: 2 })
  pool.map(fd, 0, 4 * PAGE)
  assert.deepEqual(pool.counters, { mapped: 1, mappedBytes: 4 * PAGE, idle: 1 })
})

test('a thousand mappings and releases leak no mapping and no external memory', t => {
  const fd = newFile(t, 64 * PAGE)
  const pool = createRingPool()
  const cycle = (i: number): void => {
    const pair = [pool.map(fd, (i % 8) * PAGE, (1 + (i % 16)) * PAGE), pool.map(fd, 0, 16 * PAGE)]
    for (const mapping of pair) {
      mapping.bytes[0] = i
      pool.release(mapping)
    }
  }
  for (let i = 0; i < 100; i++) cycle(i)
  const [ranges, mappings, external] = [pool.counters.idle, mappingCount(), process.memoryUsage().external]
  for (let i = 0; i < 1000; i++) cycle(i)
  assert.equal(pool.counters.idle, ranges)
  assert.ok(mappingCount() - mappings < 20, `${mappings} mappings became ${mappingCount()}`)
  assert.ok(process.memoryUsage().external - external < 1 << 20)
})

// V8 collects garbage after each 64 MiB of new ArrayBuffers.
test('many mappings have few ArrayBuffers', t => {
  const fd = newFile(t, 2 ** 22)
  const pool = createRingPool()
  const before = mappingCount()
  const mappings = Array.from({ length: 500 }, () => pool.map(fd, 0, 2 ** 22))
  assert.ok(new Set(mappings.map(({ buffer }) => buffer)).size < 20)
  assert.ok(mappingCount() - before < 550, 'a mapping that fills its range is one mapping of the process')
  for (const mapping of mappings) pool.release(mapping)
})

test('unsafe mappings are refused with a message, and nothing is allocated', t => {
  const pool = createRingPool()
  const fd = newFile(t, 2 * PAGE)
  const unsealed = createMemfd('unsealed', PAGE)
  t.after(() => closeSync(unsealed))
  const file = openSync('/proc/self/exe', 'r')
  t.after(() => closeSync(file))
  const refuses = (code: string, message: RegExp, ...args: [number, number, number]): void =>
    assert.throws(() => pool.map(...args), { name: 'SystemError', code, message })
  refuses('EINVAL', /length 0/, fd, 0, 0)
  refuses('EINVAL', /length NaN/, fd, 0, Number.NaN)
  refuses('EINVAL', /offset 100; it must be a multiple of 4096/, fd, 100, 10)
  refuses('EINVAL', /offset -4096/, fd, -PAGE, 10)
  refuses('EINVAL', /bytes 4096 to 8193 of a file of 8192 bytes/, fd, PAGE, PAGE + 1)
  refuses('EPERM', /not sealed against shrinking/, unsealed, 0, PAGE)
  refuses('EINVAL', /not a memory file/, file, 0, PAGE)
  refuses('EBADF', /not a memory file/, 9999, 0, PAGE)
  assert.deepEqual(pool.counters, { mapped: 0, mappedBytes: 0, idle: 0 })
})

test('a mapping that was released, or belongs to another pool, cannot be released', t => {
  const fd = newFile(t, PAGE)
  const [pool, other] = [createRingPool(), createRingPool()]
  const mapping = pool.map(fd, 0, PAGE)
  assert.throws(() => other.release(mapping), /does not hold/)
  pool.release(mapping)
  assert.throws(() => pool.release(mapping), /released twice/)
})

test('a file that grows later stays mapped', t => {
  const fd = newFile(t, PAGE, 'f')
  const pool = createRingPool()
  const mapping = pool.map(fd, 0, PAGE)
  ftruncateSync(fd, 8 * PAGE)
  assert.equal(text(mapping, 0, 2), 'ff')
  pool.release(mapping)
})
