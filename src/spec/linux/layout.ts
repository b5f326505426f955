/*
 * The language in which write.ts, ioctl.ts and ucma.ts describe Linux's structs: which bytes of a struct are which
 * attribute of a method (docs/decisions/one-table-per-fact.md). Little-endian.
 *
 * A layout is a list of cells. The remaining bytes are padding, pointers, and fields that the kernel does not read.
 * Decoding a request of write.ts or ioctl.ts keeps these bytes as `legacy` (`CommonAttribute.LEGACY`); encoding writes
 * them back.
 */
import type { ErrnoName } from '../errno.ts'
import type { LinkName } from '../links.ts'
import { type Fields, sizeOf } from '../schema/schema.ts'

/**
 * Kinds of cells:
 * - `value`: the attribute's value
 * - `bool`: every number except 0 counts as 1, as in the kernel
 * - `bit`: a nonzero value sets `bit` of a flags attribute
 * - `object`: in a request the object of the call, in a response the handle of the new object
 * - `class`: a number that selects the class
 * - `fd`: in a request a descriptor, or a negative number for none; in a response a new descriptor, that of the new
 *   object if the cell's name is `object`
 * - `zero`: a value other than 0 is refused with `errno`
 * - `length`: number of bytes written to the response
 */
type CellKind = 'value' | 'bool' | 'bit' | 'object' | 'class' | 'fd' | 'zero' | 'length'

export interface Cell {
  /** Offset in the struct, and size, in bytes. */
  readonly at: number
  readonly size: number
  readonly kind: CellKind
  /** Name of the attribute, or `attribute.field` for a field of a record. */
  readonly name: string
  readonly bit?: number
  /** `value`: bits that the kernel reads; `zero`: bits that must be 0. */
  readonly mask?: number
  readonly errno?: ErrnoName
  /** `value`: the value is present if the byte at this offset of the struct is not 0. */
  readonly presentAt?: number
  /** The value in the response of a class without the attribute; default 0. */
  readonly fallback?: number
  /** The attribute's bit in the attribute mask; default 1 << (id - 1). */
  readonly maskBit?: number
  /** Only for devices of this link (spec/links.ts). A device whose link is not known counts as RoCE. */
  readonly link?: LinkName
  /** A handle: of several cells at this offset, the class of the object selects one. */
  readonly byClass?: true
}

/** The packed specs after a struct (uapi/linux/flow-layout.ts). */
export interface PackedSpecs {
  /** Offset of the number of bytes of the specs (u16). */
  readonly sizeAt: number
  /** Offset of the number of specs (u8). */
  readonly countAt: number
  /** The attribute for the spec FlowAction.COUNT. */
  readonly counters: string
}

export interface Layout {
  /** Bytes of the C struct. */
  readonly size: number
  readonly cells: readonly Cell[]
  /** Offset of the attribute mask (u32): bit n is set if the attribute with id n + 1 is present. */
  readonly maskAt?: number
  /**
   * Mask bits that the kernel knows. Other bits are refused with EOPNOTSUPP, bits of attributes that the class lacks
   * with EINVAL.
   */
  readonly maskBits?: number
  /** Mask bits that the kernel ignores, by class. */
  readonly ignored?: Readonly<Record<string, number>>
  /** The attribute in the bytes after the struct: a blob, or a list. */
  readonly tail?: string
  /** Offset of a u32, the log2 of the number of records in `tail`. */
  readonly tailLogAt?: number
  /** The records of the list `tail` are packed specs (uapi/linux/flow-layout.ts). */
  readonly tailSpecs?: PackedSpecs
}

export const value = (at: number, size: number, name: string, mask?: number): Cell => ({
  at,
  size,
  kind: 'value',
  name,
  ...(mask === undefined ? {} : { mask }),
})
export const valueIfPresent = (presentAt: number, at: number, size: number, name: string): Cell => ({
  ...value(at, size, name),
  presentAt,
})
export const valueByBit = (at: number, size: number, name: string, maskBit: number): Cell => ({
  ...value(at, size, name),
  maskBit,
})
/** A handle for one of the attributes `names`, selected by the object's class. Without an object: the first name. */
export const valueByClass = (at: number, ...names: readonly string[]): Cell[] =>
  names.map(name => ({ ...value(at, 4, name), byClass: true }))
export const withFallback = (cell: Cell, fallback: number): Cell => ({ ...cell, fallback })
export const bool = (at: number, name: string): Cell => ({ at, size: 1, kind: 'bool', name })
export const bit = (at: number, size: number, name: string, bitOfAttribute: number): Cell => ({
  at,
  size,
  kind: 'bit',
  name,
  bit: bitOfAttribute,
})
export const object = (at: number, size: 1 | 4 | 8 = 4): Cell => ({ at, size, kind: 'object', name: 'object' })
export const classSelector = (at: number, size: 1 | 4 | 8): Cell => ({ at, size, kind: 'class', name: 'class' })
/** Negative: none. `errno`: of negative numbers other than -1, if they are refused. */
export const descriptor = (at: number, name: string, errno?: ErrnoName): Cell => ({
  at,
  size: 4,
  kind: 'fd',
  name,
  ...(errno && { errno }),
})
export const zero = (at: number, size: number, errno: ErrnoName): Cell => ({
  at,
  size,
  kind: 'zero',
  name: 'zero',
  errno,
})
/** A u32 whose bits in `mask` must be 0. */
export const zeroBits = (at: number, mask: number, errno: ErrnoName): Cell => ({ ...zero(at, 4, errno), mask })
export const filledLength = (at: number): Cell => ({ at, size: 4, kind: 'length', name: 'length' })

/**
 * Cells of the record `name` at offset `at`, laid out as in the object dialect; only fields at offsets below `limit`.
 */
export const embed = (at: number, name: string, fields: Fields, limit = Number.POSITIVE_INFINITY): Cell[] =>
  Object.entries(fields)
    .filter(([, field]) => field.offset < limit)
    .map(([field, { offset, type }]) => value(at + offset, sizeOf(type), `${name}.${field}`))

export const layout = (size: number, ...cells: readonly (Cell | readonly Cell[])[]): Layout => ({
  size,
  cells: cells.flat(),
})
