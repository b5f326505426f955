/*
 * The tests that a change affects: those whose compiled files import a changed one, directly or not.
 */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { filesBelow } from './common.mjs'

const IMPORTS = /(?:from|import)\s*\(?\s*'(\.{1,2}\/[^']+\.js)'/g

/** The files that import each compiled file below `dist`, by its path. */
export const importersBelow = dist => {
  const importers = new Map()
  for (const file of filesBelow(dist, path => path.endsWith('.js')))
    for (const [, name] of readFileSync(file, 'utf8').matchAll(IMPORTS)) {
      const imported = join(dirname(file), name)
      importers.set(imported, [...(importers.get(imported) ?? []), file])
    }
  return importers
}

/** The compiled test files that the changed compiled files affect, those with the fewest imports between first. */
export const affectedTests = (dist, changed, importers = importersBelow(dist)) => {
  const found = new Set(changed)
  // A set's iteration includes what is added meanwhile.
  for (const file of found) for (const importer of importers.get(file) ?? []) found.add(importer)
  return [...found].filter(path => path.endsWith('.test.js') && existsSync(path))
}
