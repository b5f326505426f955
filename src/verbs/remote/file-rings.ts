/*
 * Rings of a context in a daemon: mapped pieces of the context's memory file. Adjacent rings share a mapping, since
 * mapping dominates the cost of creating a queue; a mapping ends with its last ring.
 */
import { createRingPool, type Mapping, type RingPool } from '../../host/memory/mapping.ts'
import { rxeLayout } from '../../spec/drivers/ring-layout.ts'
import { PACKED_ELEMENTS } from '../../spec/drivers/rxe-rings.ts'
import { PAGE_BYTES } from '../../spec/memory.ts'
import { ContextFile } from '../../spec/session.ts'
import type { RingBytes, RingPlace } from '../carrier.ts'

/** One for each process: address ranges are reused. */
let pool: RingPool | undefined
export const ringPool = (): RingPool => {
  pool ??= createRingPool()
  return pool
}

/** A mapping covers a chunk, with the daemon's boundaries; a ring that crosses a boundary has a mapping of its own. */
const { chunk: CHUNK, firstRing: FIRST, bytes: END } = ContextFile

interface Shared {
  readonly mapping: Mapping
  uses: number
}

export interface FileRings {
  ring(place: RingPlace): RingBytes
  release(place: RingPlace): void
  /** Ends all mappings. */
  close(): void
}

/** `file`: the context's memory file. */
export const createFileRings = (file: number): FileRings => {
  /** By file offset of the chunk; the mapping of a ring that crosses a boundary by the ring's negated offset. */
  const mappings = new Map<number, Shared>()

  const spanOf = ({ offset, size }: RingPlace) => {
    const at = Number(offset)
    const start = at - ((at - FIRST) % CHUNK)
    const end = Math.min(start + CHUNK, END)
    if (at + size <= end) return { at, key: start, from: start, length: end - start }
    const from = at - (at % PAGE_BYTES)
    return { at, key: -at, from, length: at + size - from }
  }
  return {
    ring(place) {
      const { at, key, from, length } = spanOf(place)
      let shared = mappings.get(key)
      if (shared === undefined) {
        shared = { mapping: ringPool().map(file, from, length), uses: 0 }
        mappings.set(key, shared)
      }
      shared.uses++
      const { bytes, view, i32 } = shared.mapping
      const head = at - from
      const elements = view.getUint32(head + PACKED_ELEMENTS, true) || rxeLayout.header.DATA
      return { head, data: head + elements, bytes, view, words: i32 }
    },
    release(place) {
      const { key } = spanOf(place)
      const shared = mappings.get(key)
      if (shared === undefined || --shared.uses > 0) return
      mappings.delete(key)
      ringPool().release(shared.mapping)
    },
    close() {
      for (const { mapping } of mappings.values()) ringPool().release(mapping)
      mappings.clear()
    },
  }
}
