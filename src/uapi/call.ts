/*
 * The interface of every dialect's codec: one typed call and its answer (docs/decisions/one-table-per-fact.md, R41,
 * R42).
 *
 * A dialect turns the bytes of a system call into a `Call`. Core runs the call. The dialect turns the `Result`, or the
 * refusal, into bytes, return value and new file descriptors. Objects are handles here.
 */

import type { LinuxAbi } from '../spec/drivers/linux-abi.ts'
import type { CallError } from '../spec/errno.ts'
import type { LinkName } from '../spec/links.ts'
import type { Place, Reason } from '../spec/reason.ts'
import type { AnyValues, Kind, Method, ObjectClass } from '../spec/schema/schema.ts'

export interface Call {
  readonly class: ObjectClass
  readonly methodName: string
  /** The device's version of the method: core's attributes and the driver's (ids from 0x8000). */
  readonly method: Method
  /**
   * The handle, core's number of an fd object, or a port number. 0 for a create, for a fixed object other than a port,
   * and, in the object dialect, for a call on the object's own descriptor.
   */
  readonly object: number
  /** By attribute name. References are handles; fd references are the caller's descriptor numbers. */
  readonly args: AnyValues
}

/** The answer of a method. */
export interface Result {
  /** The handle of a new object that is not an fd object. */
  readonly object?: number
  /** By attribute name, with the driver's attributes, without new fd objects. */
  readonly out: AnyValues
  /** Handles of all new objects, for pd.createAhs and chains (lists of calls that run as one). */
  readonly createdObjects?: readonly number[]
  /** New file descriptors for the caller. */
  readonly descriptors?: readonly NewDescriptor[]
  /** Called by core if the answer cannot be delivered: puts back what the call has removed, for example an event. */
  readonly putBack?: () => void
}

/** A new descriptor for the caller. */
export interface NewDescriptor {
  /** Core's number of the fd object. */
  readonly object: number
  /** The out attribute for the descriptor's number, or `object` for the created object. */
  readonly attribute: string
  /** Byte offset of the number in the attribute's value; default 0. */
  readonly offset?: number
}

/** A descriptor number to write to the caller's memory once the descriptor is installed in the caller. */
export interface Install {
  readonly descriptor: NewDescriptor
  readonly address: bigint
  /** Bytes of the number, little-endian. */
  readonly width: 4 | 8
}

/** The result of one system call for the caller. */
export interface Answer {
  /** ≥ 0: the return value. < 0: negative errno. */
  readonly ret: number
  readonly installs: readonly Install[]
  /** Reason of a refusal. */
  readonly reason?: Reason
  /** Name of a call that was not decoded into a method, for the trace. */
  readonly attempt?: string
  /** With `installs` or adopted memory: undoes the call. To be called if the caller cannot get them. */
  readonly undo?: () => void
}

/** One decoded system call, ready to run. */
export interface Decoded {
  readonly call: Call
  /**
   * What `call` lacks of the caller's message: pointers, lengths, the order of attributes, bytes that the kernel
   * ignores. With the object dialect's LEGACY attribute, translation is lossless in both directions. Undefined
   * for calls on rdma_cm and umad files, and for calls of the object dialect without LEGACY.
   */
  legacy(): Uint8Array | undefined
  /**
   * Writes the result to the caller's memory. If `ret` of the answer to a Result is negative, the result was not
   * delivered, and core undoes the call: it destroys created objects and calls `putBack`. Never throws a CallError.
   */
  answer(outcome: Result | CallError): Answer
  /**
   * The result that Linux's kernel has written to the caller's memory, which `after` reads: the inverse of `answer`.
   * The objects of descriptors are the caller's numbers. `ret`: the call's result, ≥ 0. Undefined for calls that only
   * our own devices answer. Throws CallError for memory that cannot be read.
   */
  readResult?(after: Pick<CallerView, 'copyIn'>, ret: number): Result
}

/** Whether decoding has answered the call: it was refused, or needs no method. */
export const isAnswer = (decoded: Decoded | Answer): decoded is Answer => 'ret' in decoded

/** A device's classes and methods, with the driver's attributes. */
export interface Schema {
  /** Driver id of Linux (RDMA_DRIVER_RXE = 14), which the ioctl dialect checks. */
  readonly driverId: number
  /** The driver's bytes in Linux's dialects; absent: none. */
  readonly linux?: LinuxAbi | undefined
  /** Selects among alternatives in Linux's structs; RoCE if undefined. */
  readonly link?: LinkName | undefined
  classById(id: number): ObjectClass | undefined
  classByName(name: string): ObjectClass | undefined
}

/** Kinds of attributes that refer to objects. */
type ReferenceKind = Extract<Kind, { readonly class: string }>

/** The calling process and its context. */
export interface CallerView {
  readonly schema: Schema
  /** Reads the caller's memory. Throws CallError EFAULT. */
  copyIn(address: bigint, length: number): Uint8Array
  /** Writes to the caller's memory. Throws CallError EFAULT. */
  copyOut(address: bigint, bytes: Uint8Array): void
  /** The class of a handle, for calls that do not encode the class (MODIFY_QP, DESTROY_QP). */
  classOf(handle: number): ObjectClass | undefined
  /**
   * In a chain: the handle or descriptor number, by `type`, of the object that entry number `entry` created. `where`
   * begins error messages. Throws CallError EINVAL if the entry created no object.
   */
  readonly chained?: ((where: Place, type: ReferenceKind, entry: number) => number) | undefined
  /** Whether GET_CONTEXT (device.open) has succeeded on this descriptor. Before, other calls are EINVAL. */
  readonly hasContext: boolean
}
