/*
 * The language in which write.ts, ioctl.ts and ucma.ts describe Linux's structs: which bytes of a struct are which
 * attribute of a method (docs/decisions/one-table-per-fact.md). Little-endian.
 *
 * A layout is a list of cells. Bytes that neither a cell nor another property of the layout or command describes are
 * padding, a pointer, or a field that the kernel does not read. Decoding a request of write.ts or ioctl.ts keeps these
 * bytes as `legacy` (`CommonAttribute.LEGACY`); encoding writes them back, or zeros if there are none.
 */
import type { ErrnoName } from '../errno.ts'
import type { LinkName } from '../links.ts'
import { type Fields, sizeOf } from '../schema/schema.ts'

/**
 * Kinds of cells:
 * - `value`: the attribute's value; `bool`: 0 or 1, and any other number counts as 1, as in the kernel; `bit`: a
 *   nonzero value sets `bit` of a flags attribute
 * - `object`: in a request the object id of the call, in a response the handle of the new object; `class`: a number
 *   that selects the class
 * - `fd`: a descriptor. In a request a negative number means none; in a response the cell receives the number of the
 *   new descriptor, which is the new object's if the cell's name is `object`
 * - `zero`: a value other than 0 is refused with `errno`; `length`: number of bytes written to the response
 */
export type CellKind = 'value' | 'bool' | 'bit' | 'object' | 'class' | 'fd' | 'zero' | 'length'

export interface Cell {
  /** Offset in the struct, and size, in bytes. */
  readonly at: number
  readonly size: number
  readonly kind: CellKind
  /** Name of the attribute, or attribute.field for a field of a record. */
  readonly name: string
  readonly bit?: number
  /** `value`: bits that the kernel reads, ignoring the others; `zero`: bits that must be 0. */
  readonly mask?: number
  readonly errno?: ErrnoName
  /** `value`: offset in the struct of a byte that is nonzero if the value is present. */
  readonly presentAt?: number
  /** The value in a response for a class without the attribute, if not 0. */
  readonly fallback?: number
  /** The attribute's bit in the attribute mask (1 << n), if it is not 1 << (id - 1). */
  readonly maskBit?: number
  /**
   * Only for devices of this link (spec/links.ts); absent: for all. A device whose link is not known counts as RoCE.
   */
  readonly link?: LinkName
  /** Several cells with this flag have the same offset: a handle, whose class decides which attribute it is. */
  readonly byClass?: true
}

/**
 * The packed specs behind a struct (flow.ts). At `sizeAt` the struct has the number of their bytes (u16), at `countAt`
 * the number of specs (u8).
 */
export interface PackedSpecs {
  readonly sizeAt: number
  readonly countAt: number
  /** The attribute that the spec FlowAction.COUNT becomes: the counters that the rule increments. */
  readonly counters: string
}

export interface Layout {
  /** Bytes of the C struct. */
  readonly size: number
  readonly cells: readonly Cell[]
  /** Byte offset of an attribute mask (u32): bit n is set if the attribute with id n + 1 is present. */
  readonly maskAt?: number
  /**
   * Mask bits that the kernel knows. Another bit is refused with EOPNOTSUPP, the bit of an attribute that the class
   * lacks with EINVAL.
   */
  readonly maskBits?: number
  /** By class: mask bits that the kernel clears before it reads the mask. */
  readonly ignored?: Readonly<Record<string, number>>
  /** Bytes after the struct are this attribute: a blob, or a list. */
  readonly tail?: string
  /** Byte offset of a u32, the log2 of the number of records in the list `tail`. */
  readonly tailLogAt?: number
  /** The records of the list `tail` are packed specs (flow.ts). */
  readonly tailSpecs?: PackedSpecs
}

export const value = (at: number, size: number, name: string, mask?: number): Cell => ({
  at,
  size,
  kind: 'value',
  name,
  ...(mask === undefined ? {} : { mask }),
})
/** A value that is present if the byte at `presentAt` is not 0. */
export const valueIfPresent = (presentAt: number, at: number, size: number, name: string): Cell => ({
  ...value(at, size, name),
  presentAt,
})
/** A value whose bit in the attribute mask does not follow from its id. */
export const valueByBit = (at: number, size: number, name: string, maskBit: number): Cell => ({
  ...value(at, size, name),
  maskBit,
})
/** A handle that is one of the attributes `names`, by the object's class; the first one if there is no such object. */
export const valueByClass = (at: number, ...names: readonly string[]): Cell[] =>
  names.map(name => ({ ...value(at, 4, name), byClass: true }))
/** A cell of a response with its value for classes without the attribute. */
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
export const descriptor = (at: number, name: string): Cell => ({ at, size: 4, kind: 'fd', name })
export const zero = (at: number, size: number, errno: ErrnoName): Cell => ({
  at,
  size,
  kind: 'zero',
  name: 'zero',
  errno,
})
/** A cell of 4 bytes whose bits in `mask` must be 0; otherwise the call fails with `errno`. */
export const zeroBits = (at: number, mask: number, errno: ErrnoName): Cell => ({ ...zero(at, 4, errno), mask })
export const filledLength = (at: number): Cell => ({ at, size: 4, kind: 'length', name: 'length' })

/**
 * The cells of record `name`, which lies at offset `at` with the same layout as in the object dialect; `limit`: only
 * its fields below that offset.
 */
export const embed = (at: number, name: string, fields: Fields, limit = Number.POSITIVE_INFINITY): Cell[] =>
  Object.entries(fields)
    .filter(([, field]) => field.offset < limit)
    .map(([field, { offset, type }]) => value(at + offset, sizeOf(type), `${name}.${field}`))

export const layout = (size: number, ...cells: readonly (Cell | readonly Cell[])[]): Layout => ({
  size,
  cells: cells.flat(),
})
