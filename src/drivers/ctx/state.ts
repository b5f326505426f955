/*
 * What the ctx driver keeps: contexts by their numbers, and per context its queues and who is told of messages.
 */
import type { CoreObject, FdObject } from '../../core/index.ts'
import type { Queues } from './queues.ts'

/** What a context object keeps. */
export interface Assigned {
  readonly number: number
  readonly jobKey: number
  readonly queues: Queues
  receives: boolean
  /** The next message is told on `ops`. */
  armed: boolean
  ops: FdObject | undefined
}

export interface CtxState {
  /** By number; undefined for a free one. */
  readonly assigned: (CoreObject<Assigned> | undefined)[]
  readonly counts: { messages: number; bytes: number; refused: number }
}
