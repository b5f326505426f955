/*
 * Files whose reads or writes by calls are impossible, as those of a dma-buf and of huge pages
 * (docs/decisions/client-memory.md), or wait for a lock that a guest may hold (guest.ts).
 *
 * This process never touches the mapping itself. The kernel copies by process_vm_writev and process_vm_readv of this
 * process, with the mapping as the local side: a page that is gone is EFAULT, not SIGBUS, and the pages may be memory
 * of a device, which the remote side of such a call cannot be.
 */
import { EACCES, EINVAL } from '../errno.ts'
import { TWO_32 } from '../halves.ts'
import { check, libcFunctions, orErrno } from '../native.ts'
import { type Arena, mapArena } from './mapping.ts'

const sys = libcFunctions({
  mmap: 'int64_t mmap(int64_t address, uint64_t length, int protection, int flags, int fd, int64_t offset)',
  munmap: 'int munmap(int64_t address, uint64_t length)',
  process_vm_readv:
    'int64_t process_vm_readv(int pid, int64_t local, uint64_t locals, int64_t remote, uint64_t remotes, uint64_t flags)',
  process_vm_writev:
    'int64_t process_vm_writev(int pid, int64_t local, uint64_t locals, int64_t remote, uint64_t remotes, uint64_t flags)',
})

const PROT_READ = 1
const PROT_WRITE = 2
const MAP_SHARED = 1
const MAP_NORESERVE = 0x4000

/** Bytes of one copy, and of each of the two iovecs behind them. */
const BATCH = 0x10000
const IOVEC = 16

let arena: Arena | undefined
const workArena = (): Arena => {
  arena ??= mapArena(BATCH + 2 * IOVEC)
  return arena
}

const putIovec = (at: number, address: number, length: number): void => {
  const { u32 } = workArena()
  u32[at >> 2] = address % TWO_32
  u32[(at >> 2) + 1] = Math.floor(address / TWO_32)
  u32[(at >> 2) + 2] = length
  u32[(at >> 2) + 3] = 0
}

/** As readSync and writeSync of node:fs at a position, but returns -errno for errors. */
export interface MappedFile {
  read(bytes: Uint8Array, offset: number, length: number, position: number): number
  write(bytes: Uint8Array, offset: number, length: number, position: number): number
  /** Unmaps the file. To be called once. */
  close(): void
}

/** Copies `length` bytes between the start of an arena and an address of this process. Returns bytes or -errno. */
export type Copy = (write: boolean, arena: Arena, address: number, length: number) => number

const copyByKernel: Copy = (write, { address }, mapped, length) => {
  putIovec(BATCH, mapped, length)
  putIovec(BATCH + IOVEC, address, length)
  // to write to the mapping is to read what is remote
  const call = write ? sys().process_vm_readv : sys().process_vm_writev
  return orErrno(call(process.pid, address + BATCH, 1, address + BATCH + IOVEC, 1, 0))
}

/**
 * Maps `size` bytes of a file, at least 1, from `offset`, a multiple of the page size. Throws SystemError: the errors
 * of mmap(2).
 */
export const mapFile = (
  fd: number,
  size: number,
  isWritable: boolean,
  { offset: start = 0, copy = copyByKernel }: { readonly offset?: number; readonly copy?: Copy } = {},
): MappedFile => {
  const protection = isWritable ? PROT_READ | PROT_WRITE : PROT_READ
  const flags = MAP_SHARED | MAP_NORESERVE
  const mapped = check('mmap', sys().mmap(0, size, protection, flags, fd, start), `${size} bytes of fd ${fd}`)
  let isClosed = false

  const transfer = (write: boolean, bytes: Uint8Array, offset: number, length: number, position: number): number => {
    if (isClosed || position < start || position + length > start + size) return -EINVAL
    if (write && !isWritable) return -EACCES
    for (let done = 0; done < length; done += BATCH) {
      const part = Math.min(BATCH, length - done)
      const from = offset + done
      if (write) workArena().bytes.set(bytes.subarray(from, from + part))
      const moved = copy(write, workArena(), mapped + position - start + done, part)
      if (moved !== part) return moved < 0 ? moved : done + moved
      if (!write) bytes.set(workArena().bytes.subarray(0, part), from)
    }
    return length
  }
  return {
    read: (bytes, offset, length, position) => transfer(false, bytes, offset, length, position),
    write: (bytes, offset, length, position) => transfer(true, bytes, offset, length, position),
    close() {
      isClosed = true
      sys().munmap(mapped, size)
    },
  }
}
