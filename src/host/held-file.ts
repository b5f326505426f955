/*
 * Files and folders that are removed by name, only while the name leads to the file that this process has made or
 * found: another process may have removed that file, and made its own with the same name.
 *
 * An open descriptor identifies the file. While it is open, no other file gets the inode's number.
 */
import { constants, fstatSync, lstatSync, openSync, rmSync } from 'node:fs'

/** Opens files of any type without access to their contents (open(2)). */
const O_PATH = 0o10000000

/**
 * A descriptor of the file at `path`, for `isAt` and `removeHeld`. Does not follow a link. Throws the system's error.
 */
export const holdFile = (path: string): number => openSync(path, O_PATH | constants.O_NOFOLLOW)

/** Whether the file at `path` is that of the descriptor. */
export const isAt = (path: string, fd: number): boolean => {
  const found = lstatSync(path, { bigint: true, throwIfNoEntry: false })
  const held = fstatSync(fd, { bigint: true })
  return found?.dev === held.dev && found.ino === held.ino
}

/** Removes the file or folder at `path` if it is that of the descriptor, which stays open. */
export const removeHeld = (path: string, fd: number): void => {
  if (isAt(path, fd)) rmSync(path, { recursive: true, force: true })
}
