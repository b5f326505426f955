/*
 * A file as core's AddressSpace (class `mr`, kind FILE): addresses are offsets in the file.
 *
 * It is read and written at offsets and never mapped, so that shortening it causes a fault instead of a signal. The
 * carrier decides which files are allowed.
 */
import { closeSync, fstatSync, readFileSync, readSync, writeSync } from 'node:fs'
import type { AddressSpace } from '../../core/memory/address-space.ts'
import type { FileMemory } from '../../core/model.ts'
import { Errno } from '../../spec/errno.ts'
import { TWO_32 } from '../../spec/memory.ts'

const ACCESS_MODE = 3
const READ_WRITE = 2

/** Whether a descriptor of this process is open for reading and writing. */
export const isWritable = (fd: number): boolean => {
  const flags = /^flags:\s*([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? '0'
  return (Number.parseInt(flags, 8) & ACCESS_MODE) === READ_WRITE
}

type Move = (bytes: Uint8Array, at: number, length: number, position: number) => number

/** How a file is read and written: returns the number of bytes; fewer bytes or an exception are an error. */
export interface FileAccess {
  readonly read: Move
  readonly write: Move
  close?(): void
}

const directly = (fd: number): FileAccess => ({
  read: (bytes, at, length, position) => readSync(fd, bytes, at, length, position),
  write: (bytes, at, length, position) => writeSync(fd, bytes, at, length, position),
})

/** Copies `total` bytes from `position` on in chunks. 0 or EFAULT. */
const moveAll = (
  move: Move,
  bytes: Uint8Array,
  at: number,
  chunk: number,
  stride: number,
  total: number,
  position: number,
): number => {
  try {
    let from = position
    for (let left = total, place = at; left > 0; left -= chunk, place += stride) {
      const size = Math.min(chunk, left)
      if (move(bytes, place, size, from) !== size) return Errno.EFAULT
      from += size
    }
    return 0
  } catch {
    return Errno.EFAULT
  }
}

/** The file of a descriptor, which the region owns from now on. Writes never extend it. */
export const fileMemory = (fd: number, { read, write, close = () => {} }: FileAccess = directly(fd)): FileMemory => {
  const writable = isWritable(fd)
  const word = new Uint8Array(8)
  const halves = new Uint32Array(word.buffer)
  const fits = (position: number, length: number): boolean => {
    try {
      return position + length <= fstatSync(fd).size
    } catch {
      return false
    }
  }
  const change = (hi: number, lo: number, original: Uint32Array, next: () => boolean): number => {
    const position = hi * TWO_32 + lo
    const error = moveAll(read, word, 0, 8, 8, 8, position)
    if (error !== 0) return error
    original[0] = halves[0]
    original[1] = halves[1]
    return next() ? moveAll(write, word, 0, 8, 8, 8, position) : 0
  }
  const space: AddressSpace = {
    check: (hi, lo, length, writing) => fits(hi * TWO_32 + lo, length) && (writable || !writing),
    read: (hi, lo, to, at, chunk, stride, total) => moveAll(read, to.bytes, at, chunk, stride, total, hi * TWO_32 + lo),
    write: (hi, lo, from, at, chunk, stride, total) =>
      fits(hi * TWO_32 + lo, total)
        ? moveAll(write, from.bytes, at, chunk, stride, total, hi * TWO_32 + lo)
        : Errno.EFAULT,
    compareSwap: (hi, lo, compareHi, compareLo, swapHi, swapLo, original) =>
      change(hi, lo, original, () => {
        if (halves[0] !== compareLo >>> 0 || halves[1] !== compareHi >>> 0) return false
        halves[0] = swapLo
        halves[1] = swapHi
        return true
      }),
    fetchAdd: (hi, lo, addHi, addLo, original) =>
      change(hi, lo, original, () => {
        const low = halves[0] + (addLo >>> 0)
        halves[1] += addHi + (low >= TWO_32 ? 1 : 0)
        halves[0] = low
        return true
      }),
  }
  let open = true
  return {
    space,
    close() {
      if (!open) return
      open = false
      close()
      closeSync(fd)
    },
  }
}
