/*
 * What every dialect's codec yields and takes: one typed call and its answer (docs/decisions/one-table-per-fact.md,
 * R41, R42).
 *
 * A dialect turns the bytes of a call into a `Call`, core runs it, and the dialect turns the `Result`, or the refusal,
 * into the bytes, the return value and the new file descriptors that this dialect's callers expect. Objects appear here
 * as handles only.
 */
import type { CallError } from '../spec/errno.ts'
import type { LinkName } from '../spec/links.ts'
import type { AnyValues, Kind, Method, ObjectClass } from '../spec/schema/schema.ts'

/** One call, dialect removed. */
export interface Call {
  readonly class: ObjectClass
  readonly methodName: string
  /** The device's own version of the method: core's attributes and its driver's (ids from 0x8000) together. */
  readonly method: Method
  /** The handle, a port number, or 0 (creates, fixed objects, and methods called on the object's own descriptor). */
  readonly object: number
  /** Values by attribute name; references are handles, fd references the caller's descriptor numbers. */
  readonly args: AnyValues
}

/** What a method answered. */
export interface Result {
  /** The new object's handle for a create. */
  readonly object?: number
  /** Values by attribute name, the driver's too; fd objects that were created stand in `descriptors` instead. */
  readonly out: AnyValues
  /** Handles of other objects that the call has made: those of a chain. */
  readonly also?: readonly number[]
  /** File descriptors to install in the caller; the carrier makes them and passes them on. */
  readonly descriptors?: readonly NewDescriptor[]
}

/**
 * A new descriptor for the caller: core's fd object and, once a dialect has placed it, where the caller wants the
 * number.
 */
export interface NewDescriptor {
  /** Core's number of the fd object. */
  readonly object: number
  /** Name of the out attribute, or `object` for the created object itself. */
  readonly attribute: string
  /** Where in the attribute's value its number belongs, bytes; 0 if it is the value. */
  readonly offset?: number
}

/** A descriptor number to be written to the caller's memory once the carrier has installed the descriptor there. */
export interface Install {
  readonly descriptor: NewDescriptor
  readonly address: bigint
  /** Bytes of the number at `address`, little-endian. */
  readonly width: 4 | 8
}

/** The answer to one system call as the caller sees it. */
export interface Answer {
  /** ≥ 0: the call's return value. < 0: minus errno. */
  readonly ret: number
  readonly installs: readonly Install[]
  /** Why it was refused, for the trace; absent on success. */
  readonly reason?: string
  /** Linux's name of the call, for the trace, when it was refused before it was decoded. */
  readonly attempt?: string
}

/** One decoded system call that is to be run. */
export interface Decoded {
  readonly call: Call
  /**
   * What the caller's bytes say beyond the call: pointers, lengths, the order of attributes, bytes that the kernel
   * ignores. Rides in the object dialect's LEGACY attribute, so that a translation there and back loses nothing (R41).
   * Undefined for a call that never was Linux's.
   */
  legacy(): Uint8Array | undefined
  /**
   * Writes the outcome to the caller's memory and says what is left to do. An answer with ret < 0 to a Result: the
   * caller could not be told what the call has created, core destroys it again. Never throws a CallError.
   */
  answer(outcome: Result | CallError): Answer
}

/** Whether decoding has settled the call already. */
export const isAnswer = (decoded: Decoded | Answer): decoded is Answer => 'ret' in decoded

/** What a device understands: its compiled classes and methods, driver attributes merged in. */
export interface Schema {
  /** Numeric driver id of Linux (RDMA_DRIVER_RXE = 14), which the ioctl dialect checks. */
  readonly driverId: number
  /** What its devices are on: of Linux's structs that is taken which this link has; as of RoCE if it is not said. */
  readonly link?: LinkName | undefined
  classById(id: number): ObjectClass | undefined
  className(name: string): ObjectClass | undefined
}

/** What a codec may ask of the calling process and its context while it decodes and answers. */
export interface CallerView {
  readonly schema: Schema
  /** Bytes of the caller's memory. Throws CallError EFAULT. */
  copyIn(address: bigint, length: number): Uint8Array
  /** Writes to the caller's memory. Throws CallError EFAULT. */
  copyOut(address: bigint, bytes: Uint8Array): void
  /** The class of a live handle, for calls whose bytes do not tell it (MODIFY_QP, the destroy of a QP). */
  classOf(handle: number): ObjectClass | undefined
  /**
   * Inside a chain: how an attribute of kind `of` names the object that entry number `entry` has made. Throws CallError
   * EINVAL for an entry that made none.
   */
  readonly chained?: ((where: string, of: Kind, entry: number) => number) | undefined
  /** Whether GET_CONTEXT has been called on this descriptor; before that every other call is EINVAL. */
  readonly hasContext: boolean
}
