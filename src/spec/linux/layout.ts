/*
 * The language of Linux's structs: which bytes of a struct are which attribute of a method
 * (docs/decisions/one-table-per-fact.md). Little-endian.
 *
 * A layout is a list of cells. What no cell covers is padding, a pointer or something that the kernel does not read; a
 * codec keeps such bytes apart (`legacy`) and sends zeros where it has none.
 */
import type { ErrnoName } from '../errno.ts'
import type { LinkName } from '../links.ts'
import { type Fields, sizeOf } from '../schema/schema.ts'

/**
 * How a cell is understood:
 * - `value`: the attribute's value; `bool`: 0 or 1, where the kernel takes any other number for 1; `bit`: ≠ 0 is `bit`
 *   of a flags attribute
 * - `object`: the object id of the call, or the new handle; `class`: a number that tells the class (`classes`),
 *   `family` one that tells several (`families`)
 * - `fd`: a descriptor; going in a negative number is none; coming out it is installed there. The name `object` is the
 *   new object
 * - `zero`: anything but 0 is refused with `errno`; `length`: bytes of the response that were filled
 */
export type CellKind = 'value' | 'bool' | 'bit' | 'object' | 'class' | 'fd' | 'zero' | 'length'

export interface Cell {
  readonly at: number
  readonly size: number
  readonly as: CellKind
  /** Attribute, or attribute.field inside a record. */
  readonly name: string
  readonly bit?: number
  /** Bits of the value that the kernel takes; it ignores the others. */
  readonly mask?: number
  readonly errno?: ErrnoName
  /** Offset of a byte that says whether the value is there: ≠ 0. */
  readonly when?: number
  /** What the kernel answers there of a class without the attribute, if that is not 0. */
  readonly lacking?: number
  /** Bit of the attribute mask, where it is not that of the attribute's id. */
  readonly maskBit?: number
  /** Of devices of this link only (spec/links.ts); those that name none are as RoCE's. */
  readonly link?: LinkName
  /** A handle that is the value of one attribute of several: of that whose class the object has. */
  readonly byClass?: true
}

/** Where a struct tells how long the packed specs behind it are (flow.ts): bytes (u16) and how many (u8). */
export interface PackedSpecs {
  readonly size: number
  readonly count: number
  /** The attribute that one of them stands for: the counters that a rule counts into. */
  readonly counters: string
}

export interface Layout {
  /** Of the struct in C. */
  readonly size: number
  readonly cells: readonly Cell[]
  /** Byte offset of an attribute mask (u32): bit n says whether the attribute with id n + 1 is there. */
  readonly mask?: number
  /** Mask bits that the kernel knows; others are EOPNOTSUPP, those of attributes that the class lacks EINVAL. */
  readonly maskBits?: number
  /** By class: mask bits that the kernel takes away for it, whatever they would say. */
  readonly ignored?: Readonly<Record<string, number>>
  /** Bytes after the struct belong to this attribute: a blob, or a list. */
  readonly tail?: string
  /** Byte offset of the logarithm (u32) of the number of records in that list. */
  readonly tailLog?: number
  /** The list is one of packed specs. */
  readonly tailSpecs?: PackedSpecs
}

export const value = (at: number, size: number, name: string, mask?: number): Cell => ({
  at,
  size,
  as: 'value',
  name,
  ...(mask === undefined ? {} : { mask }),
})
/** A value that is there if the byte at `when` is not 0. */
export const valueWhen = (when: number, at: number, size: number, name: string): Cell => ({
  ...value(at, size, name),
  when,
})
/** A value whose presence another bit of the mask says than its id does. */
export const valueByBit = (at: number, size: number, name: string, maskBit: number): Cell => ({
  ...value(at, size, name),
  maskBit,
})
/** A handle that is one of the attributes `names`: which, the class of the object says; if it has none, the first. */
export const valueByClass = (at: number, ...names: readonly string[]): Cell[] =>
  names.map(name => ({ ...value(at, 4, name), byClass: true }))
/** A cell of a response, and what is there for classes without its attribute. */
export const orElse = (cell: Cell, lacking: number): Cell => ({ ...cell, lacking })
export const bool = (at: number, name: string): Cell => ({ at, size: 1, as: 'bool', name })
export const bit = (at: number, size: number, name: string, of: number): Cell => ({
  at,
  size,
  as: 'bit',
  name,
  bit: of,
})
export const object = (at: number, size: 1 | 4 | 8 = 4): Cell => ({ at, size, as: 'object', name: 'object' })
export const whichClass = (at: number, size: 1 | 4 | 8): Cell => ({ at, size, as: 'class', name: 'class' })
export const descriptor = (at: number, name: string): Cell => ({ at, size: 4, as: 'fd', name })
export const zero = (at: number, size: number, errno: ErrnoName): Cell => ({
  at,
  size,
  as: 'zero',
  name: 'zero',
  errno,
})
/** The same of some bits of 4 bytes. */
export const zeroBits = (at: number, mask: number, errno: ErrnoName): Cell => ({ ...zero(at, 4, errno), mask })
export const filledLength = (at: number): Cell => ({ at, size: 4, as: 'length', name: 'length' })

/**
 * A whole record that lies in the struct as it lies in the object dialect, `limit`: its fields below that offset only.
 */
export const embed = (at: number, name: string, fields: Fields, limit = Number.POSITIVE_INFINITY): Cell[] =>
  Object.entries(fields)
    .filter(([, field]) => field.offset < limit)
    .map(([field, { offset, of }]) => value(at + offset, sizeOf(of), `${name}.${field}`))

export const layout = (size: number, ...cells: readonly (Cell | readonly Cell[])[]): Layout => ({
  size,
  cells: cells.flat(),
})
