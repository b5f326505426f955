/*
 * Rows "icrc": the invariant CRC of a packet, compared with zlib's crc32 over the packet's bytes. As in the daemon, the
 * ICRC is computed by native code if built, otherwise by zlib, and by a table for short packets.
 */
import { crc32 } from 'node:zlib'
import { loadNativeCrc } from '../src/host/crc.ts'
import { mapArena } from '../src/host/memory/mapping.ts'
import { hasNative } from '../src/host/native.ts'
import { ICRC_BYTES } from '../src/spec/wire/headers.ts'
import { plainArena } from '../src/transport/wire/arena.ts'
import { crcEngineName, useCrcEngine } from '../src/transport/wire/crc.ts'
import { icrcOf, makeFlow } from '../src/transport/wire/icrc.ts'
import type { Bench, Row } from './harness/harness.ts'
import { type Body, perCall } from './loops.ts'

const ARENA_BYTES = 65536

const compare = (size: number): Bench => {
  const arena = hasNative() ? mapArena(ARENA_BYTES) : plainArena(ARENA_BYTES)
  const native = loadNativeCrc()
  if (native && arena.address !== 0) useCrcEngine(native, arena)
  const { bytes } = arena
  // Pseudo-random bytes.
  for (let i = 0; i < bytes.length; i++) bytes[i] = Math.imul(i, 0x9e37_79b1) >>> 24

  const flow = makeFlow({
    source: Uint8Array.of(192, 0, 2, 1),
    destination: Uint8Array.of(192, 0, 2, 2),
    sourcePort: 4791,
    destinationPort: 4791,
  })
  const covered = bytes.subarray(0, size)
  const ours: Body = times => {
    let sum = 0
    // Each packet has another IPv4 identification, of 16 bits.
    for (let i = 0; i < times; i++) sum ^= icrcOf(arena, 0, size + ICRC_BYTES, flow, i & 0xffff)
    return sum
  }
  const reference: Body = times => {
    let sum = 0
    // Each CRC begins with another value.
    for (let i = 0; i < times; i++) sum ^= crc32(covered, i)
    return sum
  }
  return { ours: perCall(ours), reference: perCall(reference), note: `engine: ${crcEngineName()}` }
}

export const icrcRows: readonly Row[] = [64, 1024, 4096].map(size => ({
  name: `icrc ${size}`,
  quantity: `ICRC of ${size} B`,
  unit: 'ns',
  better: 'lower',
  cores: 1,
  reference: 'zlib.crc32',
  floor: 1.1,
  aim: 0.4,
  prepare: () => compare(size),
}))
