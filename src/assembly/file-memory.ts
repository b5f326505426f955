/*
 * A file as core's AddressSpace (class `mr`, kind FILE): addresses are offsets in the file.
 *
 * The file is accessed with pread and pwrite, because access to a mapping beyond the end of a truncated file raises
 * SIGBUS. The callers decide which files may be registered (daemon/memory/file-space.ts, library/network/file.ts).
 */
import { closeSync, fstatSync, readFileSync, readSync, writeSync } from 'node:fs'
import type { AddressSpace } from '../core/memory/address-space.ts'
import type { FileMemory } from '../core/model.ts'
import { Errno } from '../spec/errno.ts'
import { TWO_32 } from '../spec/memory.ts'

const O_ACCMODE = 3
const O_RDWR = 2
const O_APPEND = 0o2000

/** The status flags of a descriptor. */
const flagsOf = (fd: number): number => {
  const flags = /^flags:\s*([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? '0'
  return Number.parseInt(flags, 8)
}

/** Whether a descriptor is open for reading and writing. */
export const isWritable = (fd: number): boolean => (flagsOf(fd) & O_ACCMODE) === O_RDWR

/** Whether pwrite to a descriptor ignores the offset and appends. */
export const isAppending = (fd: number): boolean => (flagsOf(fd) & O_APPEND) !== 0

/**
 * Reads or writes `length` bytes, at offset `at` of `bytes` and offset `position` of the file. Returns the number of
 * bytes; fewer than `length`, or an exception, is an error.
 */
type Transfer = (bytes: Uint8Array, at: number, length: number, position: number) => number

export interface FileAccess {
  readonly read: Transfer
  readonly write: Transfer
  /** Called once, before the descriptor is closed: no mapping of the file may be left. */
  close?(): void
}

const descriptorAccess = (fd: number): FileAccess => ({
  read: (bytes, at, length, position) => readSync(fd, bytes, at, length, position),
  write: (bytes, at, length, position) => writeSync(fd, bytes, at, length, position),
})

/**
 * Transfers `total` bytes from offset `position` of the file on. `bytes` has them in chunks of `chunk` bytes at `at`,
 * `at + stride`, …; the last chunk may be shorter. Returns 0 or EFAULT.
 */
const transferAll = (
  transfer: Transfer,
  bytes: Uint8Array,
  at: number,
  chunk: number,
  stride: number,
  total: number,
  position: number,
): number => {
  try {
    let filePosition = position
    for (let remaining = total, offset = at; remaining > 0; remaining -= chunk, offset += stride) {
      const size = Math.min(chunk, remaining)
      if (transfer(bytes, offset, size, filePosition) !== size) return Errno.EFAULT
      filePosition += size
    }
    return 0
  } catch {
    return Errno.EFAULT
  }
}

/**
 * The file of `fd` as memory of a region. `FileMemory.close` closes `fd` by `closeFile`. `isSealed`: whether the file
 * refuses writes now.
 */
export const fileMemory = (
  fd: number,
  { read, write, close = () => {} }: FileAccess = descriptorAccess(fd),
  isSealed: () => boolean = () => false,
  closeFile: (fd: number) => void = closeSync,
): FileMemory => {
  const canWrite = isWritable(fd)
  /** The operand of an atomic, and its low and high half. */
  const word = new Uint8Array(8)
  const halves = new Uint32Array(word.buffer)
  const transferWord = (transfer: Transfer, position: number): number =>
    transferAll(transfer, word, 0, word.length, word.length, word.length, position)
  const fits = (position: number, length: number): boolean => {
    try {
      return position + length <= fstatSync(fd).size
    } catch {
      return false
    }
  }
  /**
   * Reads the word into `halves` and `original`. `modify` changes `halves`; if it returns true, they are written back.
   * Returns 0 or EFAULT.
   */
  const readModifyWrite = (hi: number, lo: number, original: Uint32Array, modify: () => boolean): number => {
    const position = hi * TWO_32 + lo
    const error = transferWord(read, position)
    if (error !== 0) return error
    original[0] = halves[0]!
    original[1] = halves[1]!
    return modify() ? transferWord(write, position) : 0
  }
  const space: AddressSpace = {
    check: (hi, lo, length, writing) =>
      length === 0 || (fits(hi * TWO_32 + lo, length) && (!writing || (canWrite && !isSealed()))),
    read: (hi, lo, to, at, chunk, stride, total) =>
      transferAll(read, to.bytes, at, chunk, stride, total, hi * TWO_32 + lo),
    write: (hi, lo, from, at, chunk, stride, total) =>
      fits(hi * TWO_32 + lo, total)
        ? transferAll(write, from.bytes, at, chunk, stride, total, hi * TWO_32 + lo)
        : Errno.EFAULT,
    compareSwap: (hi, lo, compareHi, compareLo, swapHi, swapLo, original) =>
      readModifyWrite(hi, lo, original, () => {
        if (halves[0] !== compareLo >>> 0 || halves[1] !== compareHi >>> 0) return false
        halves[0] = swapLo
        halves[1] = swapHi
        return true
      }),
    fetchAdd: (hi, lo, addHi, addLo, original) =>
      readModifyWrite(hi, lo, original, () => {
        const low = halves[0]! + (addLo >>> 0)
        halves[1]! += addHi + (low >= TWO_32 ? 1 : 0)
        halves[0] = low
        return true
      }),
  }
  let isOpen = true
  return {
    space,
    close() {
      if (!isOpen) return
      isOpen = false
      close()
      closeFile(fd)
    },
  }
}
