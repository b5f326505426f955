/*
 * Files and folders that killed processes leave behind. Each process that uses one holds a shared lock on it
 * (flock(2)), which the kernel frees when the last process with the descriptor has ended, in any PID namespace. So what
 * nobody has locked is left behind.
 *
 * The folder may be a temporary one in which other users make files: only files and folders of our own user are
 * opened, links are not followed, and what is removed is what was locked (held-file.ts).
 */
import { closeSync, constants, fstatSync, lstatSync, opendirSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { EAGAIN } from './errno.ts'
import { isAt, removeHeld } from './held-file.ts'
import { lastErrno, libcFunctions } from './native.ts'

const sys = libcFunctions({ flock: 'int flock(int fd, int operation)' })

const LOCK_SH_NB = 1 | 4
const LOCK_EX_NB = 2 | 4
const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants
/** Maximum names of a folder that are looked at: other users may make very many. */
const MAX_NAMES = 10_000

/** Opens a file or folder of our own, for `lockShared`. Throws the system's error. */
export const openOwn = (path: string): number => openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)

/**
 * Keeps `removeLeftBehind` from removing the file or folder at `path`, whose descriptor is `fd`, until the last copy of
 * the descriptor is closed. False if it was removed already, or is being removed. Where the file system has no locks,
 * nothing is removed.
 */
export const lockShared = (path: string, fd: number): boolean => {
  const isTaken = sys().flock(fd, LOCK_SH_NB) !== 0 && lastErrno() === EAGAIN
  return !isTaken && isAt(path, fd)
}

const isOwn = (path: string): boolean => {
  const found = lstatSync(path, { throwIfNoEntry: false })
  return found?.uid === process.geteuid?.() && (found?.isFile() === true || found?.isDirectory() === true)
}

const removeIfLeft = (path: string): void => {
  if (!isOwn(path)) return
  const fd = openOwn(path)
  try {
    const isStillOwn = fstatSync(fd).uid === process.geteuid?.()
    if (isStillOwn && sys().flock(fd, LOCK_EX_NB) === 0) removeHeld(path, fd)
  } finally {
    closeSync(fd)
  }
}

/** Removes our files and folders in `folder` whose names match and that no process has locked. Ignores failures. */
export const removeLeftBehind = (folder: string, pattern: RegExp): void => {
  try {
    const entries = opendirSync(folder)
    try {
      for (let looked = 0; looked < MAX_NAMES; looked++) {
        const name = entries.readSync()?.name
        if (name === undefined) return
        if (pattern.test(name)) removeIfLeft(join(folder, name))
      }
    } finally {
      entries.closeSync()
    }
  } catch {
    // What is left behind does no harm to the command that starts.
  }
}
