/*
 * State of the ctx driver (device.ts).
 */
import type { CoreObject, FdObject } from '../../core/index.ts'
import type { Queues } from './queues.ts'

/** State of a `ctx_context` object. */
export interface AssignedContext {
  readonly number: number
  /** Only contexts with equal keys can send to each other. */
  readonly jobKey: number
  readonly queues: Queues
  /** If false, senders get EAGAIN. */
  isReceiving: boolean
  /** Whether the next message is reported on `notifyFd`, once. */
  isArmed: boolean
  /**
   * The descriptor that is notified of messages. May be closed: the `ops` of `create` remains as an object while the
   * context uses it.
   */
  notifyFd: FdObject | undefined
}

/** The context's descriptor, if it is open. */
export const openFdOf = ({ notifyFd }: AssignedContext): FdObject | undefined =>
  notifyFd?.isClosed === true ? undefined : notifyFd

export interface CtxState {
  /** By number; undefined for a free number. */
  readonly assigned: (CoreObject<AssignedContext> | undefined)[]
  readonly counts: { messages: number; bytes: number; refused: number }
}
