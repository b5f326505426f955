/*
 * A hash of the bytes that a send reads, for `userdma check`: of a long message, samples from its begin, its end and a
 * place between that differs from request to request.
 */
import type { MemoryTable } from '../../core/memory/region-table.ts'
import type { RequestElement, WorkRequest } from '../../spec/requests.ts'
import { Access } from '../../transport/types.ts'
import type { Arena } from '../../wire/arena.ts'
import { crcOfArena } from '../../wire/crc.ts'
import { regionMemory } from './memory.ts'

const TWO_32 = 2 ** 32
/** Messages of at most so many bytes are hashed whole, and samples of longer ones. */
const WHOLE_BYTES = 4096
const SAMPLE_BYTES = 1024

/** `scratch`: WHOLE_BYTES. */
export const createDigest = (table: MemoryTable, scratch: Arena) => {
  const memory = regionMemory(table)

  /** Copies bytes of the elements from byte `from` of the message on. */
  const copy = (pd: number, qpn: number, elements: readonly RequestElement[], from: number, bytes: number): boolean => {
    let skipped = from
    let at = 0
    for (const { address, length, lkey } of elements) {
      const piece = Math.min(length - skipped, bytes - at)
      if (piece > 0) {
        const start = address + skipped
        const hi = Math.floor(start / TWO_32)
        const lo = start % TWO_32
        const region = memory.resolve(pd, lkey, hi, lo, piece, Access.LOCAL_READ, qpn)
        if (region < 0 || memory.read(region, hi, lo, scratch, at, piece, piece, piece) !== 0) return false
        at += piece
      }
      skipped = Math.max(0, skipped - length)
    }
    return true
  }

  return (pd: number, { id, number, elements, length }: WorkRequest): number | undefined => {
    const isWhole = length <= WHOLE_BYTES
    const most = isWhole ? length : SAMPLE_BYTES
    const between = (id * 64) % Math.max(1, length - SAMPLE_BYTES)
    let hash = 0
    for (const from of isWhole ? [0] : [0, between, length - SAMPLE_BYTES]) {
      if (!copy(pd, number, elements, from, most)) return undefined
      hash = crcOfArena(scratch, 0, most, hash)
    }
    return hash
  }
}
