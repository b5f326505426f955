/*
 * All CRC implementations agree with zlib or with a bit-by-bit CRC.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, test } from 'node:test'
import { crc32 as zlibCrc32 } from 'node:zlib'
import type { Arena } from '../../../src/transport/wire/arena.ts'
import { arenaOver, plainArena } from '../../../src/transport/wire/arena.ts'
import {
  type CrcEngine,
  crc32,
  crcBackward,
  crcByTable,
  crcEngineName,
  crcForward,
  crcOfArena,
  useCrcEngine,
} from '../../../src/transport/wire/crc.ts'
import { repoRoot } from '../../paths.ts'
import { findTool, inCi } from '../../tools.ts'

const random = Uint8Array.from({ length: 70_000 }, (_, i) => Math.imul(i + 1, 0x9e37_79b1) >>> 24)
const lengths = [...Array.from({ length: 301 }, (_, i) => i), 1023, 1024, 1040, 4095, 4096, 4112, 65_507]

/** An arena with a fake address. */
const addressed = (bytes: Uint8Array): Arena => ({ ...arenaOver(bytes), address: 0x1000 })
/** An engine that computes CRCs by address, as native code does. CRCs of 200 bytes are wrong by `error`. */
const engineOver = (arena: Arena, error = 0): CrcEngine & { calls: number } => ({
  name: 'test',
  minLength: 100,
  calls: 0,
  crc(address, length, seed) {
    this.calls++
    const at = address - arena.address
    return (zlibCrc32(arena.bytes.subarray(at, at + length), seed) ^ (length === 200 ? error : 0)) >>> 0
  },
})

afterEach(() => useCrcEngine(undefined))

describe('CRC-32', () => {
  test('the CRC of "123456789" is the check value of CRC-32', () =>
    assert.equal(crc32(Buffer.from('123456789')), 0xcbf4_3926))

  test('crcByTable and crcOfArena equal zlib at many lengths, offsets and seeds', () => {
    const arena = arenaOver(random)
    for (const length of lengths) {
      const offset = length % 13
      const seed = Math.imul(length, 0x85eb_ca6b) >>> 0
      const expected = zlibCrc32(random.subarray(offset, offset + length), seed)
      assert.equal(crcByTable(random, offset, length, seed) >>> 0, expected, `table, ${length} bytes`)
      assert.equal(crcOfArena(arena, offset, length, seed) >>> 0, expected, `crcOfArena, ${length} bytes`)
      assert.equal(crcOfArena(arena, offset, length, seed | 0) >>> 0, expected, `signed seed, ${length} bytes`)
    }
  })

  test('an arena may start inside its buffer', () => {
    const part = random.subarray(1001, 3001)
    assert.equal(crcOfArena(arenaOver(part), 7, 900, 5) >>> 0, zlibCrc32(part.subarray(7, 907), 5))
  })

  test('crcForward and crcBackward are inverse', () => {
    for (let i = 0, r = 1; i < 1000; i++, r = Math.imul(r, 1_664_525) + 1_013_904_223) {
      assert.equal(crcBackward(crcForward(r)) | 0, r | 0)
      assert.equal(crcForward(crcBackward(r)) | 0, r | 0)
    }
  })
})

describe('CRC engine', () => {
  test('an engine serves arenas with an address from its minimum length on', () => {
    const arena = addressed(random.slice())
    const engine = engineOver(arena)
    useCrcEngine(engine, arena)
    assert.equal(crcEngineName(), 'test')
    engine.calls = 0
    const expected = zlibCrc32(arena.bytes.subarray(3, 103), 9)
    assert.equal(crcOfArena(arena, 3, 100, 9) >>> 0, expected)
    assert.equal(engine.calls, 1)
    assert.equal(crcOfArena(arena, 3, 99, 9) >>> 0, zlibCrc32(arena.bytes.subarray(3, 102), 9))
    assert.equal(crcOfArena(arenaOver(arena.bytes), 3, 100, 9) >>> 0, expected)
    assert.equal(engine.calls, 1)
    useCrcEngine(undefined)
    assert.equal(crcEngineName(), 'zlib')
    assert.equal(crcOfArena(arena, 3, 100, 9) >>> 0, expected)
    assert.equal(engine.calls, 1)
  })

  test('an engine that computes a wrong CRC is refused, and zlib stays in use', () => {
    const arena = addressed(new Uint8Array(1024))
    assert.throws(() => useCrcEngine(engineOver(arena, 1), arena), /CRC engine test is wrong: 200 bytes from seed 0x/)
    assert.equal(crcEngineName(), 'zlib')
  })

  test('the check needs an arena of at least 1024 bytes that has an address', () => {
    const engine = engineOver(addressed(new Uint8Array(1024)))
    assert.throws(() => useCrcEngine(engine), /needs an arena of at least 1024 bytes that has an address/)
    assert.throws(() => useCrcEngine(engine, plainArena(4096)), /that has an address/)
    assert.throws(() => useCrcEngine(engine, addressed(new Uint8Array(1000))), /at least 1024 bytes/)
  })
})

const hasCompiler = inCi() || findTool('cc') !== undefined
test('native/native.c: each implementation equals a bit-by-bit CRC', {
  skip: hasCompiler ? false : 'no C compiler (cc)',
}, t => {
  const folder = mkdtempSync(join(tmpdir(), 'userdma-crc-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const program = join(folder, 'crc32-check')
  const source = join(repoRoot, 'test', 'transport', 'wire', 'crc32-check.c')
  const flags = ['-O2', '-Wall', '-Wextra', '-Werror', '-o', program, source]
  const sanitized = spawnSync('cc', ['-fsanitize=address,undefined', ...flags])
  if (sanitized.status !== 0) execFileSync('cc', flags)
  t.diagnostic(execFileSync(program, { encoding: 'utf8' }).trim())
})
