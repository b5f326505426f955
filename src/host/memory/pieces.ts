/*
 * Arguments of copies between another process's memory and pieces of ours.
 */
import type { Arena } from './mapping.ts'

/** The local end of a copy: an arena, or other memory of this process with a known address. */
export type LocalMemory = Pick<Arena, 'address' | 'bytes'>

/**
 * Arguments of a copy: an address in another process (high·2^32 + low), and `total` bytes of our memory in pieces of
 * `chunk` bytes, one every `stride` bytes from `offset`. The last piece may be shorter.
 */
export type MoveArguments = [
  high: number,
  low: number,
  local: LocalMemory,
  offset: number,
  chunk: number,
  stride: number,
  total: number,
]

/** Throws RangeError if the pieces (as in `MoveArguments`) are not inside `local`. */
export const requirePieces = (
  local: LocalMemory,
  offset: number,
  chunk: number,
  stride: number,
  total: number,
): void => {
  const pieces = Math.ceil(total / chunk)
  const end = offset + (pieces - 1) * stride + (total - (pieces - 1) * chunk)
  if (!(chunk > 0 && stride >= chunk && offset >= 0 && end <= local.bytes.length)) {
    throw new RangeError(
      `${total} bytes in pieces of ${chunk} every ${stride} from ${offset} do not fit an arena of ${local.bytes.length} bytes`,
    )
  }
}
