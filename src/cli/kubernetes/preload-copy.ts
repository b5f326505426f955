/*
 * A copy of the preload library on the host, for a plugin in a container, whose own files other containers cannot get.
 * It is replaced by a rename: containers that run keep the one that they have.
 */
import { chmodSync, copyFileSync, renameSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { exposure } from '../../host/exposure.ts'

/**
 * Copies the library into `folder`, which is there, and returns the copy's path. Throws an Error if other users could
 * replace it.
 */
export const copyPreload = (library: string, folder: string): string => {
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
