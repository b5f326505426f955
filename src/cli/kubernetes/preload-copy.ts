/*
 * A copy of the preload library on the host, for a plugin in a container, whose own files other containers cannot get. It is
 * replaced by a rename: containers that run keep the one that they have.
 */
import { chmodSync, copyFileSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { exposure } from '../../host/exposure.ts'

/** Copies the library into `folder`, and returns the copy's path. Throws an Error if other users could replace it. */
export const copyPreload = (library: string, folder: string): string => {
  mkdirSync(folder, { recursive: true, mode: 0o755 })
  const reason = exposure(folder)
  if (reason !== undefined)
    throw new Error(`--library-folder "${folder}": ${reason}; all containers would load what they put there`)
  const path = join(folder, basename(library))
  const unfinished = `${path}.${process.pid}`
  try {
    copyFileSync(library, unfinished)
    chmodSync(unfinished, 0o755)
    renameSync(unfinished, path)
  } finally {
    rmSync(unfinished, { force: true })
  }
  return path
}
