/*
 * Path of the native library, which is built from native/: CRCs, copies and movers. Callers work without it.
 */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const libraryName = join('build', 'native', 'libuserdma_native.so')

/** The folder of this file; in a CommonJS bundle, which has no URL, that of the program. */
const ownFolder = (): string =>
  dirname(import.meta.url === undefined ? (process.argv[1] ?? '.') : fileURLToPath(import.meta.url))

/**
 * The library's path, in the nearest folder from `start` upwards that has it, up to the package's; undefined if it was
 * not built.
 */
export const nativeLibraryPath = (start: string = ownFolder()): string | undefined => {
  for (let folder = start; ; folder = dirname(folder)) {
    if (existsSync(join(folder, libraryName))) return join(folder, libraryName)
    if (existsSync(join(folder, 'package.json')) || dirname(folder) === folder) return undefined
  }
}
