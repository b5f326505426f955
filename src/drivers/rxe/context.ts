/*
 * What a context has of this driver: memory for rings that its program can map. The carrier brings it
 * (`Context.state`); a caller in this process needs no mapping and gets plain memory.
 */
import type { Context } from '../../core/model.ts'
import { wholePages } from '../../spec/memory.ts'
import type { RingMemory, RingPiece } from './rings.ts'

export interface RxeContext {
  readonly rings: RingMemory
  /** The caller is in this process. */
  readonly inside?: true
}

/** Rings of a caller in this process, one buffer each. Their offsets name nothing. */
export const plainRings = (): RingMemory => ({
  allocate(bytes) {
    const length = wholePages(bytes)
    const buffer = new ArrayBuffer(length)
    return {
      offset: 0,
      length,
      at: 0,
      bytes: new Uint8Array(buffer),
      view: new DataView(buffer),
      words: new Int32Array(buffer),
    }
  },
  free() {},
})

export const ringsOf = (context: Context): RingMemory => {
  context.state ??= { rings: plainRings(), inside: true } satisfies RxeContext
  return (context.state as RxeContext).rings
}

/** Whether the context is one of this process, and not a program's. */
export const isInside = (context: Context): boolean =>
  context.state === undefined || (context.state as RxeContext).inside === true

/** struct mminfo: what the provider maps. */
export const mmapInfo = (piece: RingPiece): { offset: bigint; size: number } => ({
  offset: BigInt(piece.offset),
  size: piece.length,
})
