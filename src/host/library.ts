/*
 * Paths of the C libraries (native/, shim/): in build/native of the package's folder, where a checkout and an installed
 * tree have them, or in the npm package of this platform (scripts/package/npm.mjs).
 */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The npm package with the C libraries for this machine; it exists for Linux on x64 and arm64. */
export const platformPackage = (): string => `userdma-linux-${process.arch}`

/** The folder of this file; in a CommonJS bundle, which has no import.meta.url, the folder of the program. */
const ownFolder = (): string =>
  dirname(import.meta.url === undefined ? (process.argv[1] ?? '.') : fileURLToPath(import.meta.url))

const inPlatformPackage = (name: string, folder: string): string | undefined => {
  try {
    return createRequire(join(folder, 'package.json')).resolve(`${platformPackage()}/${name}`)
  } catch {
    return undefined
  }
}

/**
 * Searches from `start` upwards to the package's folder, then in the platform's package. Undefined if there is none.
 */
export const libraryPath = (name: string, start: string = ownFolder()): string | undefined => {
  for (let folder = start; ; folder = dirname(folder)) {
    const built = join(folder, 'build', 'native', name)
    if (existsSync(built)) return built
    if (existsSync(join(folder, 'package.json')) || dirname(folder) === folder) return inPlatformPackage(name, folder)
  }
}

/** The library with CRCs, copies and movers. Callers work without it. */
export const nativeLibraryPath = (start?: string): string | undefined => libraryPath('libuserdma_native.so', start)
