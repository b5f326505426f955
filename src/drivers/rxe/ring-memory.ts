/*
 * Where rings lie (design.md sections 6 and 7). Programs map theirs, each a piece of their context's memory in rxe's
 * layout, header and elements in one. Programs of this process map nothing: their rings are compact and come from
 * slabs, so that very many cost little. In a slab headers lie side by side, apart from the elements: of a queue that is
 * never used nothing but its header is ever touched, and the system gives memory only to what is.
 */
import type { MappedMemory, MappedPiece } from '../../core/mapped.ts'
import { compactLayout } from '../../spec/drivers/compact-rings.ts'
import { rxeLayout } from '../../spec/drivers/ring-layout.ts'
import { noRing, type RingMemory, type RingRoom } from './rings.ts'

/** Rings that a program maps. */
export const mappedRings = (memory: MappedMemory): RingMemory => ({
  layout: rxeLayout,
  allocate(bytes) {
    const area = memory.allocate(rxeLayout.header.DATA + bytes)
    return { area, head: area.at, data: area.at + rxeLayout.header.DATA }
  },
  free: ({ area }) => memory.free(area),
})

/** Rings for programs of this process, who find them by the offset that calls answer (`mmapInfo`). */
export interface SlabRings extends RingMemory {
  /** Throws an Error if no ring lies there. */
  at(offset: bigint): RingRoom
  /** Rings, and bytes of the slabs that they lie in. */
  stat(): { readonly rings: number; readonly bytes: number }
}

/** Rooms of one size. */
interface Slab extends MappedPiece {
  readonly size: Size
  readonly rooms: number
  /** Where the elements of the first room begin. */
  readonly elements: number
  /** By room: the free one after it, -1 for none; and the first free one. */
  readonly next: Int32Array
  free: number
  /** Rooms that were never given out begin here. */
  fresh: number
  used: number
}

interface Size {
  /** Bytes of elements. */
  readonly bytes: number
  /** Slabs that have free rooms. */
  readonly open: Slab[]
  used: number
}

const HEADER = compactLayout.header.DATA
/** Slabs lie so far apart in the offsets that calls answer: farther than headers of one slab. */
const APART = 2 ** 20
/** A slab has an eighth of the rooms that are used already, so that little is free, but not fewer and not larger. */
const LEAST_ROOMS = 16
const MOST_BYTES = 1 << 20

export const slabRings = (): SlabRings => {
  const sizes = new Map<number, Size>()
  const slabs: (Slab | undefined)[] = []
  let bytesOfAll = 0

  const addSlab = (size: Size): Slab => {
    const most = Math.max(1, Math.floor(MOST_BYTES / (HEADER + size.bytes)))
    const rooms = Math.min(most, Math.max(LEAST_ROOMS, size.used >> 3))
    const buffer = new ArrayBuffer(rooms * (HEADER + size.bytes))
    let number = slabs.indexOf(undefined)
    if (number < 0) number = slabs.length
    const slab: Slab = {
      offset: number * APART,
      length: buffer.byteLength,
      at: 0,
      bytes: new Uint8Array(buffer),
      view: new DataView(buffer),
      words: new Int32Array(buffer),
      size,
      rooms,
      elements: rooms * HEADER,
      next: new Int32Array(rooms),
      free: -1,
      fresh: 0,
      used: 0,
    }
    slabs[number] = slab
    size.open.push(slab)
    bytesOfAll += slab.length
    return slab
  }

  const roomOf = (slab: Slab, room: number): RingRoom => ({
    area: slab,
    head: room * HEADER,
    // An integer for the engine that runs this, too: a number of another kind would be an object of its own.
    data: (slab.elements + room * slab.size.bytes) | 0,
  })

  const removeSlab = (slab: Slab): void => {
    const { open } = slab.size
    open.splice(open.indexOf(slab), 1)
    slabs[slab.offset / APART] = undefined
    bytesOfAll -= slab.length
  }

  return {
    layout: compactLayout,
    allocate(bytes) {
      let size = sizes.get(bytes)
      if (size === undefined) {
        size = { bytes, open: [], used: 0 }
        sizes.set(bytes, size)
      }
      const slab = size.open.at(-1) ?? addSlab(size)
      let room = slab.free
      if (room >= 0) slab.free = slab.next[room]
      else room = slab.fresh++
      slab.used++
      size.used++
      if (slab.used === slab.rooms) size.open.pop()
      return roomOf(slab, room)
    },
    free(ring) {
      if (ring === noRing) return
      const slab = ring.area as Slab
      const { size } = slab
      const room = ring.head / HEADER
      slab.next[room] = slab.free
      slab.free = room
      if (slab.used === slab.rooms) size.open.push(slab)
      slab.used--
      size.used--
      // One that is empty stays until there is another: a queue that comes and goes makes no slabs.
      if (slab.used === 0 && size.open.length > 1) removeSlab(slab)
    },
    at(offset) {
      const number = Number(offset)
      const slab = slabs[Math.floor(number / APART)]
      const room = (number % APART) / HEADER
      if (slab === undefined || room >= slab.fresh || !Number.isInteger(room))
        throw new Error(`no ring lies at ${offset}`)
      return roomOf(slab, room)
    },
    stat() {
      let rings = 0
      for (const { used } of sizes.values()) rings += used
      return { rings, bytes: bytesOfAll }
    },
  }
}
