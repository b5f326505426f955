/*
 * Mutations of inputs. If a target splits its inputs into parts, whole parts are mutated too, which preserves the
 * structure.
 */
import type { RandomSource } from '../model/random.ts'

/** Longest input, in bytes. */
const MAX_INPUT = 4096

/** Boundary numbers of at most 15 bits. */
const SMALL_NUMBERS = [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 1023, 1024, 4095, 4096, 0x7fff]
const LARGE_NUMBERS = [0x8000, 0xffff, 0xff_ffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]

type Change = (bytes: Uint8Array, other: Uint8Array, random: RandomSource) => Uint8Array

const concatenate = (...parts: readonly Uint8Array[]): Uint8Array => {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let offset = 0
  for (const part of parts) {
    bytes.set(part, offset)
    offset += part.length
  }
  return bytes
}

/** A change of bytes at a random offset, without a change of length. */
const inPlace =
  (edit: (bytes: Uint8Array, offset: number, random: RandomSource) => void): Change =>
  (bytes, _other, random) => {
    if (bytes.length > 0) edit(bytes, random.int(bytes.length), random)
    return bytes
  }
/** Start and end of a range of at most 64 bytes; the end is excluded. */
const randomRange = (bytes: Uint8Array, random: RandomSource): [number, number] => {
  const from = random.int(bytes.length + 1)
  return [from, from + random.int(Math.min(64, bytes.length - from) + 1)]
}

const changes: readonly Change[] = [
  // Inverts a bit.
  inPlace((bytes, offset, random) => bytes.fill(bytes[offset] ^ (1 << random.int(8)), offset, offset + 1)),
  // Stores a random byte.
  inPlace((bytes, offset, random) => bytes.fill(random.u32(), offset, offset + 1)),
  // Adds -4 to 4 to a byte.
  inPlace((bytes, offset, random) => bytes.fill(bytes[offset] + random.int(9) - 4, offset, offset + 1)),
  // Stores a boundary number of 1, 2 or 4 bytes.
  inPlace((bytes, offset, random) => {
    const width = random.pick([1, 2, 4])
    const value = random.hits(0.7) ? random.pick(SMALL_NUMBERS) : random.pick(LARGE_NUMBERS)
    const isLittleEndian = random.hits(0.3)
    for (let i = 0; i < width && offset + i < bytes.length; i++)
      bytes[offset + i] = value >>> (8 * (isLittleEndian ? i : width - 1 - i))
  }),
  // Removes a range.
  (bytes, _other, random) => {
    const [start, end] = randomRange(bytes, random)
    return concatenate(bytes.subarray(0, start), bytes.subarray(end))
  },
  // Duplicates a range.
  (bytes, _other, random) => {
    const [start, end] = randomRange(bytes, random)
    const offset = random.int(bytes.length + 1)
    return concatenate(bytes.subarray(0, offset), bytes.subarray(start, end), bytes.subarray(offset))
  },
  // Inserts random bytes.
  (bytes, _other, random) => {
    const inserted = new Uint8Array(1 + random.int(16))
    random.fill(inserted)
    const offset = random.int(bytes.length + 1)
    return concatenate(bytes.subarray(0, offset), inserted, bytes.subarray(offset))
  },
  // Replaces a range by a range of the other input.
  (bytes, other, random) => {
    const [start, end] = randomRange(other, random)
    const offset = random.int(bytes.length + 1)
    return concatenate(bytes.subarray(0, offset), other.subarray(start, end), bytes.subarray(offset + (end - start)))
  },
  // Continues with the end of the other input.
  (bytes, other, random) =>
    concatenate(bytes.subarray(0, random.int(bytes.length + 1)), other.subarray(random.int(other.length + 1))),
]

type PartChange = (parts: Uint8Array[], others: readonly Uint8Array[], random: RandomSource) => void

const partChanges: readonly PartChange[] = [
  // Removes a part.
  (parts, _others, random) => void parts.splice(random.int(parts.length), 1),
  // Duplicates a part.
  (parts, _others, random) => void parts.splice(random.int(parts.length + 1), 0, random.pick(parts)),
  // Copies a part of the other input.
  (parts, others, random) => {
    if (others.length > 0) parts.splice(random.int(parts.length + 1), 0, random.pick(others))
  },
  // Copies up to 8 consecutive parts of the other input.
  (parts, others, random) => {
    const first = random.int(others.length + 1)
    parts.splice(random.int(parts.length + 1), 0, ...others.slice(first, first + 1 + random.int(8)))
  },
  // Swaps two parts.
  (parts, _others, random) => {
    const a = random.int(parts.length)
    const b = random.int(parts.length)
    const part = parts[a]
    parts[a] = parts[b]
    parts[b] = part
  },
]

/** A copy of `bytes` with 1 to 4 changes. Ranges and parts are copied from `other`. */
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
      input = concatenate(...parts)
    } else input = random.pick(changes)(input, other, random)
  }
  return input.length > MAX_INPUT ? input.slice(0, MAX_INPUT) : input
}
