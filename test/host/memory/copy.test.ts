/*
 * Copies by native code have the results of copies by TypeScript.
 */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { createLocalSpace } from '../../../src/core/memory/local-space.ts'
import { EFAULT } from '../../../src/host/errno.ts'
import { loadNativeCopier } from '../../../src/host/memory/copy.ts'
import { mapArena } from '../../../src/host/memory/mapping.ts'
import { repoRoot } from '../../paths.ts'
import { halves } from '../copy-arguments.ts'

const built = join(repoRoot, 'build', 'native', 'libuserdma_native.so')
const copier = existsSync(built) ? loadNativeCopier(built) : undefined
const random = (size: number, seed: number) =>
  Uint8Array.from({ length: size }, (_, i) => Math.imul(i + seed, 0x9e37_79b1) >>> 24)

test('native copies have the results of copies by TypeScript', {
  skip: copier === undefined && 'not built',
}, () => {
  const arena = mapArena(0x2_0000)
  const { bytes } = arena
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5000 }),
      fc.nat(300),
      fc.nat(60_000),
      fc.nat(5000),
      fc.nat(300),
      fc.boolean(),
      (chunk, gap, wanted, start, arenaOffset, isRead) => {
        const stride = chunk + gap
        // the chunks and gaps fit into 60,000 bytes of the arena
        const total = Math.min(wanted, chunk * Math.floor(60_000 / stride))
        const results = [copier, undefined].map(nativeCopier => {
          const space = createLocalSpace(nativeCopier)
          const memory = random(70_000, 7)
          const address = space.add(memory) + start
          bytes.set(random(bytes.length, 1))
          const move = isRead ? space.read : space.write
          assert.equal(move(...halves(address), arena, arenaOffset, chunk, stride, total), 0)
          return [memory, bytes.slice()]
        })
        const [[memory, arenaBytes], [expectedMemory, expectedArenaBytes]] = results
        assert.equal(Buffer.compare(memory, expectedMemory), 0)
        assert.equal(Buffer.compare(arenaBytes, expectedArenaBytes), 0)
      },
    ),
    { numRuns: 60 },
  )
})

test('a write to a part of a buffer, shared or not, changes only that part', {
  skip: copier === undefined && 'not built',
}, () => {
  const arena = mapArena(4096)
  for (const whole of [new Uint8Array(4096), new Uint8Array(new SharedArrayBuffer(4096))]) {
    whole.fill(9)
    const space = createLocalSpace(copier)
    const address = space.add(whole.subarray(1000, 2000))
    arena.bytes.fill(5)
    const [chunk, stride] = [500, 600]
    assert.equal(space.write(...halves(address), arena, 0, chunk, stride, 1000), 0)
    assert.equal(space.write(...halves(address), arena, 0, chunk, stride, 1001), EFAULT)
    assert.deepEqual([...new Set(whole.subarray(0, 1000))], [9])
    assert.deepEqual([...new Set(whole.subarray(1000, 2000))], [5])
    assert.deepEqual([...new Set(whole.subarray(2000))], [9])
  }
})

test('a write to a transferred buffer is EFAULT', {
  skip: copier === undefined && 'not built',
}, () => {
  const arena = mapArena(4096)
  const space = createLocalSpace(copier)
  const memory = new Uint8Array(4096)
  const address = space.add(memory)
  structuredClone(memory.buffer, { transfer: [memory.buffer] })
  assert.equal(space.write(...halves(address), arena, 0, 512, 512, 1024), EFAULT)
})

test('loadNativeCopier returns undefined for an absent library', () =>
  assert.equal(loadNativeCopier('/nowhere/absent.so'), undefined))
