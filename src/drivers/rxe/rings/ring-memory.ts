/*
 * Memory for rings (docs/decisions/rings.md). Programs map theirs: each is a piece of their context's memory in rxe's
 * layout, header and elements together. Programs of this process map nothing: their rings have the compact layout and
 * are allocated from slabs, so that very many cost little. In a slab headers are apart from elements: of an unused
 * queue only the header is ever touched, and the system allocates only touched pages. Programs that find elements by
 * the header (our library) get slabs too, in rxe's layout: the first touch of a page costs as much as everything else
 * about a new queue.
 */
import type { MappedChunk, MappedMemory } from '../../../core/memory/mappable-memory.ts'
import { compactLayout } from '../../../spec/drivers/compact-rings.ts'
import { type RingLayout, rxeLayout } from '../../../spec/drivers/ring-layout.ts'
import { PACKED_ELEMENTS } from '../../../spec/drivers/rxe-rings.ts'
import { emptyRing, type RingMemory, type RingRoom } from './rings.ts'

/** Rings that a program maps. */
export const mappedRings = (memory: MappedMemory): RingMemory => ({
  layout: rxeLayout,
  mayHideSlots: true,
  allocate(bytes) {
    const area = memory.allocate(rxeLayout.header.DATA + bytes)
    return { area, head: area.at, data: area.at + rxeLayout.header.DATA }
  },
  free: ({ area }) => memory.free(area),
})

/** Slots of one size in one piece of memory. */
interface Slab extends MappedChunk {
  readonly piece: MappedChunk
  readonly size: Size
  readonly rooms: number
  /** Where the elements of the first slot begin. */
  readonly elements: number
  /** By slot: the next free one, -1: none; and the first free one. */
  readonly next: Int32Array
  free: number
  /** Slots from here on were never used. */
  fresh: number
  used: number
}

interface Size {
  /** Bytes of elements. */
  readonly bytes: number
  /** Slabs with free slots. */
  readonly open: Slab[]
  used: number
}

/** Where slabs get their memory. */
interface Pieces {
  /** The unused part of a piece costs memory, another piece costs time. */
  readonly costly: boolean
  add(bytes: number): MappedChunk
  remove(piece: MappedChunk): void
}

/**
 * A slab has an eighth of the slots in use, so that few are free, or as many if free ones cost nothing; within the
 * limits.
 */
const MIN_ROOMS = 16
const MAX_BYTES = 1 << 20

/**
 * This many bytes of empty slabs are kept, and one of each size, so that repeated creation and destruction of queues
 * allocates no slabs.
 */
const IDLE_BYTES = 1 << 20

interface Slabs extends RingMemory {
  /** The ring whose header is `at` bytes behind the beginning of a piece; undefined if there is none. */
  find(piece: MappedChunk, at: number): RingRoom | undefined
  rings(): number
}

const slabsIn = (layout: RingLayout, pieces: Pieces): Slabs => {
  const header = layout.header.DATA
  const sizes = new Map<number, Size>()
  const slabOf = new Map<MappedChunk, Slab>()
  /** Bytes of empty slabs. */
  let idle = 0

  const addSlab = (size: Size): Slab => {
    const maxRooms = Math.max(1, Math.floor(MAX_BYTES / (header + size.bytes)))
    const rooms = Math.min(maxRooms, Math.max(MIN_ROOMS, pieces.costly ? size.used >> 3 : size.used))
    const piece = pieces.add(rooms * (header + size.bytes))
    const next = new Int32Array(rooms)
    const elements = piece.at + rooms * header
    const slab: Slab = { ...piece, piece, size, rooms, elements, next, free: -1, fresh: 0, used: 0 }
    slabOf.set(piece, slab)
    size.open.push(slab)
    return slab
  }
  const roomOf = (slab: Slab, room: number): RingRoom => ({
    area: slab,
    head: slab.at + room * header,
    data: slab.elements + room * slab.size.bytes,
  })
  const removeSlab = (slab: Slab): void => {
    const { open } = slab.size
    open.splice(open.indexOf(slab), 1)
    slabOf.delete(slab.piece)
    pieces.remove(slab.piece)
  }

  return {
    layout,
    allocate(bytes) {
      let size = sizes.get(bytes)
      if (size === undefined) {
        size = { bytes, open: [], used: 0 }
        sizes.set(bytes, size)
      }
      let slab = size.open.at(-1)
      if (slab === undefined) slab = addSlab(size)
      else if (slab.used === 0) idle -= slab.length
      let room = slab.free
      if (room >= 0) slab.free = slab.next[room]
      else room = slab.fresh++
      slab.used++
      size.used++
      if (slab.used === slab.rooms) size.open.pop()
      return roomOf(slab, room)
    },
    free(ring) {
      if (ring === emptyRing) return
      const slab = ring.area as Slab
      const { size } = slab
      const room = (ring.head - slab.at) / header
      slab.next[room] = slab.free
      slab.free = room
      if (slab.used === slab.rooms) size.open.push(slab)
      slab.used--
      size.used--
      if (slab.used > 0) return
      if (size.open.length > 1 && idle + slab.length > IDLE_BYTES) removeSlab(slab)
      else idle += slab.length
    },
    find(piece, at) {
      const slab = slabOf.get(piece)
      const room = at / header
      return slab !== undefined && Number.isInteger(room) && room < slab.fresh ? roomOf(slab, room) : undefined
    },
    rings() {
      let rings = 0
      for (const { used } of sizes.values()) rings += used
      return rings
    },
  }
}

/** Rings that a program maps and whose elements it finds by their header (`OpenWants.PACKED_RINGS`). */
export const packedRings = (memory: MappedMemory, counted: { count: number }): RingMemory => {
  const slabs = slabsIn(rxeLayout, {
    costly: false,
    add: bytes => memory.allocate(bytes),
    remove: piece => memory.free(piece),
  })
  return {
    layout: slabs.layout,
    free(room) {
      if (room !== emptyRing) counted.count--
      slabs.free(room)
    },
    allocate(bytes) {
      const room = slabs.allocate(bytes)
      counted.count++
      // written for the program; never read
      room.area.view.setUint32(room.head + PACKED_ELEMENTS, room.data - room.head, true)
      return room
    },
  }
}

/** Rings for programs of this process, which find them by the offset that calls return (`mmapInfo`). */
export interface SlabRings extends RingMemory {
  /** Throws an Error if no ring lies there. */
  at(offset: bigint): RingRoom
  /** Rings, and bytes of their slabs. */
  stat(): { readonly rings: number; readonly bytes: number }
}

/** Distance of slabs in the offsets that calls return: more than the headers of one slab. */
const APART = 2 ** 20

export const slabRings = (): SlabRings => {
  const pieces: (MappedChunk | undefined)[] = []
  let bytesOfAll = 0
  const slabs = slabsIn(compactLayout, {
    costly: true,
    add(bytes) {
      const buffer = new ArrayBuffer(bytes)
      let number = pieces.indexOf(undefined)
      if (number < 0) number = pieces.length
      const piece: MappedChunk = {
        offset: number * APART,
        length: bytes,
        at: 0,
        bytes: new Uint8Array(buffer),
        view: new DataView(buffer),
        words: new Int32Array(buffer),
      }
      pieces[number] = piece
      bytesOfAll += bytes
      return piece
    },
    remove({ offset, length }) {
      pieces[offset / APART] = undefined
      bytesOfAll -= length
    },
  })
  return {
    layout: slabs.layout,
    allocate: slabs.allocate,
    free: slabs.free,
    at(offset) {
      const number = Number(offset)
      const piece = pieces[Math.floor(number / APART)]
      const room = piece === undefined ? undefined : slabs.find(piece, number % APART)
      if (room === undefined) throw new Error(`no ring lies at ${offset}`)
      return room
    },
    stat: () => ({ rings: slabs.rings(), bytes: bytesOfAll }),
  }
}
