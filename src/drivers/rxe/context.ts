/*
 * Where the rings of a context are: for a program of another process in `Context.mapped`; in this process in the memory
 * that the library has put into `Context.state`, or else in plain buffers.
 */
import { bufferMemory } from '../../core/memory/mappable-memory.ts'
import type { Context } from '../../core/model.ts'
import { mappedRings, packedRings } from './rings/ring-memory.ts'
import type { Ring, RingMemory } from './rings/rings.ts'

export interface RxeContext {
  readonly rings: RingMemory
  /** Whether the caller is in this process. */
  readonly inside?: true
}

export const ringsOf = (context: Context): RingMemory => {
  context.state ??= (
    context.mapped === undefined
      ? { rings: mappedRings(bufferMemory()), inside: true }
      : {
          rings:
            context.mapped.packed !== undefined
              ? packedRings(context.mapped, context.mapped.packed)
              : mappedRings(context.mapped),
        }
  ) satisfies RxeContext
  return (context.state as RxeContext).rings
}

/** Whether the context is one of this process, and not a program's. */
export const isInside = (context: Context): boolean =>
  context.state === undefined ? context.mapped === undefined : (context.state as RxeContext).inside === true

/** For `mmapInfo`, which each new queue calls: a number of up to 53 bits as a bigint, in half the time of `BigInt()`. */
const halves = new Uint32Array(2)
const whole = new BigUint64Array(halves.buffer)

/**
 * struct mminfo for the provider's mmap; in a slab the offset identifies the ring, and the size goes to the slab's end.
 */
export interface MmapInfo {
  readonly offset: bigint
  readonly size: number
}
export const mmapInfo = ({ area, head }: Ring): MmapInfo => {
  const offset = area.offset + head - area.at
  halves[0] = offset
  halves[1] = offset / 2 ** 32
  return { offset: whole[0], size: area.length - (head - area.at) }
}
