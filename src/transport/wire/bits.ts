/*
 * Reads, writes and checks bit fields of big-endian headers (tables in spec/wire). A field of 1 bit is a boolean, a
 * field of 64 bits a bigint, all others are numbers.
 */
import type { BitField } from '../../spec/wire/headers.ts'

export type BitValue = number | bigint | boolean

export type FieldValue<F> = F extends readonly [number, 1] ? boolean : F extends readonly [number, 64] ? bigint : number

/**
 * Reads the field that begins at bit `first` after byte `at`. The field must be inside one 4-byte word (counted from
 * `at`), or have 64 bits from a byte boundary.
 */
export const getBits = (view: DataView, at: number, [first, width]: BitField): BitValue => {
  if (width === 64) return view.getBigUint64(at + (first >> 3))
  const word = view.getUint32(at + ((first >> 5) << 2))
  const value = width === 32 ? word : (word >>> (32 - (first & 31) - width)) & ((1 << width) - 1)
  return width === 1 ? value !== 0 : value
}

/** Writes a field whose bits are 0 so far. The value must fit, which `misfit` checks. */
export const putBits = (view: DataView, at: number, [first, width]: BitField, value: BitValue): void => {
  if (typeof value === 'bigint') {
    view.setBigUint64(at + (first >> 3), value)
    return
  }
  const word = at + ((first >> 5) << 2)
  view.setUint32(word, view.getUint32(word) | (Number(value) << (32 - (first & 31) - width)))
}

/** By width in bits: the smallest number that is too large. */
const TOO_LARGE = Array.from({ length: 33 }, (_, width) => 2 ** width)
const TOO_LARGE_64 = 1n << 64n

const fits = (width: number, value: unknown): boolean => {
  if (width === 1) return typeof value === 'boolean'
  if (width === 64) return typeof value === 'bigint' && value >= 0n && value < TOO_LARGE_64
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < TOO_LARGE[width]!
}

const allowedValues = (width: number): string => {
  if (width === 1) return 'a boolean'
  return width === 64 ? 'a bigint from 0 to 2^64-1' : `an integer from 0 to ${2 ** width - 1}`
}

/** A value with its type: 'string 1', 'number 1.5'; 'missing' for undefined. */
const valueText = (value: unknown): string => (value === undefined ? 'missing' : `${typeof value} ${value}`)

/** Why a value does not fit a field of `width` bits, as the end of an error message; undefined if it fits. */
export const misfit = (width: number, value: unknown): string | undefined =>
  fits(width, value) ? undefined : `is ${valueText(value)}, allowed is ${allowedValues(width)}`
