/*
 * Paths in the checkout. Compiled tests are below dist/, fixtures and programs are not.
 */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const findRoot = (): string => {
  const root = process.env.USERDMA_ROOT
  if (root) return root
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'test', 'fixtures'))) {
    if (dirname(folder) === folder)
      throw new Error('no checkout above this test: set USERDMA_ROOT to the folder that has test/fixtures')
    folder = dirname(folder)
  }
  return folder
}

/** The checkout, which has package.json. */
export const repoRoot = findRoot()

/** The library as programs import it, for programs that a test starts: from a dozen files, in half the time. */
export const libraryUrl = pathToFileURL(join(repoRoot, 'dist', 'lib', 'index.js')).href

export const fixture = (...parts: string[]): string => join(repoRoot, 'test', 'fixtures', ...parts)
