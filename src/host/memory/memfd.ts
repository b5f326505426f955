/*
 * Memory files: anonymous files that can be mapped here and passed to other processes. See memfd_create(2), fcntl(2)
 * "File Sealing".
 *
 * If another process truncates a mapped file, an access raises SIGBUS. So a file that leaves this process is sized once
 * and sealed against shrinking. A file with SEAL_FUTURE_WRITE that is mapped writable here, before the seal, is
 * read-only for all later receivers.
 */
import { closeSync, fstatSync } from 'node:fs'
import { check, libcFunctions, orErrno } from '../native.ts'

const sys = libcFunctions({
  memfd_create: 'int memfd_create(const char *name, unsigned int flags)',
  ftruncate: 'int ftruncate(int fd, int64_t length)',
  fcntl: 'int fcntl(int fd, int command, int64_t argument)',
  fallocate: 'int fallocate(int fd, int mode, int64_t offset, int64_t length)',
  flock: 'int flock(int fd, int operation)',
  open: 'int open(const char *path, int flags)',
})

const MFD_CLOEXEC = 1
const MFD_ALLOW_SEALING = 2
const F_ADD_SEALS = 1033
const F_GET_SEALS = 1034
const O_CLOEXEC = 0o2000000
const O_RDWR = 2
const LOCK_SH = 1
const LOCK_EX = 2
const LOCK_NB = 4
const LOCK_UN = 8
const FALLOC_FL_KEEP_SIZE = 1
const FALLOC_FL_PUNCH_HOLE = 2

/** No further seals. */
export const SEAL_SEAL = 1
/** The file cannot become shorter, so a mapping is safe. */
export const SEAL_SHRINK = 2
/** The file cannot become longer. */
export const SEAL_GROW = 4
/** No new writable mapping and no write(); existing writable mappings stay writable. */
export const SEAL_FUTURE_WRITE = 16
/** Forbids writes. */
export const SEAL_WRITE = 8

/** Runs `body`; if it throws, closes `fd`. */
const orClose = (fd: number, body: () => void): void => {
  try {
    body()
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/**
 * Returns the descriptor of a new memory file of `size` zero bytes, close-on-exec. `name` shows in /proc only. Throws
 * SystemError.
 */
export const createMemfd = (name: string, size: number): number => {
  const fd = check('memfd_create', sys().memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), `memory file "${name}"`)
  orClose(fd, () => check('ftruncate', sys().ftruncate(fd, size), `memory file "${name}" of ${size} bytes`))
  return fd
}

/**
 * Adds seals (SEAL_… or-ed). Throws SystemError: EPERM once SEAL_SEAL is set, EINVAL if the file does not support
 * seals.
 */
export const addSeals = (fd: number, seals: number): void => {
  check('fcntl(F_ADD_SEALS)', sys().fcntl(fd, F_ADD_SEALS, seals), `seals ${seals} for fd ${fd}`)
}

/**
 * Frees the memory of a range, which reads as zeros afterwards, in mappings too. Offset and length are multiples of the
 * page size. Throws SystemError.
 */
export const punchHole = (fd: number, offset: number, length: number): void => {
  const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
  check('fallocate', sys().fallocate(fd, mode, offset, length), `${length} bytes from ${offset} of fd ${fd}`)
}

/** The seals of a file, SEAL_… or-ed; -EINVAL if the file does not support seals. */
export const sealsOf = (fd: number): number => orErrno(sys().fcntl(fd, F_GET_SEALS, 0))

/** Device and inode of a file, the same in every process, and its size in bytes. Throws the error of fstat(2). */
export const fileIdentity = (fd: number): { dev: number; ino: number; size: number } => {
  const { dev, ino, size } = fstatSync(fd)
  return { dev, ino, size }
}

/** Of st_blocks. */
const BLOCK_BYTES = 512

/** How many bytes of memory a file has, and how many its largest pages have. Throws the error of fstat(2). */
export const memoryOf = (fd: number): { heldBytes: number; pageBytes: number } => {
  const { blocks, blksize } = fstatSync(fd)
  return { heldBytes: blocks * BLOCK_BYTES, pageBytes: blksize }
}

/**
 * Opens the file once more, for other processes, and locks it with flock(2). The lock ends with the last copy of the
 * new descriptor: in any process, in transit between processes, or under a mapping. `isHeld` reports whether a copy is
 * left. `access`: O_RDONLY, O_WRONLY or O_RDWR. Throws SystemError.
 */
export const openHeld = (fd: number, access = O_RDWR): number => {
  const held = check('open', sys().open(`/proc/self/fd/${fd}`, access | O_CLOEXEC), `fd ${fd} once more`)
  orClose(held, () => check('flock', sys().flock(held, LOCK_SH | LOCK_NB), `a lock of fd ${fd}`))
  return held
}

/**
 * Whether a copy of a descriptor from `openHeld` is left; true also if the kernel cannot tell (ENOMEM). `fd`: the
 * argument of `openHeld`.
 */
export const isHeld = (fd: number): boolean => {
  if (sys().flock(fd, LOCK_EX | LOCK_NB) !== 0) return true
  sys().flock(fd, LOCK_UN)
  return false
}
