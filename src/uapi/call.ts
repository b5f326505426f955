/*
 * The interface of every dialect's codec: one typed call and its answer (docs/decisions/one-table-per-fact.md, R41,
 * R42).
 *
 * A dialect turns the bytes of a call into a `Call`, core runs it, and the dialect turns the `Result`, or the refusal,
 * into the bytes, the return value and the new file descriptors that callers of this dialect expect. Objects are
 * handles here.
 */
import type { CallError } from '../spec/errno.ts'
import type { LinkName } from '../spec/links.ts'
import type { AnyValues, Kind, Method, ObjectClass } from '../spec/schema/schema.ts'

/** One call, independent of its dialect. */
export interface Call {
  readonly class: ObjectClass
  readonly methodName: string
  /** The device's own version of the method: core's attributes and its driver's (ids from 0x8000). */
  readonly method: Method
  /**
   * The handle, core's number of an fd object, or a port number. 0 for a create, for a fixed object that is no port,
   * and in the object dialect for a call on the object's own descriptor.
   */
  readonly object: number
  /** By attribute name; references are handles, fd references are the caller's descriptor numbers. */
  readonly args: AnyValues
}

/** The answer of a method. */
export interface Result {
  /** The new object's handle; a new fd object is in `descriptors` instead. */
  readonly object?: number
  /** By attribute name, including the driver's; new fd objects are in `descriptors` instead. */
  readonly out: AnyValues
  /**
   * Handles of all new objects, of a call that can create several: a chain (a list of calls that run as one, R16) and
   * pd.createAhs.
   */
  readonly createdObjects?: readonly number[]
  /** New file descriptors for the caller; the daemon makes and passes them. */
  readonly descriptors?: readonly NewDescriptor[]
  /** Called by core if the answer cannot be delivered: puts back what the call has removed, an event for example. */
  readonly undelivered?: () => void
}

/** A new descriptor for the caller: core's fd object, and where in the result the descriptor's number belongs. */
export interface NewDescriptor {
  /** Core's number of the fd object. */
  readonly object: number
  /** Name of the out attribute, or `object` for the created object itself. */
  readonly attribute: string
  /** Byte offset of its number in the attribute's value; 0 if it is the value. */
  readonly offset?: number
}

/** A descriptor number to be written to the caller's memory once the descriptor is installed there. */
export interface Install {
  readonly descriptor: NewDescriptor
  readonly address: bigint
  /** Bytes of the number at `address`, little-endian. */
  readonly width: 4 | 8
}

/** The result of one system call for the caller. */
export interface Answer {
  /** ≥ 0: the return value. < 0: negative errno. */
  readonly ret: number
  readonly installs: readonly Install[]
  /** Reason of a refusal; absent on success. */
  readonly reason?: string
  /** Name of the call, for the trace, if it was answered without being decoded into a method: most are refused. */
  readonly attempt?: string
}

/** One decoded system call, ready to run. */
export interface Decoded {
  readonly call: Call
  /**
   * What the caller's message contains and `call` does not: pointers, lengths, the order of attributes, bytes that the
   * kernel ignores. Carried in the object dialect's LEGACY attribute, so that translation is lossless in both
   * directions (R41). Undefined for calls on rdma_cm and umad files, and for calls of the object dialect without
   * LEGACY.
   */
  legacy(): Uint8Array | undefined
  /**
   * Writes the result to the caller's memory; the returned answer has the return value and what remains to be done. If
   * the answer to a Result has ret < 0, the result was not delivered, and core undoes the call: it destroys created
   * objects and calls `undelivered`. Never throws a CallError.
   */
  answer(outcome: Result | CallError): Answer
}

/** Whether decoding has already answered the call. */
export const isAnswer = (decoded: Decoded | Answer): decoded is Answer => 'ret' in decoded

/** A device's classes and methods for decoding, with driver attributes merged in. */
export interface Schema {
  /** Numeric driver id of Linux (RDMA_DRIVER_RXE = 14), which the ioctl dialect checks. */
  readonly driverId: number
  /** The RDMA protocol of the ports, which selects among alternatives in Linux's structs; RoCE if undefined. */
  readonly link?: LinkName | undefined
  classById(id: number): ObjectClass | undefined
  classByName(name: string): ObjectClass | undefined
}

/** The calling process and its context, for codecs. */
export interface CallerView {
  readonly schema: Schema
  /** Reads the caller's memory. Throws CallError EFAULT. */
  copyIn(address: bigint, length: number): Uint8Array
  /** Writes to the caller's memory. Throws CallError EFAULT. */
  copyOut(address: bigint, bytes: Uint8Array): void
  /** The class of a handle, for calls that do not encode it (MODIFY_QP, destroying a QP). */
  classOf(handle: number): ObjectClass | undefined
  /**
   * In a chain: the handle or descriptor number, depending on `type`, of the object that entry number `entry` created.
   * `where`: the beginning of error messages. Throws CallError EINVAL if the entry created none.
   */
  readonly chained?: ((where: string, type: Kind, entry: number) => number) | undefined
  /** Whether GET_CONTEXT (device.open) has succeeded on this descriptor; before that other calls are EINVAL. */
  readonly hasContext: boolean
}
