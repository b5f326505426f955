/*
 * A lock against two commands that do the same at the same time, such as the start of a daemon at a path: flock(2) on a
 * file that exists only meanwhile.
 *
 * An unexpected file of that name does no harm: links are not followed, a FIFO does not block, nothing is truncated,
 * and only a regular file of our own is locked.
 */
import { closeSync, constants, fchmodSync, fstatSync, openSync, readFileSync } from 'node:fs'
import { EAGAIN, SystemError } from './errno.ts'
import { isAt, removeHeld } from './held-file.ts'
import { lastErrno, libcFunctions } from './native.ts'

const sys = libcFunctions({ flock: 'int flock(int fd, int operation)' })

const LOCK_EX_NB = 2 | 4

const { O_RDWR, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants
/** Milliseconds between two tries. */
const INTERVAL = 10

const openLock = (path: string): number => {
  let fd: number
  try {
    fd = openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ELOOP') throw error
    throw new Error(`${path} is a symbolic link, which cannot be a lock; remove it`)
  }
  const found = fstatSync(fd)
  if (found.isFile() && found.uid === process.geteuid?.()) {
    fchmodSync(fd, 0o600)
    return fd
  }
  closeSync(fd)
  throw new Error(`${path} is not a file of user ${process.geteuid?.()}, which a lock must be; remove it`)
}

/** The process that holds the lock, for messages. The kernel may not report it, or /proc may lack the file `locks`. */
const holderText = (fd: number): string => {
  const { ino } = fstatSync(fd)
  let locks = ''
  try {
    locks = readFileSync('/proc/locks', 'utf8')
  } catch {}
  const found = new RegExp(`: FLOCK .* (\\d+) \\S+:${ino} `).exec(locks)
  return found === null ? 'another process' : `process ${found[1]}`
}

const tryLock = (fd: number, path: string): boolean => {
  if (sys().flock(fd, LOCK_EX_NB) === 0) return true
  const errno = lastErrno()
  if (errno !== EAGAIN) throw new SystemError('flock', errno, path)
  return false
}

/**
 * Locks an open file until all its descriptors are closed, also those that other processes got. Returns who has it
 * locked; undefined: the file is locked now, or its file system has no locks.
 */
export const lockOpenFile = (fd: number): string | undefined =>
  sys().flock(fd, LOCK_EX_NB) === 0 || lastErrno() !== EAGAIN ? undefined : holderText(fd)

interface LockFile {
  /** Removes the file and frees the lock. */
  release(): void
}

/**
 * Locks the file `path`; waits at most `timeout` milliseconds. Throws an Error if the file cannot be a lock or stays
 * locked, and the error of a failed system call. `use`: what a holder does, for the message.
 *
 * A holder removes the file, then unlocks it. A lock on a removed file excludes no other process, so this function then
 * locks a new file.
 */
export const takeLock = async (
  path: string,
  timeout = 10_000,
  use = 'starts a daemon at the same path',
): Promise<LockFile> => {
  const deadline = performance.now() + timeout
  for (;;) {
    const fd = openLock(path)
    try {
      while (!tryLock(fd, path)) {
        if (performance.now() >= deadline)
          throw new Error(`${path} is locked by ${holderText(fd)}, which ${use}; end it and try again`)
        await new Promise(resolve => setTimeout(resolve, INTERVAL))
      }
      if (isAt(path, fd))
        return {
          release() {
            removeHeld(path, fd)
            closeSync(fd)
          },
        }
    } catch (error) {
      closeSync(fd)
      throw error
    }
    closeSync(fd)
  }
}
