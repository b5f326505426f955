/*
 * Records that the checker receives: calls, failures, misuse of memory and queues. Further input: requests
 * (spec/check/requests.ts) and refused posts (refused-post.ts).
 */
import type { Failure } from '../spec/check/failures.ts'
import type { Program, Stack } from '../spec/check/findings.ts'
import type { ObjectName } from './objects.ts'

/** A call that has ended. Objects among its arguments are `ObjectName`s. */
export interface CheckedCall {
  /** Microseconds. */
  readonly time: number
  /** The device's name, and its number, which stays the same if the device is renamed. */
  readonly device: string
  readonly deviceNumber: number
  /** The number of the context; each context has handles of its own. */
  readonly context: number
  readonly program: Program | undefined
  /** Whether the client is the TypeScript library; absent: it is not. */
  readonly isLibrary?: boolean
  readonly class: string
  readonly method: string
  /** The object of the call, or the created one; undefined if the call was refused before there was one. */
  readonly object: ObjectName | undefined
  readonly args: Readonly<Record<string, unknown>>
  readonly out: Readonly<Record<string, unknown>>
  /** Present if the call failed. */
  readonly refused?: { readonly errno: number; readonly reason: string }
  /**
   * `call`: the program made it. The other calls destroy an object because a call that created it was rolled back
   * (`undo`), because the program closed the device or ended (`close`), or because the device was removed (`remove`).
   */
  readonly why: 'call' | 'undo' | 'close' | 'remove'
  readonly stack: Stack
}

/** A failure (spec/check/failures.ts), with facts about its request. */
export interface CheckedFailure {
  /** These four as in `CheckedCall`. */
  readonly time: number
  readonly deviceNumber: number
  readonly context: number
  readonly program: Program | undefined
  readonly failure: Failure
  /** The number of the peer's device; undefined if the failure names no peer, or no device of this process. */
  readonly peerDevice: number | undefined
  /**
   * The stack of the post of the failed request, which was posted to a queue of this kind (PostQueue) and number;
   * empty: it is not known.
   */
  postStack(queue: number, number: number): Stack
}

/**
 * A program freed memory of a request before its completion was polled, returned from its stack frame, or forked with
 * it, or used a queue that it inherited by fork: the fields of the MISUSE message (spec/session.ts). `program` is the
 * one that did it, `context` that of the queue.
 */
export interface Misuse {
  readonly time: number
  readonly device: string
  readonly deviceNumber: number
  readonly context: number
  readonly program: Program | undefined
  readonly kind: number
  readonly queue: number
  readonly number: number
  readonly wrId: bigint
  readonly index: number
  readonly address: number
  readonly more: number
  readonly stack: Stack
}

/**
 * A refused call without a method of the object model. `attempt`: Linux's name of the call, such as `MODIFY_QP`, if it
 * could not be decoded; the text of a call on a driver's descriptor.
 */
export interface RefusedAttempt {
  readonly time: number
  readonly device: string
  readonly program: Program | undefined
  readonly attempt: string
  readonly errno: number
  readonly reason: string
  readonly stack: Stack
}
