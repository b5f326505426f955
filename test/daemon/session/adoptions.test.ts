/*
 * What answers tell a client that shares pages of its program, and when a range of the file is used again. The tests of
 * test/system/devices/adopted.test.ts have the preload library.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Bytes } from '../../../src/core/memory/address-space.ts'
import { ContextMemory } from '../../../src/daemon/context/context-file.ts'
import { Adoptions } from '../../../src/daemon/session/adoptions.ts'
import { createRingPool } from '../../../src/host/memory/mapping.ts'
import { MappingKind, SessionLimits } from '../../../src/spec/session.ts'

const PAGE = 4096
const ADDRESS = 0x7f00_0000_0000
const PID = 100

/**
 * A program whose pages have the number of the page in each byte. `isPrivate`: not after the preload library's mapping.
 */
const programOf = () => ({
  isPrivate: () => true,
  check: () => true,
  beginReplacement() {},
  endReplacement() {},
  read(_hi: number, lo: number, to: Bytes, at: number, _chunk: number, _stride: number, total: number): number {
    for (let i = 0; i < total; i++) to.bytes[at + i] = ((lo + i) / PAGE) & 0xff
    return 0
  },
})

const withMemory = (
  body: (memory: ContextMemory, client: Adoptions, program: ReturnType<typeof programOf>) => void,
): void => {
  const memory = new ContextMemory(createRingPool())
  memory.contextNumber = 5
  const program = programOf()
  const client = new Adoptions(PID, program, () => undefined)
  memory.adopter = client
  try {
    body(memory, client, program)
  } finally {
    memory.close()
  }
}

const at = (page: number): bigint => BigInt(ADDRESS + page * PAGE)

test('the answer tells what to map, with the content of the pages, and later what to unmap', () =>
  withMemory((memory, client) => {
    const first = memory.adopt(at(3), 2 * PAGE)
    const second = memory.adopt(at(9), PAGE)
    assert.deepEqual([first.length, second.length], [2 * PAGE, PAGE])
    assert.deepEqual([first.bytes[first.at], first.bytes[first.at + PAGE], second.bytes[second.at]], [3, 4, 9])
    assert.equal(memory.isAdopting, true)
    const noteOf = (page: number, { length, offset }: typeof first, kind: number) => ({
      address: Number(at(page)),
      length,
      offset,
      context: 5,
      kind,
    })
    const { ADOPT, RELEASE } = MappingKind
    assert.deepEqual(client.take(true), [noteOf(3, first, ADOPT), noteOf(9, second, ADOPT)])
    assert.equal(memory.isAdopting, false)
    client.next()
    memory.free(second)
    memory.free(first)
    assert.deepEqual(client.take(false), [noteOf(9, second, RELEASE), noteOf(3, first, RELEASE)])
    assert.deepEqual(client.take(true), [])
  }))

test('a range that the device writes at once is told as such', () =>
  withMemory((memory, client) => {
    memory.adopt(at(1), PAGE, 'device')
    assert.equal(memory.isAdopting, true)
    assert.deepEqual(
      client.take(true).map(({ kind }) => kind),
      [MappingKind.ADOPT_WRITTEN],
    )
  }))

test('a freed range is used again only after the next message of the client', () =>
  withMemory((memory, client) => {
    memory.allocate(PAGE)
    const { offset } = memory.adopt(at(1), PAGE)
    const chunk = memory.adopt(at(2), PAGE)
    client.take(true)
    client.next()
    memory.free(chunk)
    assert.notEqual(memory.allocate(PAGE).offset, chunk.offset, 'the client is not told yet')
    client.take(true)
    assert.notEqual(memory.allocate(PAGE).offset, chunk.offset, 'the client may map it still')
    client.next()
    assert.equal(memory.allocate(PAGE).offset, chunk.offset)
    assert.notEqual(offset, chunk.offset)
  }))

test('what is adopted and freed in one call cancels out', () =>
  withMemory((memory, client) => {
    memory.allocate(PAGE)
    const chunk = memory.adopt(at(1), PAGE)
    memory.free(chunk)
    assert.deepEqual([memory.isAdopting, client.take(true)], [false, []])
    assert.equal(memory.allocate(PAGE).offset, chunk.offset)
  }))

test('a client learns nothing of what a failed call has adopted, and can share the pages later', () =>
  withMemory((memory, client) => {
    memory.adopt(at(1), PAGE)
    assert.deepEqual(client.take(false), [])
    client.next()
    memory.adopt(at(1), PAGE)
    // A call that ends with an exception has an answer without mappings.
    client.next()
    memory.adopt(at(1), PAGE)
    assert.equal(client.take(true).length, 1)
  }))

test('an answer has at most so many ranges of each kind; further ones wait', () =>
  withMemory((memory, client) => {
    const { mappings } = SessionLimits
    const chunks = [0, mappings].flatMap(from => {
      const adopted = Array.from({ length: mappings }, (_, i) => memory.adopt(at(from + i), PAGE))
      assert.throws(() => memory.adopt(at(90), PAGE), { code: 'EINVAL', message: /at most 8 ranges/ })
      assert.equal(client.take(true).length, mappings)
      client.next()
      return adopted
    })
    for (const chunk of chunks) memory.free(chunk)
    memory.adopt(at(50), PAGE)
    assert.deepEqual(
      [client.take(true), client.take(true)].map(told => told.length),
      [mappings + 1, 0],
      'the client has not done yet what it was told',
    )
    client.next()
    assert.equal(client.take(true).length, mappings)
  }))

test('the program of a guest returns the memory of a freed ring, whose range is then used again, zeroed', () =>
  withMemory((memory, client) => {
    memory.heldByGuest(1000)
    const freed = memory.allocate(2 ** 21)
    const { offset, length } = freed
    freed.bytes.fill(7, freed.at, freed.at + PAGE)
    memory.free(freed)
    assert.deepEqual(client.take(true), [{ address: 0, length, offset, context: 5, kind: MappingKind.PUNCH }])
    assert.notEqual(memory.allocate(length).offset, offset, 'the client may return it still')
    client.next()
    const again = memory.allocate(length)
    assert.equal(again.offset, offset)
    assert.ok(again.bytes.subarray(again.at, again.at + length).every(byte => byte === 0))
  }))

test('pages are whole, private, and shared once', () =>
  withMemory((memory, client, program) => {
    const refused = (address: bigint, bytes: number, code: string, message: RegExp): void =>
      assert.throws(() => memory.adopt(address, bytes), { code, message })
    for (const [address, bytes] of [
      [at(1) + 8n, PAGE],
      [at(1), 100],
      [at(1), 0],
      [at(1), -PAGE],
      [at(1), Number.NaN],
    ] as const)
      refused(address, bytes, 'EINVAL', /are not whole pages: both must be multiples of 4096/)
    refused(2n ** 63n, PAGE, 'EFAULT', /not writable memory/)
    memory.adopt(at(1), 2 * PAGE)
    refused(at(2), PAGE, 'EINVAL', /0x7f0000002000, 4096 bytes, overlap 0x7f0000001000, 8192 bytes, which/)
    client.take(true)
    client.next()
    program.isPrivate = () => false
    refused(at(2), PAGE, 'EINVAL', /overlap/)
    refused(at(3), PAGE, 'EFAULT', /mapped from a file, or shared/)
    // The program has closed the context and uses its memory for another one, before the daemon learns of it.
    program.isPrivate = () => true
    memory.adopt(at(2), PAGE)
  }))

test('another session of the process is told if that of the adoption has ended', () =>
  withMemory((memory, client, program) => {
    const chunk = memory.adopt(at(1), PAGE)
    const other = memory.adopt(at(2), PAGE)
    client.take(true)
    client.close()
    const second = new Adoptions(PID, program, () => undefined)
    memory.adopter = second
    memory.free(chunk)
    assert.deepEqual(
      second.take(true).map(({ address, kind }) => [address, kind]),
      [[Number(at(1)), MappingKind.RELEASE]],
    )
    memory.adopter = new Adoptions(PID + 1, program, () => undefined)
    memory.free(other)
    assert.deepEqual(memory.adopter.isAdopting, false)
    assert.notEqual(memory.allocate(PAGE).offset, other.offset, 'the process may map it still')
  }))

test('memory is shared only in calls of a client that can', () =>
  withMemory((memory, _client, program) => {
    memory.adopter = new Adoptions(PID, program, () => 'it has no preload library')
    assert.throws(() => memory.adopt(at(1), PAGE), { code: 'EOPNOTSUPP', message: /it has no preload library$/ })
    memory.adopter = undefined
    assert.throws(() => memory.adopt(at(1), PAGE), { code: 'EOPNOTSUPP', message: /only during a call/ })
  }))
