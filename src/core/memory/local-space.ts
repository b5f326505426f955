/*
 * Buffers of this process as an AddressSpace, at synthetic addresses (docs/decisions/client-memory.md).
 *
 * Each buffer gets page-aligned addresses from 2^32 on; the address after its end is unused. The addresses are not
 * pointers, and are not reused, so that stale addresses fault. A resizable buffer is refused: its length could change
 * between check and use. Access to a detached buffer returns EFAULT.
 */
import { callError, Errno } from '../../spec/errno.ts'
import { TWO_32, wholePages } from '../../spec/memory.ts'
import type { AddressSpace, Bytes, Copier } from './address-space.ts'

/** Addresses below 2^32 are unused, so that a truncated address is invalid. */
const FIRST_ADDRESS = TWO_32

export interface LocalSpace extends AddressSpace {
  /**
   * Makes `buffer` addressable and returns its address, an exact Number. Throws CallError EINVAL for a resizable or
   * transferred buffer.
   */
  add(buffer: Uint8Array): number
  /** Removes the buffer at `address`; false if there is none. */
  remove(address: number): boolean
}

/** A buffer, and its range of addresses. */
interface Area {
  readonly start: number
  /** The buffer's real address, for the copier; 0 without a copier. */
  readonly address: number
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly length: number
}

/** Up to this size a loop over words is faster than a subarray or a native call, and allocates nothing. */
const LOOP_BYTES = 256

/** Copies `size` bytes from offset `start` of `from` to offset `at` of `to`. The ranges may overlap. */
export const copyBytes = (
  from: Pick<Bytes, 'bytes' | 'view'>,
  start: number,
  to: Pick<Bytes, 'bytes' | 'view'>,
  at: number,
  size: number,
): void => {
  if (size > LOOP_BYTES) {
    // a copy of the whole buffer needs no subarray
    to.bytes.set(size === from.bytes.length ? from.bytes : from.bytes.subarray(start, start + size), at)
    return
  }
  const words = size & ~3
  // Bytes that a later step overwrites are copied first.
  if (to.bytes.byteOffset + at <= from.bytes.byteOffset + start) {
    for (let i = 0; i < words; i += 4) to.view.setUint32(at + i, from.view.getUint32(start + i, true), true)
    for (let i = words; i < size; i++) to.bytes[at + i] = from.bytes[start + i]!
    return
  }
  for (let i = size - 1; i >= words; i--) to.bytes[at + i] = from.bytes[start + i]!
  for (let i = words - 4; i >= 0; i -= 4) to.view.setUint32(at + i, from.view.getUint32(start + i, true), true)
}

/** A view of the buffer. Throws CallError EINVAL if the buffer was transferred, and so is detached. */
const viewOfAttached = ({ buffer, byteOffset, byteLength }: Uint8Array): DataView => {
  try {
    return new DataView(buffer, byteOffset, byteLength)
  } catch {
    throw callError.EINVAL`the buffer was transferred (for example by postMessage): it has no bytes any more`
  }
}

/** `copier`: copies more than LOOP_BYTES if both sides have an address. */
export const createLocalSpace = (copier?: Copier): LocalSpace => {
  const areas: Area[] = []
  let nextAddress = FIRST_ADDRESS

  /** Index of the last area that starts at or below `address`. */
  const search = (address: number): number => {
    let low = 0
    let high = areas.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (areas[middle]!.start <= address) low = middle + 1
      else high = middle
    }
    return low - 1
  }
  /** The area of the last access, often also of the next. */
  let lastArea: Area | undefined
  /** The area of the `length` bytes at hi:lo. Undefined: there is none, or its buffer was transferred. */
  const areaOf = (hi: number, lo: number, length: number): Area | undefined => {
    const address = hi * TWO_32 + lo
    if (lastArea === undefined || address < lastArea.start || address - lastArea.start >= lastArea.length)
      lastArea = areas[search(address)]
    if (lastArea === undefined || address - lastArea.start + length > lastArea.length) return undefined
    return lastArea.bytes.byteLength === lastArea.length ? lastArea : undefined
  }
  const wordAt = (hi: number, lo: number): DataView | undefined => {
    const area = areaOf(hi, lo, 8)
    if (area === undefined) return undefined
    return new DataView(area.bytes.buffer, area.bytes.byteOffset + (hi * TWO_32 + lo - area.start), 8)
  }

  return {
    add(buffer) {
      const backing = buffer.buffer as ArrayBufferLike & { resizable?: boolean; growable?: boolean }
      if (backing.resizable || backing.growable)
        throw callError.EINVAL`a resizable buffer cannot be registered: copy it into one of fixed size`
      const length = buffer.byteLength
      const view = viewOfAttached(buffer)
      const start = nextAddress
      nextAddress += wholePages(length + 1)
      areas.push({ start, address: copier?.addressOf(buffer) ?? 0, bytes: buffer, view, length })
      return start
    },
    remove(address) {
      const at = search(address)
      if (at < 0 || areas[at]!.start !== address) return false
      areas.splice(at, 1)
      lastArea = undefined
      return true
    },
    check: (hi, lo, length) => length === 0 || areaOf(hi, lo, length) !== undefined,
    read(hi, lo, to: Bytes, at, chunk, stride, total) {
      const area = areaOf(hi, lo, total)
      if (area === undefined) return Errno.EFAULT
      let from = hi * TWO_32 + lo - area.start
      if (copier !== undefined && total > LOOP_BYTES && to.address !== 0) {
        copier.copy(to.address + at, stride, area.address + from, chunk, chunk, total)
        return 0
      }
      for (let remaining = total, offset = at; remaining > 0; remaining -= chunk, offset += stride) {
        const size = Math.min(chunk, remaining)
        copyBytes(area, from, to, offset, size)
        from += size
      }
      return 0
    },
    write(hi, lo, from: Bytes, at, chunk, stride, total) {
      const area = areaOf(hi, lo, total)
      if (area === undefined) return Errno.EFAULT
      let to = hi * TWO_32 + lo - area.start
      if (copier !== undefined && total > LOOP_BYTES && from.address !== 0) {
        copier.copy(area.address + to, chunk, from.address + at, stride, chunk, total)
        return 0
      }
      for (let remaining = total, offset = at; remaining > 0; remaining -= chunk, offset += stride) {
        const size = Math.min(chunk, remaining)
        copyBytes(from, offset, area, to, size)
        to += size
      }
      return 0
    },
    locate(hi, lo, length, location) {
      const area = areaOf(hi, lo, length)
      if (area !== undefined) location[0] = hi * TWO_32 + lo - area.start
      return area
    },
    compareSwap(hi, lo, compareHi, compareLo, swapHi, swapLo, original) {
      const view = wordAt(hi, lo)
      if (view === undefined) return Errno.EFAULT
      original[0] = view.getUint32(0, true)
      original[1] = view.getUint32(4, true)
      if (original[0] === compareLo >>> 0 && original[1] === compareHi >>> 0) {
        view.setUint32(0, swapLo, true)
        view.setUint32(4, swapHi, true)
      }
      return 0
    },
    fetchAdd(hi, lo, addHi, addLo, original) {
      const view = wordAt(hi, lo)
      if (view === undefined) return Errno.EFAULT
      original[0] = view.getUint32(0, true)
      original[1] = view.getUint32(4, true)
      const low = original[0] + (addLo >>> 0)
      view.setUint32(0, low, true)
      view.setUint32(4, original[1] + addHi + (low >= TWO_32 ? 1 : 0), true)
      return 0
    },
  }
}
