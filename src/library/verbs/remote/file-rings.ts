/*
 * Rings of a context in a daemon, in the context's memory file. Rings in a chunk of the file share a mapping, because
 * mapping is most of the cost of creating a queue. The last ring of a mapping unmaps it.
 */
import { createRingPool, type Mapping, pageSize, type RingPool } from '../../../host/memory/mapping.ts'
import { ELEMENTS_OFFSET } from '../../../spec/drivers/mapped-rings.ts'
import { mappedLayout } from '../../../spec/drivers/ring-layout.ts'
import { pageBelow } from '../../../spec/memory.ts'
import { ContextFile } from '../../../spec/session.ts'
import type { MmapInfo, RingBytes } from '../carrier.ts'

let pool: RingPool | undefined
/** The pool of mappings of this process, which reuses address ranges. */
export const ringPool = (): RingPool => {
  pool ??= createRingPool()
  return pool
}

const { chunk: CHUNK_BYTES, bytes: FILE_BYTES, firstRing: FIRST_CHUNK } = ContextFile

interface SharedMapping {
  readonly mapping: Mapping
  /** Number of rings that use the mapping. */
  uses: number
}

/** `ring` and `release` as in `Carrier`. */
interface FileRings {
  ring(info: MmapInfo): RingBytes
  release(info: MmapInfo): void
  /** Unmaps all rings. */
  close(): void
}

/** `file`: the context's memory file. `pageBytes`: mappings begin at its multiples. */
export const createFileRings = (file: number, pageBytes = pageSize()): FileRings => {
  /** By file offset of the chunk. A ring that crosses a chunk boundary has its own mapping, by its negated offset. */
  const mappings = new Map<number, SharedMapping>()

  /** File offset of a ring (`at`), and key, file offset and length of its mapping. */
  const spanOf = ({ offset, size }: MmapInfo) => {
    const at = Number(offset)
    const start = at - ((at - FIRST_CHUNK) % CHUNK_BYTES)
    const end = Math.min(start + CHUNK_BYTES, FILE_BYTES)
    if (at + size <= end) return { at, key: start, start, length: end - start }
    const pageStart = pageBelow(at, pageBytes)
    return { at, key: -at, start: pageStart, length: at + size - pageStart }
  }
  return {
    ring(info) {
      const { at, key, start, length } = spanOf(info)
      let shared = mappings.get(key)
      if (shared === undefined) {
        shared = { mapping: ringPool().map(file, start, length), uses: 0 }
        mappings.set(key, shared)
      }
      shared.uses++
      const { bytes, view, i32 } = shared.mapping
      const headerAt = at - start
      // 0 except in packed rings.
      const elementsOffset = view.getUint32(headerAt + ELEMENTS_OFFSET, true) || mappedLayout.header.DATA
      return { headerAt, elementsAt: headerAt + elementsOffset, bytes, view, words: i32 }
    },
    release(info) {
      const { key } = spanOf(info)
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
