/*
 * Memory for rings, of three kinds (docs/decisions/rings.md):
 * - `mappedRings`, for unmodified programs: each ring is a range of the context's memory, which the program maps. A
 *   ring has a header and then the elements, in rxe's layout.
 * - `slabRings`, for callers in this process, which map nothing: compact layout, many rings in one slab.
 * - `packedRings`, for our own library in another process: slabs in rxe's layout. A ring's header has the offset of its
 *   elements.
 *
 * A slab has slots for rings of one size, first all headers, then all elements. An unused queue touches only its
 * header, and the system allocates only touched pages, so unused queues cost little memory.
 */

import type { MappedChunk, MappedMemory } from '../../core/memory/mappable-memory.ts'
import { emptyRing, type RingLocation, type RingMemory } from '../../core/memory/rings.ts'
import { compactLayout } from '../../spec/drivers/compact-rings.ts'
import { ELEMENTS_OFFSET } from '../../spec/drivers/mapped-rings.ts'
import { mappedLayout, type RingLayout } from '../../spec/drivers/ring-layout.ts'

interface Slab extends MappedChunk {
  readonly chunk: MappedChunk
  readonly size: SizeClass
  readonly slotCount: number
  /** Offset of the elements of the first slot. */
  readonly elementsAt: number
  /** First slot of the list of free slots; -1: the list is empty. */
  firstFree: number
  /** By slot: the next slot of the list. */
  readonly nextFree: Int32Array
  /** The first slot that was never used. Such slots are not in the list. */
  firstUnused: number
  /** Number of slots in use. */
  used: number
}

/** All slabs whose rings have the same size. */
interface SizeClass {
  /** Bytes of a ring's elements. */
  readonly bytes: number
  /** Slabs with free slots. */
  readonly notFull: Slab[]
  /** Number of slots in use, of all slabs. */
  used: number
}

interface ChunkSource {
  /** Whether free slots cost memory, not only address space. */
  readonly freeSlotsCostMemory: boolean
  add(bytes: number): MappedChunk
  remove(chunk: MappedChunk): void
}

/** Minimum slots of a slab. MAX_SLAB_BYTES has precedence. */
const MIN_SLOTS = 16
/** Maximum bytes of a slab. A single slot may be larger. */
const MAX_SLAB_BYTES = 1 << 20

/**
 * Maximum bytes of empty slabs that are kept. If an empty slab is the only slab of its size with free slots, it is
 * always kept, so that repeated creation and destruction of a queue allocates no slabs.
 */
const MAX_IDLE_BYTES = 1 << 20

interface Slabs extends RingMemory {
  /** The ring with its header at byte `at` of a chunk; undefined if none was ever allocated there. */
  find(chunk: MappedChunk, at: number): RingLocation | undefined
  ringCount(): number
}

const createSlabs = (layout: RingLayout, source: ChunkSource): Slabs => {
  const headerBytes = layout.header.DATA
  const sizes = new Map<number, SizeClass>()
  const slabOf = new Map<MappedChunk, Slab>()
  /** Bytes of empty slabs. */
  let idleBytes = 0

  const addSlab = (size: SizeClass): Slab => {
    const maxSlots = Math.max(1, Math.floor(MAX_SLAB_BYTES / (headerBytes + size.bytes)))
    // A slab doubles the number of slots. If free slots cost memory, it adds an eighth.
    const growth = source.freeSlotsCostMemory ? size.used >> 3 : size.used
    const slotCount = Math.min(maxSlots, Math.max(MIN_SLOTS, growth))
    const chunk = source.add(slotCount * (headerBytes + size.bytes))
    const nextFree = new Int32Array(slotCount)
    const elementsAt = chunk.at + slotCount * headerBytes
    const slab: Slab = {
      ...chunk,
      chunk,
      size,
      slotCount,
      elementsAt,
      firstFree: -1,
      nextFree,
      firstUnused: 0,
      used: 0,
    }
    slabOf.set(chunk, slab)
    size.notFull.push(slab)
    return slab
  }
  const locationOf = (slab: Slab, slot: number): RingLocation => ({
    area: slab,
    headerAt: slab.at + slot * headerBytes,
    elementsAt: slab.elementsAt + slot * slab.size.bytes,
  })
  const removeSlab = (slab: Slab): void => {
    const { notFull } = slab.size
    notFull.splice(notFull.indexOf(slab), 1)
    slabOf.delete(slab.chunk)
    source.remove(slab.chunk)
  }

  return {
    layout,
    allocate(bytes) {
      let size = sizes.get(bytes)
      if (size === undefined) {
        size = { bytes, notFull: [], used: 0 }
        sizes.set(bytes, size)
      }
      let slab = size.notFull.at(-1)
      if (slab === undefined) slab = addSlab(size)
      else if (slab.used === 0) idleBytes -= slab.length
      let slot = slab.firstFree
      if (slot >= 0) slab.firstFree = slab.nextFree[slot]
      else slot = slab.firstUnused++
      slab.used++
      size.used++
      if (slab.used === slab.slotCount) size.notFull.pop()
      return locationOf(slab, slot)
    },
    free(ring) {
      if (ring === emptyRing) return
      const slab = ring.area as Slab
      const { size } = slab
      const slot = (ring.headerAt - slab.at) / headerBytes
      slab.nextFree[slot] = slab.firstFree
      slab.firstFree = slot
      if (slab.used === slab.slotCount) size.notFull.push(slab)
      slab.used--
      size.used--
      if (slab.used > 0) return
      if (size.notFull.length > 1 && idleBytes + slab.length > MAX_IDLE_BYTES) removeSlab(slab)
      else idleBytes += slab.length
    },
    find(chunk, at) {
      const slab = slabOf.get(chunk)
      const slot = at / headerBytes
      return slab !== undefined && Number.isInteger(slot) && slot < slab.firstUnused
        ? locationOf(slab, slot)
        : undefined
    },
    ringCount() {
      let count = 0
      for (const { used } of sizes.values()) count += used
      return count
    },
  }
}

/** Rings of a program that has opened its context with `OpenWants.PACKED_RINGS`. `packed.count`: number of rings. */
export const packedRings = (memory: MappedMemory, packed: { count: number }): RingMemory => {
  const slabs = createSlabs(mappedLayout, {
    freeSlotsCostMemory: false,
    add: bytes => memory.allocate(bytes),
    remove: chunk => memory.free(chunk),
  })
  return {
    layout: slabs.layout,
    free(location) {
      if (location !== emptyRing) packed.count--
      slabs.free(location)
    },
    allocate(bytes) {
      const location = slabs.allocate(bytes)
      packed.count++
      const { area, headerAt, elementsAt } = location
      // for the program; the device never reads it back
      area.view.setUint32(headerAt + ELEMENTS_OFFSET, elementsAt - headerAt, true)
      return location
    },
  }
}

/** Rings for callers in this process, which find them by the offset that calls return (`mmapInfo`). */
export interface SlabRings extends RingMemory {
  /** The ring at an offset that a call returned. Throws an Error if no ring was ever allocated there. */
  at(offset: bigint): RingLocation
  /** Number of rings, and bytes of their slabs. */
  stat(): { readonly rings: number; readonly bytes: number }
}

/** Distance of the offsets of two slabs: more than the bytes of a slab's headers. */
const SLAB_DISTANCE = 2 ** 20

export const slabRings = (): SlabRings => {
  /** By slab number: offset / SLAB_DISTANCE. */
  const chunks: (MappedChunk | undefined)[] = []
  let totalBytes = 0
  const slabs = createSlabs(compactLayout, {
    freeSlotsCostMemory: true,
    add(bytes) {
      const buffer = new ArrayBuffer(bytes)
      let number = chunks.indexOf(undefined)
      if (number < 0) number = chunks.length
      const chunk: MappedChunk = {
        offset: number * SLAB_DISTANCE,
        length: bytes,
        at: 0,
        bytes: new Uint8Array(buffer),
        view: new DataView(buffer),
        words: new Int32Array(buffer),
      }
      chunks[number] = chunk
      totalBytes += bytes
      return chunk
    },
    remove({ offset, length }) {
      chunks[offset / SLAB_DISTANCE] = undefined
      totalBytes -= length
    },
  })
  return {
    layout: slabs.layout,
    allocate: slabs.allocate,
    free: slabs.free,
    at(offset) {
      const number = Number(offset)
      const chunk = chunks[Math.floor(number / SLAB_DISTANCE)]
      const location = chunk === undefined ? undefined : slabs.find(chunk, number % SLAB_DISTANCE)
      if (location === undefined) throw new Error(`there is no ring at offset ${offset}`)
      return location
    },
    stat: () => ({ rings: slabs.ringCount(), bytes: totalBytes }),
  }
}
