/*
 * A memory file that a client passed with HELLO, as the memory that its calls point into (spec/session.ts, R13): who
 * may not be looked at, as a program of another user, can ask all the same what devices there are and what they have.
 *
 * It is read and written at offsets and never mapped. It must be sealed against shrinking and growing, so what fits
 * once fits always, and of a size that costs us little: pages that we are the first to write are ours to pay. Which
 * calls point where is not known here.
 */
import { closeSync, fstatSync, readSync, writeSync } from 'node:fs'
import { SEAL_GROW, SEAL_SHRINK, sealsOf } from '../../host/memory/memfd.ts'
import { CallError } from '../../spec/errno.ts'
import { PassedFile } from '../../spec/session.ts'

export interface PassedMemory {
  /** Bytes from an offset on. Throws CallError EFAULT. */
  copyIn(address: bigint, length: number): Uint8Array
  /** Writes bytes from an offset on. Throws CallError EFAULT. */
  copyOut(address: bigint, bytes: Uint8Array): void
  /** Closes the file; from now on every offset faults. */
  close(): void
}

const SEALS = SEAL_SHRINK | SEAL_GROW

/** Takes the descriptor `fd` over. Undefined, and `fd` closed, if it is no such file. */
export const takePassedMemory = (fd: number): PassedMemory | undefined => {
  // Only a file in memory answers with its size at once.
  const seals = sealsOf(fd)
  const size = seals < 0 ? 0 : fstatSync(fd).size
  if (seals < 0 || (seals & SEALS) !== SEALS || size > PassedFile.bytes) {
    closeSync(fd)
    return undefined
  }
  let open = true
  const at = (address: bigint, length: number, move: (offset: number) => number): void => {
    const fits = open && address + BigInt(length) <= BigInt(size)
    try {
      if (fits && move(Number(address)) === length) return
    } catch {
      // A seal against writing: said below.
    }
    throw new CallError('EFAULT', `${length} bytes at offset ${address} of a memory file of ${size} cannot be reached`)
  }
  return {
    copyIn(address, length) {
      const bytes = new Uint8Array(open ? Math.min(length, size) : 0)
      at(address, length, offset => readSync(fd, bytes, 0, length, offset))
      return bytes
    },
    copyOut(address, bytes) {
      at(address, bytes.length, offset => writeSync(fd, bytes, 0, bytes.length, offset))
    },
    close() {
      if (open) closeSync(fd)
      open = false
    },
  }
}
