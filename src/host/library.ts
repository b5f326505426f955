/*
 * The path of the native library (native/): CRCs, copies and movers. Callers work without it.
 */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const libraryName = join('build', 'native', 'libuserdma_native.so')

/** The folder of this file; in a CommonJS bundle, which has no import.meta.url, the folder of the program. */
const ownFolder = (): string =>
  dirname(import.meta.url === undefined ? (process.argv[1] ?? '.') : fileURLToPath(import.meta.url))

/** Searches from `start` upwards to the package's folder. Undefined if the library was not built. */
export const nativeLibraryPath = (start: string = ownFolder()): string | undefined => {
  for (let folder = start; ; folder = dirname(folder)) {
    if (existsSync(join(folder, libraryName))) return join(folder, libraryName)
    if (existsSync(join(folder, 'package.json')) || dirname(folder) === folder) return undefined
  }
}
