/*
 * The memory of a context's rings. A program in another process maps the memory (`Context.mapped`). For a caller in
 * this process, the library sets `Context.state`; if the caller uses core without the library, the memory is plain
 * buffers.
 */
import { bufferMemory, type MappedMemory } from '../../core/memory/mappable-memory.ts'
import { mappedRings, type RingMemory } from '../../core/memory/rings.ts'
import type { Context } from '../../core/model.ts'
import { packedRings, type SlabRings, slabRings } from './ring-memory.ts'

export interface RingsContext {
  readonly rings: RingMemory
  /** Present if the context's caller is in this process. */
  readonly isInProcess?: true
}

/** The state of a context for which the library has set none. */
const stateFor = ({ mapped }: Context): RingsContext => {
  if (mapped === undefined) return { rings: mappedRings(bufferMemory()), isInProcess: true }
  return { rings: mapped.packed === undefined ? mappedRings(mapped) : packedRings(mapped, mapped.packed) }
}

/**
 * Sets `Context.state` for a caller in this process. Returns the memory for its rings; undefined if they are in
 * `Context.mapped`.
 */
export const openLocalRings = (context: Context): SlabRings | undefined => {
  const { mapped } = context
  const slabs = mapped === undefined ? slabRings() : undefined
  const rings = slabs ?? mappedRings(mapped as MappedMemory)
  context.state = { rings, isInProcess: true } satisfies RingsContext
  return slabs
}

/** The memory for rings of a context. Sets `Context.state` if it is not set. */
export const ringMemoryOf = (context: Context): RingMemory => {
  context.state ??= stateFor(context)
  return (context.state as RingsContext).rings
}

/** Whether the context's caller is in this process. */
export const isInProcess = (context: Context): boolean =>
  context.state === undefined ? context.mapped === undefined : (context.state as RingsContext).isInProcess === true
