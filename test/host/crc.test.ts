/*
 * The native CRC, and where its library is found.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { loadNativeCrc } from '../../src/host/crc.ts'
import { nativeLibraryPath } from '../../src/host/library.ts'
import { mapArena } from '../../src/host/memory/mapping.ts'
import { repoRoot } from '../paths.ts'

const built = join(repoRoot, 'build', 'native', 'libuserdma_native.so')

/** 2^32 divided by the golden ratio: its multiples look random. */
const SCATTER = 0x9e3779b1
/** 64 KiB of various bytes. */
const variousBytes = () => {
  const arena = mapArena(1 << 16)
  for (let i = 0; i < arena.length; i++) arena.bytes[i] = Math.imul(i, SCATTER) >>> 24
  return arena
}

test('the native CRC is equal to zlib’s', {
  skip: !existsSync(built) && 'not built',
}, () => {
  const engine = loadNativeCrc(built)
  assert.ok(engine)
  const arena = variousBytes()
  assert.equal(engine.crc(arena.address, 0, 0), 0)
  const check = (offset: number, length: number, seed: number): void =>
    assert.equal(
      engine.crc(arena.address + offset, length, seed),
      crc32(arena.bytes.subarray(offset, offset + length), seed),
    )
  for (let length = 0; length < 300; length++) check(length % 17, length, 0)
  fc.assert(
    fc.property(fc.nat(64), fc.nat(60000), fc.integer({ min: 0, max: 0xffffffff }), (offset, length, seed) =>
      check(offset, length, seed),
    ),
  )
})

test('one call for many buffers gives the CRC of each, and leaves the registers after them as they were', {
  skip: !existsSync(built) && 'not built',
}, () => {
  const engine = loadNativeCrc(built)
  assert.ok(engine)
  const arena = variousBytes()
  const { registers } = engine.batch
  for (const [length, stride, count] of [
    [4108, 4112, 15],
    [200, 300, registers.length],
    [1, 1, 3],
    [100, 100, 0],
  ]) {
    const seeds = registers.map((_, i) => Math.imul(i + 1, SCATTER))
    registers.set(seeds)
    engine.batch.crc(arena.address, length, stride, count)
    for (let i = 0; i < registers.length; i++) {
      const wanted: number = i < count ? engine.crc(arena.address + i * stride, length, seeds[i] >>> 0) : seeds[i] >>> 0
      assert.equal(registers[i] >>> 0, wanted)
    }
  }
})

test('loadNativeCrc returns undefined for an absent or unusable library', t => {
  const folder = mkdtempSync(join(tmpdir(), 'userdma-crc-'))
  t.after(() => rmSync(folder, { recursive: true }))
  assert.equal(loadNativeCrc(join(folder, 'absent.so')), undefined)
  writeFileSync(join(folder, 'broken.so'), 'no library')
  assert.equal(loadNativeCrc(join(folder, 'broken.so')), undefined)
  assert.equal(loadNativeCrc('libc.so.6'), undefined, 'a library without the symbol')
})

test('the native library is found in the package’s folder, from a folder below it', t => {
  const folder = mkdtempSync(join(tmpdir(), 'userdma-crc-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const start = join(folder, 'dist', 'src', 'host')
  mkdirSync(start, { recursive: true })
  mkdirSync(join(folder, 'build', 'native'), { recursive: true })
  writeFileSync(join(folder, 'package.json'), '{}')
  assert.equal(nativeLibraryPath(start), undefined)
  const path = join(folder, 'build', 'native', 'libuserdma_native.so')
  writeFileSync(path, '')
  assert.equal(nativeLibraryPath(start), path)
})
