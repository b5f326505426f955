/*
 * What a driver adds to Linux's ABI: its bytes after the structs of the common commands.
 */

import type { IoctlMethod } from '../linux/ioctl.ts'
import type { Layout } from '../linux/layout.ts'
import type { Attributes } from '../schema/schema.ts'

/** A driver's bytes of one method. */
export interface DriverLayout {
  readonly out: Layout
  /** Minimum bytes of the caller's buffer; default `out.size`. 0: a shorter buffer is accepted and not written. */
  readonly minBytes?: number
  /** A shorter buffer gets the beginning, as drivers with extensible structs write it. */
  readonly isTruncated?: true
  /**
   * The driver's bytes of the request. `none`: EINVAL if there are any. `pointer`: the address of the response; EINVAL
   * if there are fewer than 8 bytes. A struct: EINVAL for fewer than `minBytes`, and if bytes after the struct are not
   * 0; missing ones count as 0. Absent: the bytes are ignored.
   */
  readonly input?: 'none' | 'pointer' | { readonly layout: Layout; readonly minBytes: number }
}

/** The classes of a driver's own types of queue pair: by bits of a word of the driver's bytes. */
interface DriverQpClasses {
  /** Offset of the word (u32). */
  readonly at: number
  readonly classes: readonly { readonly bit: number; readonly name: string }[]
}

export interface LinuxAbi {
  /** Layouts of the driver's bytes in responses, by 'class.method'. */
  readonly layouts: Readonly<Record<string, DriverLayout>>
  /** The driver's arguments and outputs that the layouts encode, by class and method. */
  readonly attributes: Readonly<
    Record<string, Readonly<Record<string, { readonly in?: Attributes; readonly out?: Attributes }>>>
  >
  /**
   * Ioctl methods of the driver's own (`driverCreation`, `driverDestruction`, `driverMethod`), and in place of Linux's.
   */
  readonly methods?: readonly IoctlMethod[]
  /** Absent: a queue pair of type DRIVER is of class `driver_qp`. */
  readonly driverQps?: DriverQpClasses
  /** By 'class.method': bits of the attribute of flags that Linux's driver knows and this one has not: EOPNOTSUPP. */
  readonly absentFlags?: Readonly<Record<string, number>>
  /**
   * Attributes of queue pairs that Linux's driver lets programs modify, whatever their types: others are EOPNOTSUPP.
   * Absent: the type decides, with EINVAL.
   */
  readonly qpModifications?: readonly string[]
}
