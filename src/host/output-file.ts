/*
 * Output files of commands, which contain the data of programs. There are two kinds:
 *
 * - traces, captures, recordings, findings as they are found: people and programs read them while they grow, so they
 *   are written in place;
 * - results, which are of use only when they are complete: written beside, with a name of their own, and renamed at the
 *   end. Until then, and after a failure, an older file stays.
 *
 * Both are private to their user (mode 0600). Symbolic links are not followed, and only a file of the user is
 * truncated: another user with write access to the folder must not redirect the output. Links to our own descriptors
 * (/dev/stdout, /dev/fd/3) are followed: the kernel makes them. Their files may belong to another user, for example
 * under sudo.
 */
import { randomBytes } from 'node:crypto'
import {
  accessSync,
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'

const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, W_OK, X_OK } = constants

const isDescriptor = (path: string): boolean => /^(\/dev|\/proc\/self)\/(stdout|stderr|fd\/\d+)$/.test(path)

/** O_NONBLOCK for a file that is not the user's, because open(2) must not wait for another user's FIFO. */
const flagsFor = (path: string): number => {
  if (isDescriptor(path)) return O_WRONLY | O_CREAT
  const isOwn = lstatSync(path, { throwIfNoEntry: false })?.uid === process.geteuid?.()
  return O_WRONLY | O_CREAT | O_NOFOLLOW | (isOwn ? 0 : O_NONBLOCK)
}

/**
 * Throws an Error unless the open file is a regular file of the user with one name, or a device or FIFO of the user or
 * root. Sets the mode of a file of the user to 0600. A file of our own descriptors (`isPassed`) may be another user's.
 * `name`: as the user wrote it.
 */
const requireOwn = (name: string, fd: number, isPassed: boolean): void => {
  const stat = fstatSync(fd)
  const { uid, nlink } = stat
  if (uid !== process.geteuid?.() && !isPassed && (stat.isFile() || uid !== 0))
    throw new Error(`cannot write to ${name}: it belongs to user ${uid}; remove it, or name another file`)
  if (!stat.isFile()) return
  if (nlink > 1) throw new Error(`cannot write to ${name}: the file has ${nlink} names; remove it, or name another`)
  if (uid === process.geteuid?.()) fchmodSync(fd, 0o600)
}

const systemError = (name: string, error: unknown): Error => {
  const { code } = error as NodeJS.ErrnoException
  if (code === 'ELOOP') return new Error(`cannot write to ${name}: it is a symbolic link; name the file itself`)
  return Object.assign(new Error(`cannot write to ${name}: ${code}`), { code })
}

/**
 * Opens `name` for writing: a file, created if necessary, whose content stays until `emptyOutputFile`, or a device or
 * FIFO. Returns the descriptor. Throws an Error. If open(2) failed, the Error has its `code`, except for a symbolic
 * link.
 */
export const openOutputFile = (name: string): number => {
  const path = resolve(name)
  let fd: number
  try {
    fd = openSync(path, flagsFor(path), 0o600)
  } catch (error) {
    throw systemError(name, error)
  }
  try {
    requireOwn(name, fd, isDescriptor(path))
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** Truncates a regular file. */
export const emptyOutputFile = (fd: number): void => {
  if (fstatSync(fd).isFile()) ftruncateSync(fd)
}

/** Opens `name` as `openOutputFile`, and empties it. */
export const createOutputFile = (name: string): number => {
  const fd = openOutputFile(name)
  emptyOutputFile(fd)
  return fd
}

/** A file for a result. */
export interface ResultFile {
  /** The descriptor; the first call creates the file beside. Throws an Error. */
  open(): number
  /** Gives the file its name. Throws an Error. */
  commit(): void
  /** Leaves an older file as it is. What a device, FIFO or passed descriptor has got stays. */
  discard(): void
}

/**
 * A mount point, for example a file that is bound into a container, has a name that cannot be given to another file.
 */
const isMountPoint = (path: string): boolean => {
  try {
    return readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .some(line => line.split(' ')[4] === path)
  } catch {
    return false
  }
}

const mayCreateIn = (folder: string): boolean => {
  try {
    accessSync(folder, W_OK | X_OK)
    return true
  } catch {
    return false
  }
}

/**
 * A result with this name, under the rules of `openOutputFile`. Devices, FIFOs and our own descriptors are written in
 * place, and so is a file that cannot be replaced: a mount point, or in a folder where the user may not create files.
 * Throws an Error.
 */
export const createResultFile = (name: string): ResultFile => {
  const path = resolve(name)
  const existing = lstatSync(path, { throwIfNoEntry: false })
  const isReplaced =
    !isDescriptor(path) && (existing?.isFile() ?? true) && mayCreateIn(dirname(path)) && !isMountPoint(path)
  if (!isReplaced) {
    const fd = openOutputFile(name)
    let isEmptied = false
    return {
      open() {
        if (!isEmptied) emptyOutputFile(fd)
        isEmptied = true
        return fd
      },
      commit: () => closeSync(fd),
      discard: () => closeSync(fd),
    }
  }
  if (existing !== undefined) closeSync(openOutputFile(name))
  const beside = join(dirname(path), `.userdma-${randomBytes(8).toString('hex')}`)
  let fd: number | undefined
  return {
    open() {
      try {
        fd ??= openSync(beside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
        return fd
      } catch (error) {
        throw systemError(name, error)
      }
    },
    commit() {
      const written = this.open()
      try {
        // The umask may have taken bits.
        fchmodSync(written, 0o600)
        renameSync(beside, path)
        closeSync(written)
      } catch (error) {
        throw systemError(name, error)
      }
    },
    discard() {
      if (fd === undefined) return
      closeSync(fd)
      rmSync(beside, { force: true })
    },
  }
}

/** Appends a block. If it throws, a regular file has no part of the block, which would damage a capture. */
export const appendBlock = (fd: number, block: Uint8Array): void => {
  let written = 0
  try {
    while (written < block.length) written += writeSync(fd, block, written)
  } catch (error) {
    if (written > 0) {
      const stat = fstatSync(fd)
      if (stat.isFile()) ftruncateSync(fd, stat.size - written)
    }
    throw error
  }
}
