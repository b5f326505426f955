/*
 * What a message says of its sender's memory: the rkey of a region, an address inside it near the rkey, and a length
 * beside one of the two that ends inside the region. Without a length nothing is told. All in either byte order, at any
 * offset.
 */
import { swap32, TWO_32 } from '../../../spec/memory.ts'

/** Most bytes between the beginnings of an rkey and of its address. */
const NEAR = 64
/** Bytes that are too few to be told: "the last writer wins" may be meant. */
const WORD = 8
const KEY_BYTES = 4
const ADDRESS_BYTES = 8
/** Most advertisements of a message. */
const MAX_TOLD = 64

/** A region that peers may access. */
export interface AdvertisedRegion {
  readonly device: number
  readonly rkey: number
  /** Of the first byte, in requests. */
  readonly iova: number
  readonly length: number
}

/** Bytes of a region that a message tells of. `offset`: in the region. */
interface Advertised<R extends AdvertisedRegion> {
  readonly region: R
  readonly offset: number
  readonly length: number
}

/**
 * Bits of the filter: two bytes at an even offset are the first ones of a key, in either byte order, or its middle
 * ones, if the key is at an odd offset.
 */
const [FIRST, MIDDLE] = [1, 2]
const swap16 = (value: number): number => ((value & 0xff) << 8) | (value >>> 8)

/** The regions of a process, by rkey. */
export class AdvertisedKeys<R extends AdvertisedRegion> {
  /** Devices may have regions with equal keys. */
  readonly #regions = new Map<number, R[]>()
  /** By two bytes: four bytes of a message without any key cost two looks. */
  readonly #filter = new Uint8Array(0x1_0000)

  get size(): number {
    return this.#regions.size
  }

  add(region: R): void {
    const known = this.#regions.get(region.rkey) ?? []
    this.#regions.set(region.rkey, [...known, region])
    this.#mark(region.rkey)
  }

  delete(device: number, rkey: number): void {
    const left = (this.#regions.get(rkey) ?? []).filter(region => region.device !== device)
    if (left.length > 0) this.#regions.set(rkey, left)
    else if (this.#regions.delete(rkey)) {
      this.#filter.fill(0)
      for (const key of this.#regions.keys()) this.#mark(key)
    }
  }

  #mark(rkey: number): void {
    const filter = this.#filter
    filter[rkey & 0xffff]! |= FIRST
    filter[swap16(rkey >>> 16)]! |= FIRST
    const middle = (rkey >>> 8) & 0xffff
    filter[middle]! |= MIDDLE
    filter[swap16(middle)]! |= MIDDLE
  }

  /**
   * Calls `tell` for what `length` bytes of a message tell of, which are at the beginning of `bytes`, at an even offset
   * of its buffer.
   */
  find(
    { bytes, view }: { readonly bytes: Uint8Array; readonly view: DataView },
    length: number,
    tell: (told: Advertised<R>) => void,
  ): void {
    const filter = this.#filter
    const pairs = new Uint16Array(bytes.buffer, bytes.byteOffset, length >>> 1)
    let told = 0
    const look = (at: number): void => {
      if (at < 0 || at + KEY_BYTES > length || told === MAX_TOLD) return
      const word = view.getUint32(at, true)
      // A key is not 0, and many bytes are.
      if (word === 0) return
      for (const regions of [this.#regions.get(word), this.#regions.get(swap32(word))])
        for (const region of regions ?? []) {
          const found = rangeAt(view, length, at, region)
          if (found === undefined) continue
          told++
          tell({ region, ...found })
          return
        }
    }
    for (let i = 0; i < pairs.length; i++) {
      const hits = filter[pairs[i]!]!
      if (hits === 0) continue
      if ((hits & MIDDLE) !== 0) look(2 * i - 1)
      if ((hits & FIRST) !== 0) look(2 * i)
    }
  }
}

/** The range of a region whose rkey is at `keyAt`: that with the nearest address. */
const rangeAt = (
  view: DataView,
  end: number,
  keyAt: number,
  { iova, length: size }: AdvertisedRegion,
): { readonly offset: number; readonly length: number } | undefined => {
  // Small numbers are everywhere: an offset must be where a compiler puts it.
  const step = iova === 0 ? KEY_BYTES : 1
  for (let distance = 1; distance <= NEAR; distance++)
    for (const at of [keyAt - distance, keyAt + distance]) {
      if (distance % step !== 0 || at < 0 || at + ADDRESS_BYTES > end) continue
      if (at < keyAt + KEY_BYTES && keyAt < at + ADDRESS_BYTES) continue
      for (const isLittle of [true, false]) {
        const offset = number64(view, at, isLittle) - iova
        if (offset < 0 || offset >= size) continue
        const length = lengthBeside(view, end, keyAt, at, isLittle, size - offset)
        if (length > WORD) return { offset, length }
      }
    }
  return undefined
}

const number64 = (view: DataView, at: number, isLittle: boolean): number =>
  view.getUint32(isLittle ? at + 4 : at, isLittle) * TWO_32 + view.getUint32(isLittle ? at : at + 4, isLittle)

/** The largest number of 4 or 8 bytes, up to `most`, before or after the key or the address; 0: none. */
const lengthBeside = (
  view: DataView,
  end: number,
  keyAt: number,
  addressAt: number,
  isLittle: boolean,
  most: number,
): number => {
  let best = 0
  const isFree = (at: number, bytes: number): boolean =>
    at >= 0 &&
    at + bytes <= end &&
    (at + bytes <= keyAt || keyAt + KEY_BYTES <= at) &&
    (at + bytes <= addressAt || addressAt + ADDRESS_BYTES <= at)
  const look = (at: number, bytes: number): void => {
    if (!isFree(at, bytes)) return
    const value = bytes === 8 ? number64(view, at, isLittle) : view.getUint32(at, isLittle)
    if (value <= most) best = Math.max(best, value)
  }
  for (const [from, behind] of [
    [keyAt, keyAt + KEY_BYTES],
    [addressAt, addressAt + ADDRESS_BYTES],
  ] as const) {
    look(from - 4, 4)
    look(from - 8, 8)
    look(behind, 4)
    look(behind, 8)
  }
  return best
}
