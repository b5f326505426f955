/*
 * How the files of the tree come to be (tree.ts, counter-files.ts): made new, never opened where something lies, with
 * modes that do not depend on the umask, and replaced as a whole, so that no reader ever sees half of one.
 */
import {
  chmodSync,
  closeSync,
  existsSync,
  fchmodSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'

/** Makes a folder, and those above it that are missing; all may look into them. */
export const makeFolder = (path: string): void => {
  if (existsSync(path)) return
  makeFolder(dirname(path))
  mkdirSync(path, 0o755)
  chmodSync(path, 0o755)
}

/** A new file, with its text. Throws what the system says (EEXIST), and leaves none then. */
export const writeNewFile = (path: string, text: string, mode = 0o644): void => {
  const fd = openSync(path, 'wx', mode)
  try {
    fchmodSync(fd, mode)
    if (text !== '') writeSync(fd, text)
  } catch (error) {
    rmSync(path, { force: true })
    throw error
  } finally {
    closeSync(fd)
  }
}

/** The file `path` below `root` has this text from now on; a reader gets the old one or the new one. */
export const replaceFile = (root: string, path: string, text: string, mode = 0o644): void => {
  const fresh = join(root, 'new')
  writeNewFile(fresh, text, mode)
  try {
    renameSync(fresh, join(root, path))
  } catch (error) {
    rmSync(fresh, { force: true })
    throw error
  }
}
