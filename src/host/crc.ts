/*
 * CRC-32 (the polynomial of Ethernet and zlib, reflected) with carry-less multiplication, from the small native library
 * that the build makes of native/crc32.c. It takes addresses, so it works on arenas without a view. Where the library
 * is absent the callers fall back on zlib; whoever uses an engine checks it against known answers first.
 */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { libraryFunctions } from './native.ts'

const libraryName = join('build', 'native', 'libuserdma_native.so')

export interface NativeCrc {
  readonly name: string
  /** CRC of `length` bytes at `address`, continuing from `seed` as zlib's crc32 does (0 to begin); 0 to 2^32-1. */
  crc(address: number, length: number, seed: number): number
}

/** The library's path: in the nearest folder above this file that has it; undefined if it was not built. */
export const nativeLibraryPath = (start: string = dirname(fileURLToPath(import.meta.url))): string | undefined => {
  for (let at = start; ; at = dirname(at)) {
    if (existsSync(join(at, libraryName))) return join(at, libraryName)
    if (existsSync(join(at, 'package.json')) || dirname(at) === at) return undefined
  }
}

/**
 * The native engine, or undefined where the library is absent or cannot be loaded (koffi missing, another
 * architecture).
 */
export const loadNativeCrc = (path: string | undefined = nativeLibraryPath()): NativeCrc | undefined => {
  if (path === undefined) return undefined
  try {
    const { userdma_crc32: crc32 } = libraryFunctions(path, {
      userdma_crc32: 'uint32_t userdma_crc32(uint32_t crc, int64_t bytes, uint64_t length)',
    })
    return { name: 'native', crc: (address, length, seed) => crc32(seed, address, length) }
  } catch {
    return undefined
  }
}
