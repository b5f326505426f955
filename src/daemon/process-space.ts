/*
 * The memory of a connected process as core's AddressSpace, and as what dialects read and write (design.md section 6).
 *
 * The kernel checks page protection and our right to look at every move. That the pid still means the process that
 * connected, running the same program, is asked once per turn of the daemon's loop. Registration asks /proc/PID/maps
 * whether the pages exist and permit the access.
 */
import { readFileSync } from 'node:fs'
import type { AddressSpace } from '../core/address-space.ts'
import { ESRCH } from '../host/errno.ts'
import { type Arena, mapArena } from '../host/mapping.ts'
import { isSame, type ProcessHandle, readAt, readv, writeAt, writev } from '../host/process.ts'
import { CallError, Errno } from '../spec/errno.ts'
import { TWO_32 } from '../spec/memory.ts'

/** One word for operations on 8 bytes, and room for structs that calls point to. */
const SCRATCH_BYTES = 1 << 20
let scratchArena: Arena | undefined
const scratch = (): Arena => {
  scratchArena ??= mapArena(SCRATCH_BYTES)
  return scratchArena
}

/** Addresses of user space are below this on every 64-bit Linux. */
const USER_END = 2 ** 56

export interface ProcessSpace extends AddressSpace {
  copyIn(address: bigint, length: number): Uint8Array
  copyOut(address: bigint, bytes: Uint8Array): void
  /** The process is gone, and its handle about to be closed: from now on everything fails with ESRCH. */
  close(): void
}

const faulted = (address: bigint, length: number): CallError =>
  new CallError(
    'EFAULT',
    `${length} bytes at address 0x${address.toString(16)} are not accessible memory of the caller`,
  )

/** Ranges of a maps file, ascending: start, end, and what may be done there (bits of `Rights`). */
const mappedRanges = (pid: number): Float64Array => {
  const lines = readFileSync(`/proc/${pid}/maps`, 'latin1').split('\n')
  const ranges = new Float64Array(3 * lines.length)
  lines.forEach((line, i) => {
    if (line === '') return
    const dash = line.indexOf('-')
    const space = line.indexOf(' ', dash)
    ranges[3 * i] = Number.parseInt(line.slice(0, dash), 16)
    ranges[3 * i + 1] = Number.parseInt(line.slice(dash + 1, space), 16)
    ranges[3 * i + 2] = (line[space + 1] === 'r' ? Rights.READ : 0) | (line[space + 2] === 'w' ? Rights.WRITE : 0)
  })
  return ranges
}

const Rights = { READ: 1, WRITE: 2 } as const

/**
 * The ranges of the process that was asked about last: a chain registers many pieces of memory in one turn, and reading
 * them costs more than all else that a registration does (0.1 to 0.3 ms for a program of 500 ranges).
 */
let latest: { readonly handle: ProcessHandle; readonly turn: number; readonly ranges: Float64Array } | undefined

/** `turn` counts the daemon's turns: whether the process is still the same is asked once in each. */
export const createProcessSpace = (handle: ProcessHandle, turn: () => number): ProcessSpace => {
  let checked = -1
  let same = true
  let closed = false
  const alive = (): boolean => {
    if (closed) return false
    if (checked !== turn()) {
      checked = turn()
      same = isSame(handle)
    }
    return same
  }
  /** Empty if the process is gone. */
  const rangesNow = (): Float64Array => {
    if (latest?.handle === handle && latest.turn === turn()) return latest.ranges
    try {
      latest = { handle, turn: turn(), ranges: mappedRanges(handle.pid) }
      return latest.ranges
    } catch {
      return new Float64Array()
    }
  }
  const done = (moved: number, total: number): number => {
    if (moved === total) return 0
    return moved === -ESRCH ? Errno.ESRCH : Errno.EFAULT
  }

  const space: ProcessSpace = {
    check(hi, lo, length, writable) {
      if (length === 0) return true
      const start = hi * TWO_32 + lo
      if (!alive() || start + length > USER_END) return false
      const wanted = writable ? Rights.READ | Rights.WRITE : Rights.READ
      const ranges = rangesNow()
      let reached = start
      for (let i = 0; i < ranges.length; i += 3) {
        const to = ranges[i + 1]
        if (to <= reached) continue
        if (ranges[i] > reached || (ranges[i + 2] & wanted) !== wanted) return false
        reached = to
        if (reached >= start + length) return true
      }
      return false
    },
    read: (hi, lo, to, at, chunk, stride, total) =>
      alive() ? done(readv(handle, hi, lo, to, at, chunk, stride, total), total) : Errno.ESRCH,
    write: (hi, lo, from, at, chunk, stride, total) =>
      alive() ? done(writev(handle, hi, lo, from, at, chunk, stride, total), total) : Errno.ESRCH,
    compareSwap(hi, lo, compareHi, compareLo, swapHi, swapLo, original) {
      const word = scratch()
      const error = space.read(hi, lo, word, 0, 8, 8, 8)
      if (error !== 0) return error
      original[0] = word.u32[0]
      original[1] = word.u32[1]
      if (original[0] !== compareLo >>> 0 || original[1] !== compareHi >>> 0) return 0
      word.u32[0] = swapLo
      word.u32[1] = swapHi
      return space.write(hi, lo, word, 0, 8, 8, 8)
    },
    fetchAdd(hi, lo, addHi, addLo, original) {
      const word = scratch()
      const error = space.read(hi, lo, word, 0, 8, 8, 8)
      if (error !== 0) return error
      original[0] = word.u32[0]
      original[1] = word.u32[1]
      const low = original[0] + (addLo >>> 0)
      word.u32[0] = low
      word.u32[1] = original[1] + addHi + (low >= TWO_32 ? 1 : 0)
      return space.write(hi, lo, word, 0, 8, 8, 8)
    },
    copyIn(address, length) {
      const local = scratch()
      if (length > SCRATCH_BYTES || address >= BigInt(USER_END) || !alive()) throw faulted(address, length)
      if (readAt(handle, Number(address), local, 0, length) !== length) throw faulted(address, length)
      return local.bytes.slice(0, length)
    },
    copyOut(address, bytes) {
      const local = scratch()
      if (bytes.length > SCRATCH_BYTES || address >= BigInt(USER_END) || !alive()) throw faulted(address, bytes.length)
      local.bytes.set(bytes)
      if (writeAt(handle, Number(address), local, 0, bytes.length) !== bytes.length)
        throw faulted(address, bytes.length)
    },
    close() {
      closed = true
      if (latest?.handle === handle) latest = undefined
    },
  }
  return space
}
