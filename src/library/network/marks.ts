/*
 * Which devices of a network may have something to do, as bits by their place in the list, so that a drive of a network
 * with a thousand devices visits only those. A device is marked when a program posts to it or calls it, and when
 * packets arrive at its port. It is unmarked by `settle`, which also keeps when its next timer is due. Marked devices
 * are visited in the order of the list, as without marks: what happens does not depend on them.
 */
import type { SoftDevice } from '../../drivers/registered.ts'

export class DeviceMarks {
  readonly #devices: readonly SoftDevice[]
  #bits = new Uint32Array(2)
  /** By place: `nextTimeout` of a device that is not marked. */
  #dues = new Float64Array(64)
  readonly #places = new Map<SoftDevice, number>()

  /** `devices`: may change; then `added` or `removed` must be called. */
  constructor(devices: readonly SoftDevice[]) {
    this.#devices = devices
  }

  /** A device was added at the end of the list: it is marked. */
  added(device: SoftDevice): void {
    const place = this.#devices.length - 1
    if (place >= this.#dues.length) {
      const [dues, bits] = [this.#dues, this.#bits]
      this.#dues = new Float64Array(2 * dues.length)
      this.#dues.set(dues)
      this.#bits = new Uint32Array(2 * bits.length)
      this.#bits.set(bits)
    }
    this.#places.set(device, place)
    this.mark(device)
  }

  /** The device was removed that was at `place`: those behind it have moved. */
  removed(device: SoftDevice, place: number): void {
    const devices = this.#devices
    this.#places.delete(device)
    for (let i = place; i < devices.length; i++) {
      this.#places.set(devices[i]!, i)
      this.#dues[i] = this.#dues[i + 1]!
      this.#setBit(i, this.#isMarked(i + 1))
    }
    this.#setBit(devices.length, false)
  }

  #isMarked(place: number): boolean {
    return (this.#bits[place >> 5]! & (1 << (place & 31))) !== 0
  }

  #setBit(place: number, isMarked: boolean): void {
    if (isMarked) this.#bits[place >> 5]! |= 1 << (place & 31)
    else this.#bits[place >> 5]! &= ~(1 << (place & 31))
  }

  markAll(): void {
    const { length } = this.#devices
    this.#bits.fill(0)
    this.#bits.fill(0xffff_ffff, 0, length >> 5)
    if ((length & 31) > 0) this.#bits[length >> 5] = (1 << (length & 31)) - 1
  }

  mark(device: SoftDevice): void {
    const place = this.#places.get(device)
    if (place !== undefined) this.#setBit(place, true)
  }

  /** Marks the devices whose timer is due. */
  markDue(now: number): void {
    for (let place = 0; place < this.#devices.length; place++) if (this.#dues[place]! <= now) this.#setBit(place, true)
  }

  /** The place of the first marked device from `place` on; -1: there is none. */
  next(place: number): number {
    let word = place >> 5
    if (word >= this.#bits.length) return -1
    let bits = this.#bits[word]! & (-1 << (place & 31))
    while (bits === 0) {
      if (++word === this.#bits.length) return -1
      bits = this.#bits[word]!
    }
    return (word << 5) + 31 - Math.clz32(bits & -bits)
  }

  /** Unmarks devices without work. Returns when the first timer of all devices is due. */
  settle(): number {
    const devices = this.#devices
    for (let place = this.next(0); place >= 0; place = this.next(place + 1)) {
      const device = devices[place]!
      this.#dues[place] = device.nextTimeout()
      if (!device.hasWork()) this.#setBit(place, false)
    }
    let due = Number.POSITIVE_INFINITY
    for (let place = 0; place < devices.length; place++) due = Math.min(due, this.#dues[place]!)
    return due
  }
}
