/*
 * Records that the checker receives: calls, failures, misuse of memory and queues, refused calls that are no method of
 * an object. Requests are in spec/check/requests.ts, refused posts in refused-post.ts.
 */
import type { Failure } from '../../spec/check/failures.ts'
import type { Program, Stack } from '../../spec/check/finding.ts'
import type { Wait } from '../../spec/check/waits.ts'
import type { ObjectName } from './objects.ts'

/** A call that has ended. Objects in `args` are `ObjectName`s. */
export interface CheckedCall {
  /** Microseconds. */
  readonly time: number
  /** The device's name. `deviceNumber` survives a renaming. */
  readonly device: string
  readonly deviceNumber: number
  /** The number of the context. Handles belong to a context. */
  readonly context: number
  readonly program: Program | undefined
  /** Whether the client is the TypeScript library. Absent: no. */
  readonly isLibrary?: boolean
  readonly class: string
  readonly method: string
  /** The object of the call, or the created one. Undefined: the call was refused before there was one. */
  readonly object: ObjectName | undefined
  readonly args: Readonly<Record<string, unknown>>
  readonly out: Readonly<Record<string, unknown>>
  /** Present if the call failed. `isTrial`: an UnknownLimitError (spec/errno.ts). */
  readonly refused?: { readonly errno: number; readonly reason: string; readonly isTrial?: boolean }
  /**
   * `call`: the program made the call. The others destroy an object: the call that created it was rolled back
   * (`undo`), the program closed the device or ended (`close`), or the device was removed (`remove`).
   */
  readonly why: 'call' | 'undo' | 'close' | 'remove'
  /** At the destroy or disconnect of an identifier of rdma_cm: the number of its queue pair (rdma_create_qp), if that exists. */
  readonly queuePair?: number
  /** Present if `why` is `close` because a signal ended the program. */
  readonly wasKilled?: true
  readonly stack: Stack
}

/** A program closes a device, or ends. */
export interface ContextEnd {
  readonly context: number
  /** `close`: it closes the device. `exit`: it ends by itself. `kill`: a signal has ended it. */
  readonly how: 'close' | 'exit' | 'kill'
  /** By `ObjectName.id` of the queue pairs that have any: sends that are posted and not complete. */
  readonly pendingSends: ReadonlyMap<number, number>
}

/** What a program waits for, with fields as in `CheckedCall`. */
export interface CheckedWait {
  readonly time: number
  readonly device: string
  readonly deviceNumber: number
  readonly context: number
  readonly program: Program | undefined
  readonly wait: Wait
}

/** A failure, with facts about the failed request. */
export interface CheckedFailure {
  /** `time` to `program`: as in `CheckedCall`. */
  readonly time: number
  readonly deviceNumber: number
  readonly context: number
  readonly program: Program | undefined
  readonly failure: Failure
  /** The number of the peer's device. Undefined: no peer is named, or its device is not of this process. */
  readonly peerDevice: number | undefined
  /** The stack of the post of the failed request; empty: unknown. `queue`: PostQueue. */
  postStack(queue: number, number: number): Stack
}

/**
 * Misuse by `program`, from the MISUSE message (spec/session.ts). Before the completion of a request was polled, the
 * program freed the request's memory, returned from the stack frame with the memory, or forked. Or the program used a
 * queue that it inherited by fork. `context`: the queue's.
 */
export interface Misuse {
  /** `time` to `program`: as in `CheckedCall`. */
  readonly time: number
  readonly device: string
  readonly deviceNumber: number
  readonly context: number
  readonly program: Program | undefined
  /** MisuseKind. */
  readonly kind: number
  /** PostQueue. An inherited CQ: EventKind.POLL. */
  readonly queue: number
  /** The QPN, or the handle of the SRQ or CQ. */
  readonly number: number
  readonly wrId: bigint
  /** Position of the request among the posts to the queue since its creation or RESET, from 0. */
  readonly index: number
  /** Address of the element's memory. */
  readonly address: number
  /** Number of further elements with the same mistake. */
  readonly more: number
  readonly stack: Stack
}

/**
 * A call with an object that the program has destroyed, from the GONE message (spec/session.ts): the preload library has
 * refused the call.
 */
export interface UseOfGone {
  /** `time` and `program`: as in `CheckedCall`. */
  readonly time: number
  readonly program: Program | undefined
  /** The name of the called function. */
  readonly function: string
  /** ObjectKind. */
  readonly kind: number
  /** The QPN, else the handle; UNKNOWN_NUMBER: unknown. */
  readonly number: number
  /** GoneUse. */
  readonly use: number
  /** The object's context was closed, not the object destroyed. */
  readonly isOwner: boolean
  readonly stack: Stack
  /** When, in microseconds, and where the object was destroyed; no stack: unknown. */
  readonly destroyedAt: number
  readonly destroyedStack: Stack
  /** The pointer, for ARGUMENT and GARBAGE. */
  readonly value: bigint
}

/** The end of a program by a signal, from the DIED message (spec/session.ts). */
export interface Death {
  /** `time` and `program`: as in `CheckedCall`. */
  readonly time: number
  readonly program: Program | undefined
  /** Its name. */
  readonly signal: string
  /** Whether the signal has interrupted the preload library. */
  readonly isInOurs: boolean
  /** The function of verbs that the thread has called last; empty: none. Absent: unknown. */
  readonly lastCall?: string
  /** `AddressFault`; absent: NONE. */
  readonly fault?: number
  /** That of the access of a `fault`. */
  readonly address?: bigint
  readonly stack: Stack
}

/**
 * A refused call that is no method of an object. `attempt`: Linux's name of a call that could not be decoded, such as
 * `MODIFY_QP`, `class.method` of a call on a device that was removed, or the text of a call on a driver's descriptor.
 */
export interface RefusedAttempt {
  /** `time` to `program`: as in `CheckedCall`. */
  readonly time: number
  readonly device: string
  readonly deviceNumber: number
  readonly context: number
  readonly program: Program | undefined
  readonly attempt: string
  readonly errno: number
  readonly reason: string
  readonly stack: Stack
}

/** A call that the program's library refused itself, from the REFUSAL message (spec/session.ts). */
export interface LibraryRefusal {
  /** `time` to `program`: as in `CheckedCall`. Without a context (rdma_cm) `context` is undefined. */
  readonly time: number
  readonly device: string
  readonly deviceNumber: number
  readonly context: number | undefined
  readonly program: Program | undefined
  /** The name of the function. */
  readonly function: string
  /** The handle of its object, of a queue pair the number, of an identifier of rdma_cm the user handle. */
  readonly object: bigint
  readonly errno: number
  /** Facts about the arguments, in the order of spec/check/refusals.ts. */
  readonly facts: readonly bigint[]
  readonly stack: Stack
}
