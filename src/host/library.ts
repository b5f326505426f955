/*
 * Path of the native library built from native/native.c: faster versions of TypeScript code. Callers work without it.
 */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const libraryName = join('build', 'native', 'libuserdma_native.so')

/** Of this file; of the program, where a bundle of CommonJS has no URL. */
const ownFolder = (): string =>
  dirname(import.meta.url === undefined ? (process.argv[1] ?? '.') : fileURLToPath(import.meta.url))

/** The library's path: in the nearest folder above this file that has it; undefined if it was not built. */
export const nativeLibraryPath = (start: string = ownFolder()): string | undefined => {
  for (let at = start; ; at = dirname(at)) {
    if (existsSync(join(at, libraryName))) return join(at, libraryName)
    if (existsSync(join(at, 'package.json')) || dirname(at) === at) return undefined
  }
}
