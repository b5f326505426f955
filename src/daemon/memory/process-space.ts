/*
 * The memory of a connected process, as core's AddressSpace and for the dialects (docs/decisions/client-memory.md).
 *
 * Either the kernel checks the daemon's permission at every copy, or copies are bound to the address space that the
 * process had when it connected (host/memory/process.ts). Once per turn (`DaemonState.turn`) this file checks that the
 * pid is still the process that connected, running the same program. Registration asks the kernel whether the pages
 * exist and permit the access (host/memory/ranges.ts).
 *
 * If a copy blocks for too long (host/memory/moves.ts), the memory is not copied again: all later reads and writes fail
 * with ETIMEDOUT.
 */
import type { AddressSpace } from '../../core/memory/address-space.ts'
import { ESRCH, ETIMEDOUT } from '../../host/errno.ts'
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import { createSlices, type Slices } from '../../host/event-loop/slices.ts'
import { type Arena, mapArena } from '../../host/memory/mapping.ts'
import { createMoves } from '../../host/memory/moves.ts'
import { isSame, type ProcessHandle } from '../../host/memory/process.ts'
import { type MappedRanges, mappedRanges, Rights } from '../../host/memory/ranges.ts'
import { CallError, Errno } from '../../spec/errno.ts'
import { TWO_32 } from '../../spec/memory.ts'
import { createRegisteredRanges, type RegistrationOptions } from './registered-ranges.ts'
import { createWrittenRanges, type WrittenRange, type WrittenRanges } from './written-ranges.ts'

/** Bytes of the buffer for 8-byte atomics and for the data of copyIn and copyOut, which is thus limited to them. */
const SCRATCH_BYTES = 1 << 20
let scratchArena: Arena | undefined
const scratch = (): Arena => {
  scratchArena ??= mapArena(SCRATCH_BYTES)
  return scratchArena
}

/** Addresses of user space are below this on x86-64 and arm64. */
const USER_END = 2 ** 56

export interface ProcessSpace extends AddressSpace {
  /** Throws CallError EFAULT, also beyond SCRATCH_BYTES. */
  copyIn(address: bigint, length: number): Uint8Array
  /** Throws as `copyIn`. */
  copyOut(address: bigint, bytes: Uint8Array): void
  /** From now on records which ranges of the process's memory are written, or registered such that peers may write. */
  recordWritten(): void
  /** Returns up to `max` of the recorded ranges, and forgets them. */
  takeWritten(max: number): readonly WrittenRange[]
  /** Takes ownership of a userfaultfd of the process: from now on a region fails when its pages are unmapped. */
  watchUnmapping(fd: number): void
  /** The handle is not used any more: from now on reads and writes fail with ESRCH. */
  close(): void
}

const high = (address: bigint): number => Number(address >> 32n)
const low = (address: bigint): number => Number(address & 0xffff_ffffn)

const faultError = (address: bigint, length: number): CallError =>
  new CallError(
    'EFAULT',
    `${length} bytes at address 0x${address.toString(16)} are not accessible memory of the caller`,
  )

export interface SpaceOptions extends RegistrationOptions {
  readonly slices?: Slices
  /** Called once when an access to the process's memory has blocked for too long. */
  readonly onTooSlow?: () => void
}

/** `turn` returns `DaemonState.turn`: the process's identity is checked once per turn. */
export const createProcessSpace = (
  handle: ProcessHandle,
  turn: () => number,
  options: SpaceOptions = {},
): ProcessSpace => {
  const { slices = createSlices(), onTooSlow = () => {} } = options
  const registered = createRegisteredRanges(handle, options)
  let written: WrittenRanges | undefined
  const moves = createMoves(handle)
  /** Turn and time of the last check of the process, and its result. */
  let checkedTurn = -1
  let checkedAt = 0
  let isSameProcess = true
  let hasStalled = false
  let isClosed = false
  let ranges: MappedRanges | undefined
  const isAlive = (): boolean => {
    if (isClosed) return false
    if (checkedTurn !== turn()) {
      checkedTurn = turn()
      checkedAt = nowMicroseconds()
      isSameProcess = isSame(handle)
    }
    return isSameProcess
  }
  /** 0, or the errno with which copies fail. */
  const refusalErrno = (): number => (hasStalled ? Errno.ETIMEDOUT : isAlive() ? 0 : Errno.ESRCH)
  /** The errno of a copy of `total` bytes that has returned `moved`; 0 if all were copied. */
  const errnoOf = (moved: number, total: number): number => {
    if (moved === total) return 0
    if (moved === -ESRCH) return Errno.ESRCH
    if (moved !== -ETIMEDOUT) return Errno.EFAULT
    hasStalled = true
    registered.close()
    onTooSlow()
    return Errno.ETIMEDOUT
  }

  const rightsOf = (writable: boolean): number => (writable ? Rights.READ | Rights.WRITE : Rights.READ)
  /** The mappings of the process; undefined if it has ended, or the addresses are not below USER_END. */
  const rangesFor = (start: number, length: number): MappedRanges | undefined => {
    if (!isAlive() || start + length > USER_END) return undefined
    if (ranges === undefined) {
      ranges = mappedRanges(handle.pid, handle.guest)
      // /proc/PID/maps was just opened by pid: it is that of the right process only if the process still exists.
      if (!isSame(handle)) space.close()
    }
    return ranges
  }

  const space: ProcessSpace = {
    check(hi, lo, length, writable) {
      if (length === 0) return true
      const start = hi * TWO_32 + lo
      return rangesFor(start, length)?.permits(start, start + length, rightsOf(writable), turn()) ?? false
    },
    prepareCheck(hi, lo, length, writable) {
      const start = hi * TWO_32 + lo
      const search = rangesFor(start, length)?.search(start, start + length, rightsOf(writable), turn)
      // Most programs have few mappings, so the first slice suffices.
      return search === undefined || search.next().done ? undefined : slices.run(search)
    },
    register(hi, lo, length, isShared, onUnmapped) {
      const release = registered.register(hi * TWO_32 + lo, length, onUnmapped)
      if (isShared) written?.add(hi * TWO_32 + lo, length)
      return release
    },
    read: (hi, lo, to, at, chunk, stride, total) =>
      refusalErrno() || errnoOf(moves.read(hi, lo, to, at, chunk, stride, total, checkedAt), total),
    write(hi, lo, from, at, chunk, stride, total) {
      written?.add(hi * TWO_32 + lo, total)
      return refusalErrno() || errnoOf(moves.write(hi, lo, from, at, chunk, stride, total, checkedAt), total)
    },
    compareSwap(hi, lo, compareHi, compareLo, swapHi, swapLo, original) {
      const word = scratch()
      const error = space.read(hi, lo, word, 0, 8, 8, 8)
      if (error !== 0) return error
      original[0] = word.u32[0]!
      original[1] = word.u32[1]!
      if (original[0] !== compareLo >>> 0 || original[1] !== compareHi >>> 0) return 0
      word.u32[0] = swapLo
      word.u32[1] = swapHi
      return space.write(hi, lo, word, 0, 8, 8, 8)
    },
    fetchAdd(hi, lo, addHi, addLo, original) {
      const word = scratch()
      const error = space.read(hi, lo, word, 0, 8, 8, 8)
      if (error !== 0) return error
      original[0] = word.u32[0]!
      original[1] = word.u32[1]!
      const low = original[0]! + (addLo >>> 0)
      word.u32[0] = low
      word.u32[1] = original[1]! + addHi + (low >= TWO_32 ? 1 : 0)
      return space.write(hi, lo, word, 0, 8, 8, 8)
    },
    copyIn(address, length) {
      const local = scratch()
      if (length > SCRATCH_BYTES || address >= BigInt(USER_END)) throw faultError(address, length)
      if (space.read(high(address), low(address), local, 0, length, length, length) !== 0)
        throw faultError(address, length)
      return local.bytes.slice(0, length)
    },
    copyOut(address, bytes) {
      const local = scratch()
      const { length } = bytes
      if (length > SCRATCH_BYTES || address >= BigInt(USER_END)) throw faultError(address, length)
      local.bytes.set(bytes)
      if (space.write(high(address), low(address), local, 0, length, length, length) !== 0)
        throw faultError(address, length)
    },
    recordWritten() {
      written ??= createWrittenRanges()
    },
    takeWritten: max => written?.take(max) ?? [],
    watchUnmapping: fd => registered.setUserfault(fd),
    close() {
      if (!isClosed) moves.close()
      registered.close()
      isClosed = true
      ranges?.close()
      ranges = undefined
    },
  }
  return space
}
