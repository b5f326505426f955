/*
 * Paths of the package (a checkout or an installed package) and of its preload libraries, and temporary folders.
 */
import { chmodSync, closeSync, existsSync, mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { removeHeld } from '../host/held-file.ts'
import { lockShared, openOwn, removeLeftBehind } from '../host/left-behind.ts'
import { libraryPath, platformPackage } from '../host/library.ts'

const thisFile = fileURLToPath(import.meta.url)

const findRoot = (): string => {
  let folder = dirname(thisFile)
  while (!existsSync(join(folder, 'package.json')) && dirname(folder) !== folder) folder = dirname(folder)
  return folder
}

/** The folder with package.json: the checkout, or the installed package. */
export const packageRoot = findRoot()

/** The built page of `userdma inspect`. */
export const pageFolder = join(packageRoot, 'dist', 'page')

/** The script for a new process of the command line. */
export const userdmaScript = join(packageRoot, 'bin', 'userdma')

/**
 * An option of Node.js for daemons, as in bin/userdma: their compiled code is valid with it alone (scripts/bundle.mjs).
 */
export const HEAP_OPTION = '--initial-heap-size=64'

const hasPlatformPackage = ['x64', 'arm64'].includes(process.arch)

/** Why a preload library is missing, and what to do. */
const missingLibrary = (name: string): string => {
  const needs = 'it needs a C compiler and libibverbs-dev'
  if (existsSync(join(packageRoot, 'tsconfig.json')))
    return `the preload library ${join(packageRoot, 'build', 'native', name)} is not built; run \`npm run build\` in ${packageRoot} (${needs})`
  if (process.platform !== 'linux')
    return `programs find devices through the preload library ${name}, which is for Linux; this is ${process.platform}`
  const build = `\`node ${join(packageRoot, 'scripts', 'build-native.mjs')}\` (${needs})`
  return hasPlatformPackage
    ? `the preload library ${name} is missing, because the npm package ${platformPackage()} is not installed; run \`npm install ./${platformPackage()}-${packageVersion()}.tgz\` with the file that comes with this package's, or build it: ${build}`
    : `there is no package with the preload library ${name} for ${process.arch}; build it: ${build}`
}

/** The path of a preload library. Throws an Error if it is missing or its path cannot be in LD_PRELOAD. */
const preloadLibrary = (name: string): string => {
  const path = libraryPath(name, packageRoot)
  if (path === undefined) throw new Error(missingLibrary(name))
  if (/[\s:]/.test(path))
    throw new Error(
      `the path of the preload library, "${path}", has a space or a colon, which LD_PRELOAD does not allow; move ${packageRoot} elsewhere`,
    )
  return path
}

/** The library that makes the devices visible. Throws as `preloadLibrary`. */
export const shimLibrary = (): string => preloadLibrary('libuserdma_shim.so')

/** The library that reports which memory programs free, for `userdma check`. Throws as `preloadLibrary`. */
export const freesLibrary = (): string => preloadLibrary('libuserdma_frees.so')

/** The library that reports when threads wait, for `userdma check --races`. Throws as `preloadLibrary`. */
export const waitsLibrary = (): string => preloadLibrary('libuserdma_waits.so')

/** The library by which programs and a daemon share a clock that skips (`--clock skip`). Throws as `preloadLibrary`. */
export const clockLibrary = (): string => preloadLibrary('libuserdma_clock.so')

/** The library that observes programs on the machine's own devices, for `--host`. Throws as `preloadLibrary`. */
export const hostLibrary = (): string => preloadLibrary('libuserdma_host.so')

/** Descriptors of the folders that `removeFolder` may remove (held-file.ts). They stay open until then. */
const heldFolders = new Map<string, number>()

/**
 * Notes the folder at the path for `removeFolder`, and keeps it from being removed as left behind. False if it is being
 * removed. Throws the system's error.
 */
export const holdFolder = (folder: string): boolean => {
  const fd = openOwn(folder)
  const isHeld = lockShared(folder, fd)
  if (isHeld) heldFolders.set(folder, fd)
  else closeSync(fd)
  return isHeld
}

const PRIVATE_PREFIX = 'userdma-private-'
const PRIVATE_NAME = new RegExp(`^${PRIVATE_PREFIX}\\w{6}$`)
/** Maximum attempts to make a folder. In some file systems, such as /proc, none can be made, with ENOENT. */
const MAX_ATTEMPTS = 100

/** Removes the folders of `privateFolder` that killed processes have left in `base`. */
export const removeLeftFolders = (base: string): void => removeLeftBehind(base, PRIVATE_NAME)

/**
 * Creates a folder that only this user can enter, in the temporary folder or `base`, and removes those that killed
 * processes have left there. Throws an Error after a failure.
 */
export const privateFolder = (base = tmpdir()): string => {
  removeLeftFolders(base)
  for (let attempts = 1; ; attempts++) {
    let folder: string
    try {
      folder = mkdtempSync(resolve(base, PRIVATE_PREFIX))
      // mkdtemp's mode depends on the umask.
      chmodSync(folder, 0o700)
      if (holdFolder(folder)) return folder
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      // Another process has removed the folder before it was held.
      if (code === 'ENOENT' && attempts < MAX_ATTEMPTS && existsSync(base)) continue
      throw new Error(`cannot make a folder in ${base} (${code}); set TMPDIR to a folder of yours`, {
        cause: error,
      })
    }
  }
}

/** Removes a folder of `privateFolder` or `holdFolder`, unless another folder is at its path now. */
export const removeFolder = (folder: string): void => {
  const held = heldFolders.get(folder)
  if (held === undefined) return
  removeHeld(folder, held)
  heldFolders.delete(folder)
  closeSync(held)
}

/** The version in package.json. */
export const packageVersion = (): string =>
  (JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string }).version
