/*
 * Output files of commands: traces and captures, which contain the data of programs.
 *
 * They are private to their user (mode 0600). Symbolic links are not followed, and only a file of the user is
 * truncated: another user with write access to the folder must not redirect the output. Links to our own descriptors
 * (/dev/stdout, /dev/fd/3) are followed: the kernel makes them. Their files may belong to another user, for example
 * under sudo.
 */
import { closeSync, constants, fchmodSync, fstatSync, ftruncateSync, lstatSync, openSync, writeSync } from 'node:fs'
import { resolve } from 'node:path'

const { O_WRONLY, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants

const isDescriptor = (path: string): boolean => /^(\/dev|\/proc\/self)\/(stdout|stderr|fd\/\d+)$/.test(path)

/** O_NONBLOCK for a file that is not the user's, because open(2) must not wait for another user's FIFO. */
const flagsFor = (path: string): number => {
  if (isDescriptor(path)) return O_WRONLY | O_CREAT
  const isOwn = lstatSync(path, { throwIfNoEntry: false })?.uid === process.geteuid?.()
  return O_WRONLY | O_CREAT | O_NOFOLLOW | (isOwn ? 0 : O_NONBLOCK)
}

/**
 * Truncates a regular file of the user and sets its mode to 0600. Leaves devices and FIFOs of the user or root
 * unchanged. Throws an Error for other files, and for a file with several hard links. A file of our own descriptors
 * (`isPassed`) may be another user's, and keeps its mode then. `name`: as the user wrote it.
 */
const truncateOwn = (name: string, fd: number, isPassed: boolean): void => {
  const stat = fstatSync(fd)
  const { uid, nlink } = stat
  const isOwn = uid === process.geteuid?.()
  if (!isOwn && !isPassed && (stat.isFile() || uid !== 0))
    throw new Error(`cannot write to ${name}: it belongs to user ${uid}; remove it, or name another file`)
  if (!stat.isFile()) return
  if (nlink > 1) throw new Error(`cannot write to ${name}: the file has ${nlink} names; remove it, or name another`)
  if (isOwn) fchmodSync(fd, 0o600)
  ftruncateSync(fd)
}

/**
 * Opens `name` for writing: an empty file, created if necessary, or a device or FIFO. Returns the descriptor. Throws an
 * Error. If open(2) failed, the Error has its `code`, except for a symbolic link.
 */
export const createOutputFile = (name: string): number => {
  const path = resolve(name)
  let fd: number
  try {
    fd = openSync(path, flagsFor(path), 0o600)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ELOOP') throw new Error(`cannot write to ${name}: it is a symbolic link; name the file itself`)
    throw Object.assign(new Error(`cannot write to ${name}: ${code}`), { code })
  }
  try {
    truncateOwn(name, fd, isDescriptor(path))
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
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
