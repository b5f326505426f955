/*
 * State of the ctx driver: contexts by number, and per context its queues and the descriptor that is notified of
 * messages.
 */
import type { CoreObject, FdObject } from '../../core/index.ts'
import type { Queues } from './queues.ts'

/** State of a context object. */
export interface Assigned {
  readonly number: number
  readonly jobKey: number
  readonly queues: Queues
  receives: boolean
  /** Whether the next message is reported on `ops`. */
  armed: boolean
  ops: FdObject | undefined
}

export interface CtxState {
  /** By number; undefined for a free number. */
  readonly assigned: (CoreObject<Assigned> | undefined)[]
  readonly counts: { messages: number; bytes: number; refused: number }
}
