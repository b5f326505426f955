/*
 * State of the ctx driver (device.ts): its contexts by number, objects of class ctx_context, each with its queues and
 * the descriptor on which messages are reported.
 */
import type { CoreObject, FdObject } from '../../core/index.ts'
import type { Queues } from './queues.ts'

/** State of a context object. */
export interface AssignedContext {
  readonly number: number
  /** Only contexts with the same key can send to each other. */
  readonly jobKey: number
  readonly queues: Queues
  /** Whether messages are accepted; otherwise their senders get EAGAIN. */
  isReceiving: boolean
  /** Whether the next message is reported on `notifyFd`, once. */
  isArmed: boolean
  notifyFd: FdObject | undefined
}

export interface CtxState {
  /** By number; undefined for a free number. */
  readonly assigned: (CoreObject<AssignedContext> | undefined)[]
  readonly counts: { messages: number; bytes: number; refused: number }
}
