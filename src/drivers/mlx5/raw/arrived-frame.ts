/*
 * A frame on the link between devices, as flow rules and receivers see it.
 */
import type { Arena } from '../../../transport/wire/arena.ts'
import type { FrameKey } from '../../../transport/wire/flow-key.ts'

/** A frame that arrives: one record per sender, valid during the call. */
export interface ArrivedFrame {
  readonly arena: Arena
  readonly key: FrameKey
  at: number
  length: number
  /** See `Engine.onFrame`; read them with `headersOf` (frame-link.ts). */
  headers: number
}

/** `headers` before the first receiver asks: the checksums take longer than all else. */
export const UNKNOWN_HEADERS = -1

/** The place for a changed frame, made when it is first needed. */
export interface Scratch {
  readonly frame: ArrivedFrame
}
