/*
 * The memory of a region with on-demand paging (Linux: ib_umem_odp). Its pages are not pinned and not counted against
 * RLIMIT_MEMLOCK: each access uses the pages that the program has mapped then, and waits for those that are not in
 * memory. So nothing has to be invalidated, and only faults and prefetched pages are counted.
 */
import { Errno } from '../../spec/errno.ts'
import type { ActingRule } from '../../spec/faults.ts'
import type { AddressSpace, Bytes } from './address-space.ts'

export class OnDemandSpace implements AddressSpace {
  /** The program's memory. */
  readonly memory: AddressSpace
  /** Pages that accesses to the region have found missing, and the number of these accesses. */
  faults = 0
  handledFaults = 0
  prefetchedPages = 0
  /** The fault rule by which the last access failed. */
  injected: ActingRule | undefined
  readonly #decide: () => ActingRule | undefined

  /** `decide`: the fault rule by which an access finds no page; undefined: none. */
  constructor(memory: AddressSpace, decide: () => ActingRule | undefined = () => undefined) {
    this.memory = memory
    this.#decide = decide
  }

  check(hi: number, lo: number, length: number, needsWrite: boolean): boolean {
    return this.memory.check(hi, lo, length, needsWrite)
  }

  peerAccesses(hi: number, lo: number, length: number, access: number, qpn: number): void {
    this.memory.peerAccesses?.(hi, lo, length, access, qpn)
  }

  read(hi: number, lo: number, to: Bytes, at: number, chunk: number, stride: number, total: number): number {
    if (this.#isGone(hi, lo, total, false)) return Errno.EFAULT
    return this.#counted(this.memory.missingPages, this.memory.read(hi, lo, to, at, chunk, stride, total))
  }

  write(hi: number, lo: number, from: Bytes, at: number, chunk: number, stride: number, total: number): number {
    if (this.#isGone(hi, lo, total, true)) return Errno.EFAULT
    return this.#counted(this.memory.missingPages, this.memory.write(hi, lo, from, at, chunk, stride, total))
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
    const { memory } = this
    if (this.#isGone(hi, lo, 8, true)) return Errno.EFAULT
    return this.#counted(
      memory.missingPages,
      memory.compareSwap(hi, lo, compareHi, compareLo, swapHi, swapLo, original),
    )
  }

  fetchAdd(hi: number, lo: number, addHi: number, addLo: number, original: Uint32Array): number {
    if (this.#isGone(hi, lo, 8, true)) return Errno.EFAULT
    return this.#counted(this.memory.missingPages, this.memory.fetchAdd(hi, lo, addHi, addLo, original))
  }

  /** Undefined: faults are not counted, because the program is another user's. */
  counters() {
    if (this.memory.missingPages === undefined) return undefined
    const { faults, handledFaults, prefetchedPages } = this
    return {
      pageFaults: BigInt(faults),
      pageFaultsHandled: BigInt(handledFaults),
      pagesPrefetched: BigInt(prefetchedPages),
    }
  }

  /** Whether a fault rule, or the protection of the pages, forbids the access. */
  #isGone(hi: number, lo: number, length: number, needsWrite: boolean): boolean {
    const { memory } = this
    this.injected = this.#decide()
    if (this.injected !== undefined) return true
    return memory.ignoresProtection === true && !memory.check(hi, lo, length, needsWrite)
  }

  /**
   * Counts an access that has returned `errno`. `before`: `missingPages` before it; arguments are evaluated in order.
   */
  #counted(before: number | undefined, errno: number): number {
    const missing = (this.memory.missingPages ?? 0) - (before ?? 0)
    if (missing > 0) {
      this.faults += missing
      this.handledFaults++
    }
    return errno
  }
}
