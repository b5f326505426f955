/*
 * Numbers for addresses, so that tables of queue pairs compare integers. An address has 16 bytes: IPv6, IPv4 as
 * ::ffff:a.b.c.d, or an InfiniBand LID, which has a form of its own.
 */
import { addressText } from '../../transport/wire/address.ts'

/** A capture with more addresses than this is an attack; further ones share number 0. */
const MAX_ADDRESSES = 1 << 18
const FIRST_SLOTS = 1 << 10
const MAPPED = 0x0000_ffff
/** The third word of the form for a LID, which is in the fourth: no unicast address begins with zeros and has this. */
const LID = 0x4c49_4400

export class AddressTable {
  /** Four words per address. Number 0 is "others". */
  #words = new Uint32Array(4 * FIRST_SLOTS)
  #slots = new Int32Array(2 * FIRST_SLOTS)
  #count = 1

  get count(): number {
    return this.#count
  }

  ofIpv4(view: DataView, at: number): number {
    return this.#numberOf(0, 0, MAPPED, view.getUint32(at))
  }

  ofGid(view: DataView, at: number): number {
    return this.#numberOf(view.getUint32(at), view.getUint32(at + 4), view.getUint32(at + 8), view.getUint32(at + 12))
  }

  ofLid(lid: number): number {
    return this.#numberOf(0, 0, LID, lid)
  }

  #hash(a: number, b: number, c: number, d: number): number {
    let hash =
      Math.imul(a ^ Math.imul(b, 0x9e37_79b1), 0x85eb_ca6b) ^ Math.imul(c ^ Math.imul(d, 0xc2b2_ae35), 0x27d4_eb2f)
    hash ^= hash >>> 15
    return Math.imul(hash, 0x2c1b_3c6d) >>> 7
  }

  #numberOf(a: number, b: number, c: number, d: number): number {
    const mask = this.#slots.length - 1
    let slot = this.#hash(a, b, c, d) & mask
    for (;;) {
      const number = this.#slots[slot]
      if (number === 0) break
      const at = 4 * number
      const words = this.#words
      if (words[at] === a && words[at + 1] === b && words[at + 2] === c && words[at + 3] === d) return number
      slot = (slot + 1) & mask
    }
    if (this.#count === MAX_ADDRESSES) return 0
    const number = this.#count++
    if (4 * number === this.#words.length) this.#grow()
    this.#words.set([a, b, c, d], 4 * number)
    this.#insert(number)
    return number
  }

  #insert(number: number): void {
    const mask = this.#slots.length - 1
    const [a, b, c, d] = this.#words.subarray(4 * number, 4 * number + 4)
    let slot = this.#hash(a, b, c, d) & mask
    while (this.#slots[slot] !== 0) slot = (slot + 1) & mask
    this.#slots[slot] = number
  }

  #grow(): void {
    const words = new Uint32Array(2 * this.#words.length)
    words.set(this.#words)
    this.#words = words
    this.#slots = new Int32Array(2 * this.#slots.length)
    for (let number = 1; number < this.#count - 1; number++) this.#insert(number)
  }

  /** The 16 bytes of an address. */
  bytes(number: number): Uint8Array {
    const bytes = new Uint8Array(16)
    const view = new DataView(bytes.buffer)
    for (let i = 0; i < 4; i++) view.setUint32(4 * i, this.#words[4 * number + i])
    return bytes
  }

  /** Whether an address is of IPv4. */
  isIpv4(number: number): boolean {
    return this.#words[4 * number + 2] === MAPPED && this.#words[4 * number] === 0 && this.#words[4 * number + 1] === 0
  }

  /** The LID that an address is; undefined: it is none. */
  lidOf(number: number): number | undefined {
    const isLid = number !== 0 && this.#words[4 * number + 2] === LID && this.#words[4 * number] === 0
    return isLid ? this.#words[4 * number + 3] : undefined
  }

  text(number: number): string {
    if (number === 0) return 'others'
    const lid = this.lidOf(number)
    if (lid !== undefined) return `LID ${lid}`
    return addressText(this.bytes(number))
  }
}
