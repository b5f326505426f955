/*
 * Copies of many pieces with one native call (native/native.c), between buffers of this process whose addresses are
 * known.
 */
import { nativeLibraryPath } from '../library.ts'
import { libraryFunctions } from '../native.ts'
import { addressOf } from './mapping.ts'

interface NativeCopier {
  /** The address of a buffer's bytes, valid until the buffer is transferred. */
  addressOf(bytes: Uint8Array): number
  /**
   * Copies `total` bytes in pieces of `chunk` bytes; the last piece may be shorter. The pieces are `fromStride` bytes
   * apart at `from`, and `toStride` bytes apart at `to`.
   */
  copy(to: number, toStride: number, from: number, fromStride: number, chunk: number, total: number): void
}

/** Undefined if the library is absent or cannot be loaded. */
export const loadNativeCopier = (path: string | undefined = nativeLibraryPath()): NativeCopier | undefined => {
  if (path === undefined) return undefined
  try {
    const { userdma_copy: copy } = libraryFunctions(path, {
      userdma_copy:
        'void userdma_copy(int64_t to, uint64_t to_stride, int64_t from, uint64_t from_stride, uint64_t chunk, uint64_t total)',
    })
    return {
      addressOf: bytes => Number(addressOf(bytes)),
      copy: (to, toStride, from, fromStride, chunk, total) => {
        copy(to, toStride, from, fromStride, chunk, total)
      },
    }
  } catch {
    return undefined
  }
}
