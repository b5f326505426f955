/*
 * A memory file that a client passed with HELLO (spec/session.ts, R13). Addresses in the client's calls are offsets in
 * the file. So a client whose memory the daemon may not access, such as another user's program, can query devices.
 *
 * The file must be sealed against shrinking and growing, so that a valid range stays valid. Its size is limited,
 * because pages that the daemon writes first are charged to the daemon.
 */
import { fstatSync, readSync, writeSync } from 'node:fs'
import type { Guest } from '../../host/memory/guest.ts'
import { SEAL_GROW, SEAL_SHRINK, sealsOf } from '../../host/memory/memfd.ts'
import { closeElsewhere, type PassedFd } from '../../host/memory/mover.ts'
import { callError } from '../../spec/errno.ts'
import { PassedFile } from '../../spec/session.ts'

export interface PassedMemory {
  /** Reads at an offset. Throws CallError EFAULT. */
  copyIn(address: bigint, length: number): Uint8Array
  /** Writes at an offset. Throws CallError EFAULT. */
  copyOut(address: bigint, bytes: Uint8Array): void
  /** Closes the file; afterwards every access throws EFAULT. */
  close(): void
}

const REQUIRED_SEALS = SEAL_SHRINK | SEAL_GROW

/**
 * `fd` −1: no file was passed. If `fd` is not a file as described above, closes `fd` and returns undefined. `guest`:
 * the client, if it is of another user; its mover reads and writes the file.
 */
export const takePassedMemory = (fd: PassedFd, guest?: Guest): PassedMemory | undefined => {
  // fstat of other files can block.
  const seals = sealsOf(fd)
  const size = seals < 0 ? 0 : fstatSync(fd).size
  if (seals < 0 || (seals & REQUIRED_SEALS) !== REQUIRED_SEALS || size > PassedFile.bytes) {
    closeElsewhere(fd, guest?.user)
    return undefined
  }
  let isOpen = true
  const file = guest?.file(fd)
  /** `move` reads or writes `length` bytes at an offset, and returns the number. Throws EFAULT if `move` fails. */
  const transfer = (address: bigint, length: number, move: (offset: number) => number): void => {
    const isInside = isOpen && address + BigInt(length) <= BigInt(size)
    try {
      if (isInside && move(Number(address)) === length) return
    } catch {
      // For example, the file is sealed against writing.
    }
    throw callError.EFAULT`${length} bytes at offset ${address} of a memory file of ${size} cannot be reached`
  }
  return {
    copyIn(address, length) {
      const bytes = new Uint8Array(isOpen ? Math.min(length, size) : 0)
      transfer(address, length, offset =>
        file ? file.read(bytes, 0, length, offset) : readSync(fd, bytes, 0, length, offset),
      )
      return bytes
    },
    copyOut(address, bytes) {
      transfer(address, bytes.length, offset =>
        file ? file.write(bytes, 0, bytes.length, offset) : writeSync(fd, bytes, 0, bytes.length, offset),
      )
    },
    close() {
      if (!isOpen) return
      isOpen = false
      file?.close()
      closeElsewhere(fd, guest?.user)
    },
  }
}
