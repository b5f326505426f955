/*
 * State of the ctx driver: the contexts by number, each with its queues and the descriptor on which messages are
 * reported.
 */
import type { CoreObject, FdObject } from '../../core/index.ts'
import type { Queues } from './queues.ts'

/** State of a context object. */
export interface AssignedContext {
  readonly number: number
  readonly jobKey: number
  readonly queues: Queues
  /** Whether messages are accepted; otherwise their senders get EAGAIN. */
  receives: boolean
  /** Whether the next message is reported on `notifyFd`, once. */
  armed: boolean
  notifyFd: FdObject | undefined
}

export interface CtxState {
  /** By number; undefined for a free number. */
  readonly assigned: (CoreObject<AssignedContext> | undefined)[]
  readonly counts: { messages: number; bytes: number; refused: number }
}
