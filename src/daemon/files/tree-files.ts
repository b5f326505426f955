/*
 * Writes files of the tree (tree.ts, machine-tree.ts, counter-files.ts): exclusively created, replaced atomically, with
 * modes independent of the umask.
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
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, relative } from 'node:path'
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

/** Contents of files, by path below the tree's root. */
export type Files = Readonly<Record<string, string>>

/** `files` by their names in a folder. */
export const filesIn = (folder: string, files: Files): Files =>
  Object.fromEntries(Object.entries(files).map(([name, text]) => [`${folder}/${name}`, text]))

/** Makes `link` a link to `target`, and the folder above. Paths are below the root, and the link is relative. */
export const makeLink = (root: string, link: string, target: string): void => {
  makeFolder(join(root, dirname(link)))
  symlinkSync(relative(dirname(link), target), join(root, link))
}

export const ATTRIBUTE_MODE = 0o444
/** As in Linux, programs may write node_desc. */
const DESCRIPTION_MODE = 0o644

/**
 * Attributes of equal text are one file with several names, which takes a fraction of the time: most of the 128
 * partition keys of an InfiniBand port are none. Attributes are replaced, never written.
 */
export const writeFiles = (root: string, files: Files): void => {
  const written = new Map<string, string>()
  for (const [path, value] of Object.entries(files)) {
    const full = join(root, path)
    makeFolder(dirname(full))
    const isWritable = path.endsWith('/node_desc')
    const equal = isWritable ? undefined : written.get(value)
    if (equal !== undefined && linkFile(equal, full)) continue
    writeNewFile(full, `${value}\n`, isWritable ? DESCRIPTION_MODE : ATTRIBUTE_MODE)
    if (!isWritable) written.set(value, full)
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
