/*
 * Input of the checker: calls and failures. Requests: spec/check/requests.ts; refused posts: refused-post.ts.
 */
import type { Failure } from '../spec/check/failures.ts'
import type { Program, Stack } from '../spec/check/findings.ts'
import type { ObjectName } from './objects.ts'

/** A call that has ended. Arguments that are objects have `ObjectName`s. */
export interface CheckedCall {
  readonly time: number
  /** The device's name, and its number, which stays if the device is renamed. */
  readonly device: string
  readonly deviceNumber: number
  /** The number of the context; each context has handles of its own. */
  readonly context: number
  readonly program: Program | undefined
  readonly class: string
  readonly method: string
  /** The object of the call, or the created one; undefined if the call was refused before its object was found. */
  readonly object: ObjectName | undefined
  readonly args: Readonly<Record<string, unknown>>
  readonly out: Readonly<Record<string, unknown>>
  /** The reason of a refusal. */
  readonly refused?: { readonly errno: number; readonly reason: string }
  /** `call`: the program's own; otherwise its device was closed, or removed. */
  readonly why: 'call' | 'undo' | 'close' | 'remove'
  readonly stack: Stack
}

/** A failure (spec/check/failures.ts), with facts about its request. */
export interface CheckedFailure {
  readonly time: number
  /** As in `CheckedCall`. */
  readonly deviceNumber: number
  readonly context: number
  readonly program: Program | undefined
  readonly failure: Failure
  /** The number of the peer's device, if it is here. */
  readonly peerDevice: number | undefined
  /** The stack of the post of the failed request, by its PostQueue and the number of the queue. */
  postStack(queue: number, number: number): Stack
}

/**
 * What the program did with the memory of a request, or with a queue that is not its own: the fields of MISUSE
 * (spec/session.ts). `program`: the one that did it.
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

/** A call that was refused before it was decoded, with Linux's name of it. */
export interface RefusedAttempt {
  readonly time: number
  readonly device: string
  readonly program: Program | undefined
  readonly attempt: string
  readonly errno: number
  readonly reason: string
  readonly stack: Stack
}
