/*
 * Paths of the package (a checkout or an installed package) and of its preload libraries, and temporary folders.
 */
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const thisFile = fileURLToPath(import.meta.url)

const findRoot = (): string => {
  let folder = dirname(thisFile)
  while (!existsSync(join(folder, 'package.json')) && dirname(folder) !== folder) folder = dirname(folder)
  return folder
}

/** The folder with package.json: the checkout, or the installed package. */
export const packageRoot = findRoot()

/** The entry module for a new process of the command line. */
export const mainModule = join(dirname(thisFile), `main${thisFile.endsWith('.ts') ? '.ts' : '.js'}`)

/** The path of a preload library. Throws an Error if it is not built or its path cannot be in LD_PRELOAD. */
const preloadLibrary = (name: string): string => {
  const path = join(packageRoot, 'build', 'native', name)
  if (!existsSync(path))
    throw new Error(
      `the preload library ${path} is not built; run \`npm run build\` in ${packageRoot} (it needs a C compiler and libibverbs-dev)`,
    )
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

/** Creates a folder that only this user can enter, in the temporary folder. Throws an Error after a failure. */
export const privateFolder = (): string => {
  let folder: string
  try {
    folder = mkdtempSync(resolve(tmpdir(), 'userdma-'))
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new Error(`cannot make a folder in ${tmpdir()} (${code}); set TMPDIR to a folder of yours`, { cause: error })
  }
  // mkdtemp's mode depends on the umask.
  chmodSync(folder, 0o700)
  return folder
}

export const removeFolder = (folder: string): void => rmSync(folder, { recursive: true, force: true })

/** The version in package.json. */
export const packageVersion = (): string =>
  (JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string }).version
