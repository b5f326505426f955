/*
 * Where things are: the checkout (or installed package), the preload library, and folders for what is not to stay.
 */
import { chmodSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = fileURLToPath(import.meta.url)

const findRoot = (): string => {
  let at = dirname(here)
  while (!existsSync(join(at, 'package.json')) && dirname(at) !== at) at = dirname(at)
  return at
}

/** The folder with package.json: the checkout, or the installed package. */
export const packageRoot = findRoot()

/** The module that a new process of the command line starts with. */
export const mainModule = fileURLToPath(new URL(`./main${here.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url))

/** The preload library. Throws a sentence if it is not built or cannot be named in LD_PRELOAD. */
export const shimLibrary = (): string => {
  const path = join(packageRoot, 'build', 'native', 'libuserdma_shim.so')
  if (!existsSync(path))
    throw new Error(
      `the preload library ${path} is not built; run \`npm run build\` in ${packageRoot} (it needs a C compiler and libibverbs-dev)`,
    )
  if (/[\s:]/.test(path))
    throw new Error(
      `the path of the preload library, "${path}", has a space or a colon, which LD_PRELOAD cannot carry; move ${packageRoot} elsewhere`,
    )
  return path
}

/** A fresh folder that only this user can enter. */
export const privateFolder = (): string => {
  const folder = mkdtempSync(resolve(tmpdir(), 'userdma-'))
  // Whatever the umask takes away.
  chmodSync(folder, 0o700)
  return folder
}

export const removeFolder = (folder: string): void => rmSync(folder, { recursive: true, force: true })
