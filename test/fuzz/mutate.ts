/*
 * Mutations of inputs: changed bits and bytes, boundary numbers, and ranges that are removed, duplicated, inserted or
 * copied from another input. If a target splits its inputs into parts, also parts are removed, duplicated, copied and
 * swapped as a whole, which preserves the structure.
 */
import type { RandomSource } from '../model/random.ts'

/** Longest input, in bytes. */
export const MAX_INPUT = 4096

/** Boundary numbers of at most 15 bits, and larger ones. */
const NUMBERS = [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 1023, 1024, 4095, 4096, 0x7fff]
const WIDE = [0x8000, 0xffff, 0xff_ffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]

type Change = (bytes: Uint8Array, other: Uint8Array, random: RandomSource) => Uint8Array

const joined = (...parts: readonly Uint8Array[]): Uint8Array => {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

const inPlace =
  (edit: (bytes: Uint8Array, at: number, random: RandomSource) => void): Change =>
  (bytes, _other, random) => {
    if (bytes.length > 0) edit(bytes, random.int(bytes.length), random)
    return bytes
  }
const randomRange = (bytes: Uint8Array, random: RandomSource): [number, number] => {
  const from = random.int(bytes.length + 1)
  return [from, from + random.int(Math.min(64, bytes.length - from) + 1)]
}

const changes: readonly Change[] = [
  inPlace((bytes, at, random) => bytes.fill(bytes[at] ^ (1 << random.int(8)), at, at + 1)),
  inPlace((bytes, at, random) => bytes.fill(random.u32(), at, at + 1)),
  inPlace((bytes, at, random) => bytes.fill(bytes[at] + random.int(9) - 4, at, at + 1)),
  inPlace((bytes, at, random) => {
    const width = random.pick([1, 2, 4])
    const value = random.hits(0.7) ? random.pick(NUMBERS) : random.pick(WIDE)
    const little = random.hits(0.3)
    for (let i = 0; i < width && at + i < bytes.length; i++)
      bytes[at + i] = value >>> (8 * (little ? i : width - 1 - i))
  }),
  (bytes, _other, random) => {
    const [from, to] = randomRange(bytes, random)
    return joined(bytes.subarray(0, from), bytes.subarray(to))
  },
  (bytes, _other, random) => {
    const [from, to] = randomRange(bytes, random)
    const at = random.int(bytes.length + 1)
    return joined(bytes.subarray(0, at), bytes.subarray(from, to), bytes.subarray(at))
  },
  (bytes, _other, random) => {
    const fresh = new Uint8Array(1 + random.int(16))
    random.fill(fresh)
    const at = random.int(bytes.length + 1)
    return joined(bytes.subarray(0, at), fresh, bytes.subarray(at))
  },
  (bytes, other, random) => {
    const [from, to] = randomRange(other, random)
    const at = random.int(bytes.length + 1)
    return joined(bytes.subarray(0, at), other.subarray(from, to), bytes.subarray(at + (to - from)))
  },
  (bytes, other, random) =>
    joined(bytes.subarray(0, random.int(bytes.length + 1)), other.subarray(random.int(other.length + 1))),
]

type PartChange = (parts: Uint8Array[], others: readonly Uint8Array[], random: RandomSource) => void

const partChanges: readonly PartChange[] = [
  (parts, _others, random) => void parts.splice(random.int(parts.length), 1),
  (parts, _others, random) => void parts.splice(random.int(parts.length + 1), 0, random.pick(parts)),
  (parts, others, random) => {
    if (others.length > 0) parts.splice(random.int(parts.length + 1), 0, random.pick(others))
  },
  (parts, others, random) => {
    const from = random.int(others.length + 1)
    parts.splice(random.int(parts.length + 1), 0, ...others.slice(from, from + 1 + random.int(8)))
  },
  (parts, _others, random) => {
    const a = random.int(parts.length)
    const b = random.int(parts.length)
    const part = parts[a]
    parts[a] = parts[b]
    parts[b] = part
  },
]

/** A mutation of `bytes` by 1 to 4 changes. `other`: the input to copy from; `split`: `Target.split`. */
export const mutate = (
  bytes: Uint8Array,
  other: Uint8Array,
  split: ((bytes: Uint8Array) => Uint8Array[]) | undefined,
  random: RandomSource,
): Uint8Array => {
  let input: Uint8Array = bytes.slice()
  for (let count = 1 + random.int(4); count > 0; count--) {
    const parts = split !== undefined && random.hits(0.4) ? split(input) : []
    if (split !== undefined && parts.length > 0) {
      random.pick(partChanges)(parts, split(other), random)
      input = joined(...parts)
    } else input = random.pick(changes)(input, other, random)
  }
  return input.length > MAX_INPUT ? input.slice(0, MAX_INPUT) : input
}
