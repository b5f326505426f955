/*
 * The memory of a connected process, as core's AddressSpace; dialects use copyIn and copyOut
 * (docs/decisions/client-memory.md).
 *
 * At most once per turn (`DaemonState.turn`), before the first access, this file checks that the pid is still the
 * process that connected, with the same program. Registration asks the kernel whether the pages exist and permit the
 * access (host/memory/ranges.ts). If a copy blocks for too long (host/memory/moves.ts), all later reads and writes fail
 * with ETIMEDOUT. Writes to pages that the program shares with a device wait while it replaces them
 * (docs/decisions/adopted-pages.md).
 */
import type { AddressSpace, Bytes } from '../../core/memory/address-space.ts'
import { type Range, RangeList } from '../../core/memory/range-list.ts'
import { EFAULT, ESRCH, ETIMEDOUT } from '../../host/errno.ts'
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import { createSlices, type Slices } from '../../host/event-loop/slices.ts'
import { type Arena, mapArena } from '../../host/memory/mapping.ts'
import { createMoves, type Moves } from '../../host/memory/moves.ts'
import { isSame, type ProcessHandle } from '../../host/memory/process.ts'
import { type MappedRanges, mappedRanges, Rights } from '../../host/memory/ranges.ts'
import type { UserfaultWatch } from '../../host/memory/userfault.ts'
import { MAD_RECEIVED_BYTES } from '../../spec/classes/mad/mad_channel.ts'
import { AccessFlags } from '../../spec/enums.ts'
import { type CallError, callError, Errno } from '../../spec/errno.ts'
import { TWO_32 } from '../../spec/memory.ts'
import type { WrittenRange } from '../../uapi/session-codec.ts'
import { RegisteredRanges, type RegistrationOptions, type StoreListener } from './registered-ranges.ts'
import { createWrittenRanges, type WrittenRanges } from './written-ranges.ts'

/** Maximum bytes of copyIn and copyOut. The longest copy is a received management message with its header. */
export const MAX_COPY_BYTES = MAD_RECEIVED_BYTES + 4096
/** The buffer for atomics, copyIn and copyOut; the byte behind it is for reads whose result nobody needs. */
let scratchArena: Arena | undefined
const scratch = (): Arena => {
  scratchArena ??= mapArena(MAX_COPY_BYTES + 1)
  return scratchArena
}

const { REMOTE_READ } = AccessFlags.values

/** How often a range with pages that the program replaces is looked up again. */
const LOOKS = 4

/** Bytes per slice of a prefetch. */
const PREFETCH_BYTES = 65536
let prefetchArena: Arena | undefined

/** Upper bound of user addresses on x86-64 and arm64. */
const USER_END = 2 ** 56

const high = (address: bigint): number => Number(address >> 32n)
const low = (address: bigint): number => Number(address & 0xffff_ffffn)

const faultError = (address: bigint, length: number): CallError =>
  callError.EFAULT`${length} bytes at address 0x${address.toString(16)} are not accessible memory of the caller`

interface SpaceOptions extends RegistrationOptions {
  /** Runs long checks of mappings in slices. */
  readonly slices?: Slices
  /** Called once, after a copy has blocked for too long. */
  readonly onTooSlow?: () => void
}

/** As `AddressSpace.peerAccesses`. */
export interface PeerListener {
  tell(hi: number, lo: number, length: number, access: number, qpn: number): void
}

const rightsOf = (writable: boolean): number => (writable ? Rights.READ | Rights.WRITE : Rights.READ)

/** `turn` returns `DaemonState.turn`. */
export class ProcessSpace implements AddressSpace {
  readonly #handle: ProcessHandle
  readonly #turn: () => number
  readonly #slices: Slices
  readonly #onTooSlow: () => void
  readonly #registered: RegisteredRanges
  #written: WrittenRanges | undefined
  #writtenByPeers: WrittenRanges | undefined
  #peers: PeerListener | undefined
  readonly #moves: Moves
  /** Pages that the program shares with a device, or is about to: it may replace them at any moment. */
  readonly #shared = new RangeList<Range>()
  /** Turn of the last check of the process, and its result. */
  #checkedTurn = -1
  #isSameProcess = true
  /** `now` of copies, read once per turn. */
  #timedTurn = -1
  #time = 0
  #hasStalled = false
  #isClosed = false
  #ranges: MappedRanges | undefined

  constructor(handle: ProcessHandle, turn: () => number, options: SpaceOptions = {}) {
    this.#handle = handle
    this.#turn = turn
    const { slices = createSlices(), onTooSlow = () => {} } = options
    this.#slices = slices
    this.#onTooSlow = onTooSlow
    this.#registered = new RegisteredRanges(handle, options)
    this.#moves = createMoves(
      handle,
      isInUse => this.#isAlive(isInUse),
      (start, end) => this.#shared.size > 0 && this.#shared.overlapping(start, end).length > 0,
    )
  }

  check(hi: number, lo: number, length: number, writable: boolean): boolean {
    if (length === 0) return true
    return this.#permits(hi * TWO_32 + lo, length, rightsOf(writable))
  }

  /** Whether the bytes are readable, writable memory that the process shares with no other by a mapping. */
  isPrivate(start: number, length: number): boolean {
    return this.#permits(start, length, Rights.READ | Rights.WRITE | Rights.PRIVATE)
  }

  pageBytes(hi: number, lo: number): number | undefined {
    const start = hi * TWO_32 + lo
    return this.#rangesFor(start, 1)?.pageBytes?.(start)
  }

  prepareCheck(hi: number, lo: number, length: number, writable: boolean): Promise<boolean> | undefined {
    const start = hi * TWO_32 + lo
    const search = this.#rangesFor(start, length)?.search(start, start + length, rightsOf(writable), this.#turn)
    // Most programs have few mappings, so the first slice suffices.
    if (search === undefined || search.next().done) return undefined
    return this.#slices.run(this.#registered.watching(start, length, search))
  }

  register(hi: number, lo: number, length: number, onUnmapped: () => void): () => void {
    return this.#registered.register(hi * TWO_32 + lo, length, onUnmapped)
  }

  prefetch(hi: number, lo: number, length: number): Promise<unknown> {
    return this.#slices.run(this.#readPages(hi * TWO_32 + lo, length))
  }

  get missingPages(): number | undefined {
    return this.#moves.missingPages
  }

  /** False before Linux 6.11, where a check before each access would take too long (host/memory/ranges.ts). */
  get ignoresProtection(): boolean {
    return this.#moves.ignoresProtection && this.#rangesFor(0, 0)?.pageBytes !== undefined
  }

  share(hi: number, lo: number, length: number): void {
    this.#written?.add(hi * TWO_32 + lo, length)
  }

  /** `peers`: is told of accesses of peers, before them; of a program with a sanitizer. */
  tellPeers(peers: PeerListener): void {
    this.#peers = peers
  }

  peerAccesses(hi: number, lo: number, length: number, access: number, qpn: number): void {
    this.#peers?.tell(hi, lo, length, access, qpn)
    if (access !== REMOTE_READ) this.#writtenByPeers?.add(hi * TWO_32 + lo, length)
  }

  read(hi: number, lo: number, to: Bytes, at: number, chunk: number, stride: number, total: number): number {
    return (
      this.#refusalErrno() || this.#errnoOf(this.#moves.read(hi, lo, to, at, chunk, stride, total, this.#now()), total)
    )
  }

  write(hi: number, lo: number, from: Bytes, at: number, chunk: number, stride: number, total: number): number {
    this.#written?.add(hi * TWO_32 + lo, total)
    const refusal = this.#refusalErrno()
    if (refusal !== 0) return refusal
    let moved = this.#moves.write(hi, lo, from, at, chunk, stride, total, this.#now())
    if (this.#isFrozen(moved, hi, lo, total))
      moved = this.#moves.write(hi, lo, from, at, chunk, stride, total, this.#now(), true)
    return this.#errnoOf(moved, total)
  }

  compareSwap(
    hi: number,
    lo: number,
    compareHi: number,
    compareLo: number,
    swapHi: number,
    swapLo: number,
    original: Uint32Array,
  ): number {
    const word = scratch()
    const error = this.read(hi, lo, word, 0, 8, 8, 8)
    if (error !== 0) return error
    original[0] = word.u32[0]!
    original[1] = word.u32[1]!
    if (original[0] !== compareLo >>> 0 || original[1] !== compareHi >>> 0) return 0
    word.u32[0] = swapLo
    word.u32[1] = swapHi
    return this.write(hi, lo, word, 0, 8, 8, 8)
  }

  fetchAdd(hi: number, lo: number, addHi: number, addLo: number, original: Uint32Array): number {
    const word = scratch()
    const error = this.read(hi, lo, word, 0, 8, 8, 8)
    if (error !== 0) return error
    original[0] = word.u32[0]!
    original[1] = word.u32[1]!
    const low = original[0]! + (addLo >>> 0)
    word.u32[0] = low
    word.u32[1] = original[1]! + addHi + (low >= TWO_32 ? 1 : 0)
    return this.write(hi, lo, word, 0, 8, 8, 8)
  }

  /** At most MAX_COPY_BYTES. Throws CallError EFAULT. */
  copyIn(address: bigint, length: number): Uint8Array {
    const local = scratch()
    if (length > MAX_COPY_BYTES || address >= BigInt(USER_END)) throw faultError(address, length)
    if (this.read(high(address), low(address), local, 0, length, length, length) !== 0)
      throw faultError(address, length)
    return local.bytes.slice(0, length)
  }

  /** At most MAX_COPY_BYTES. Throws CallError EFAULT. */
  copyOut(address: bigint, bytes: Uint8Array): void {
    const local = scratch()
    const { length } = bytes
    if (length > MAX_COPY_BYTES || address >= BigInt(USER_END)) throw faultError(address, length)
    if (this.ignoresProtection && !this.check(high(address), low(address), length, true))
      throw faultError(address, length)
    local.bytes.set(bytes)
    if (this.write(high(address), low(address), local, 0, length, length, length) !== 0)
      throw faultError(address, length)
  }

  /** Starts to record which ranges of the process's memory the daemon writes or peers may write. */
  recordWritten(): void {
    this.#written ??= createWrittenRanges()
    this.#writtenByPeers ??= createWrittenRanges()
  }

  /** Removes and returns up to `max` of the recorded ranges. */
  takeWritten(max: number): readonly WrittenRange[] {
    const byPeers = this.#writtenByPeers?.take(max) ?? []
    const others = this.#written?.take(max - byPeers.length) ?? []
    return [...byPeers.map(range => ({ ...range, isPeers: true })), ...others]
  }

  /** `fd`: a userfaultfd of the process, which this object will close (registered-ranges.ts). */
  watchUnmapping(fd: number): void {
    this.#registered.setUserfault(fd)
  }

  /** As the function of `RegisteredRanges`. */
  beginReplacement(start: number, end: number): void {
    this.#shared.removeOverlapping(start, end)
    this.#shared.add({ start, end })
    this.#moves.forget(start, end)
    this.#registered.beginReplacement(start, end)
  }

  /** As the function of `RegisteredRanges`. `isShared`: a device shares the pages now. */
  endReplacement(start: number, end: number, isShared: boolean): void {
    if (!isShared) this.#shared.removeOverlapping(start, end)
    this.#registered.endReplacement(start, end)
  }

  /** As `RegisteredRanges.watchStores`. */
  watchStores(listener: StoreListener): UserfaultWatch | undefined {
    return this.#registered.watchStores(listener)
  }

  /** As `RegisteredRanges.whenUnused`. */
  whenUnused(unused: () => void): void {
    this.#registered.whenUnused(unused)
  }

  /** All later reads and writes fail. The handle is not used any more. */
  close(): void {
    if (!this.#isClosed) this.#moves.close()
    this.#peers = undefined
    this.#registered.close()
    this.#isClosed = true
    this.#ranges?.close()
    this.#ranges = undefined
  }

  /** `isSpaceInUse`: see `isSame`. */
  #isAlive(isSpaceInUse = false): boolean {
    if (this.#isClosed) return false
    if (this.#checkedTurn !== this.#turn()) {
      this.#checkedTurn = this.#turn()
      this.#isSameProcess = isSame(this.#handle, isSpaceInUse)
    }
    return this.#isSameProcess
  }

  /** Reads all pages, and so brings them into memory. */
  *#readPages(start: number, length: number): Generator<undefined, void> {
    prefetchArena ??= mapArena(PREFETCH_BYTES)
    const end = start + length
    for (let at = start; at < end; at += PREFETCH_BYTES) {
      const bytes = Math.min(PREFETCH_BYTES, end - at)
      if (this.read(Math.floor(at / TWO_32), at % TWO_32, prefetchArena, 0, bytes, bytes, bytes) !== 0) return
      yield
    }
  }

  /** 0, or the errno with which copies fail. */
  #refusalErrno(): number {
    if (this.#hasStalled) return Errno.ETIMEDOUT
    return this.#isClosed ? Errno.ESRCH : 0
  }

  #now(): number {
    if (this.#timedTurn !== this.#turn()) {
      this.#timedTurn = this.#turn()
      this.#time = nowMicroseconds()
    }
    return this.#time
  }

  /** Whether a write of `total` bytes that has returned `moved` has failed because the program replaces pages now. */
  #isFrozen(moved: number, hi: number, lo: number, total: number): boolean {
    if (moved === total || (moved < 0 && moved !== -EFAULT) || this.#shared.size === 0) return false
    const start = hi * TWO_32 + lo
    // the mapping permits writes, also while the pages do not
    return this.#shared.overlapping(start, start + total).length > 0 && this.check(hi, lo, total, true)
  }

  /** The errno of a copy of `total` bytes that has returned `moved`; 0: success. */
  #errnoOf(moved: number, total: number): number {
    if (moved === total) return 0
    if (moved === -ESRCH) return Errno.ESRCH
    if (moved !== -ETIMEDOUT) return Errno.EFAULT
    this.#hasStalled = true
    this.#registered.close()
    this.#onTooSlow()
    return Errno.ETIMEDOUT
  }

  /**
   * Whether all bytes of the range are mapped with these rights. A query takes no lock (Linux 6.18), and finds nothing
   * while mremap replaces pages. A read waits for its end.
   */
  #permits(start: number, length: number, rights: number): boolean {
    const end = start + length
    const permits = (): boolean => this.#rangesFor(start, length)?.permits(start, end, rights, this.#turn()) ?? false
    for (let looks = 1; !permits(); looks++) {
      if (looks === LOOKS || this.#isClosed || this.#shared.overlapping(start, end).length === 0) return false
      this.#moves.read(Math.floor(start / TWO_32), start % TWO_32, scratch(), MAX_COPY_BYTES, 1, 1, 1, this.#now())
    }
    return true
  }

  /** The mappings of the process; undefined if the process has ended, or the range is beyond USER_END. */
  #rangesFor(start: number, length: number): MappedRanges | undefined {
    if (!this.#isAlive() || start + length > USER_END) return undefined
    if (this.#ranges === undefined) {
      this.#ranges = mappedRanges(this.#handle.pid, this.#handle.guest)
      // /proc/PID/maps was opened by pid, and another process may have reused the pid.
      if (!isSame(this.#handle)) {
        this.close()
        return undefined
      }
    }
    return this.#ranges
  }
}
