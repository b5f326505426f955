/*
 * CRC-32 (the polynomial of Ethernet and zlib, reflected) in native code (native/native.c). Takes addresses, so no view
 * of the bytes is needed. Without the native library, callers compute CRCs in JavaScript.
 */
import { nativeLibraryPath } from './library.ts'
import { mapArena } from './memory/mapping.ts'
import { libraryFunctions } from './native.ts'

/** Maximum buffers of one call of `NativeBatchCrc.crc`. */
const MAX_BUFFERS = 128

interface NativeCrc {
  /** For reports and tests: 'native'. */
  readonly name: string
  /** CRC of `length` bytes at `address`, continuing from `seed` as zlib's crc32 does (0 to begin); 0 to 2^32-1. */
  crc(address: number, length: number, seed: number): number
  /** Like `crc`, for many buffers with one call. */
  readonly batch: NativeBatchCrc
}

interface NativeBatchCrc {
  /** By buffer: its seed before `crc`, its CRC afterwards. */
  readonly registers: Int32Array
  /** CRCs of `count` buffers, at most as many as `registers`, of `length` bytes each, `stride` bytes apart. */
  crc(address: number, length: number, stride: number, count: number): void
}

/** Undefined if the library is absent or cannot be loaded: koffi is missing, another architecture. */
export const loadNativeCrc = (path: string | undefined = nativeLibraryPath()): NativeCrc | undefined => {
  if (path === undefined) return undefined
  try {
    const { userdma_crc32: crc32, userdma_crc32_each: crcBatch } = libraryFunctions(path, {
      userdma_crc32: 'uint32_t userdma_crc32(uint32_t crc, int64_t bytes, uint64_t length)',
      userdma_crc32_each:
        'void userdma_crc32_each(int64_t crcs, int64_t bytes, uint64_t length, uint64_t stride, uint64_t count)',
    })
    const words = mapArena(4 * MAX_BUFFERS)
    return {
      name: 'native',
      crc: (address, length, seed) => crc32(seed, address, length),
      batch: {
        registers: words.i32.subarray(0, MAX_BUFFERS),
        crc: (address, length, stride, count) => {
          crcBatch(words.address, address, length, stride, count)
        },
      },
    }
  } catch {
    return undefined
  }
}
