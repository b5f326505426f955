/*
 * Writes files of the tree (tree.ts, counter-files.ts): exclusively created, replaced atomically, with modes
 * independent of the umask.
 */
import {
  chmodSync,
  closeSync,
  existsSync,
  fchmodSync,
  linkSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { removeHeld } from '../../host/held-file.ts'

/** Makes a folder and its missing parents, searchable by all users. */
export const makeFolder = (path: string): void => {
  if (existsSync(path)) return
  makeFolder(dirname(path))
  mkdirSync(path, 0o755)
  chmodSync(path, 0o755)
}

/** Creates a file. Throws EEXIST if it exists. If writing fails, removes the file. */
export const writeNewFile = (path: string, contents: string | Uint8Array, mode = 0o644): void => {
  const fd = openSync(path, 'wx', mode)
  try {
    fchmodSync(fd, mode)
    writeFileSync(fd, contents)
  } catch (error) {
    removeHeld(path, fd)
    throw error
  } finally {
    closeSync(fd)
  }
}

/** Another name for the file `existing`; false if the file system has none, or has no more. */
export const linkFile = (existing: string, path: string): boolean => {
  try {
    linkSync(existing, path)
    return true
  } catch (error) {
    if (existsSync(path)) throw error
    return false
  }
}

/** Replaces the text of the file `path` below `root` atomically. */
export const replaceFile = (root: string, path: string, text: string, mode: number): void => {
  const temporary = join(root, 'new')
  writeNewFile(temporary, text, mode)
  try {
    renameSync(temporary, join(root, path))
  } catch (error) {
    rmSync(temporary, { force: true })
    throw error
  }
}
