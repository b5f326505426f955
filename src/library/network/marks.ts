/*
 * Which devices of a network may have something to do, as bits by their place in the list, so that a drive of a network with
 * a thousand devices visits only those. A device is marked when a program posts to it or calls it, and when packets arrive at its
 * port. It is unmarked by `settle`, which also keeps when its next timer is due. Marked devices are visited in the order of the
 * list, as without marks: what happens does not depend on them.
 */
import type { SoftDevice } from '../../drivers/registered.ts'

export class DeviceMarks {
  readonly #devices: readonly SoftDevice[]
  #bits = new Uint32Array(2)
  /** By place: `nextTimeout` of a device that is not marked. */
  #dues = new Float64Array(64)
  readonly #places = new Map<SoftDevice, number>()

  /** `devices`: may change; then `changed` must be called. */
  constructor(devices: readonly SoftDevice[]) {
    this.#devices = devices
  }

  /** Devices were added or removed. */
  changed(): void {
    const devices = this.#devices
    if (devices.length > this.#dues.length) {
      this.#dues = new Float64Array(2 * devices.length)
      this.#bits = new Uint32Array((this.#dues.length + 31) >> 5)
    }
    this.#places.clear()
    devices.forEach((device, place) => {
      this.#places.set(device, place)
    })
    this.markAll()
  }

  markAll(): void {
    const { length } = this.#devices
    this.#bits.fill(0)
    this.#bits.fill(0xffff_ffff, 0, length >> 5)
    if ((length & 31) > 0) this.#bits[length >> 5] = (1 << (length & 31)) - 1
  }

  mark(device: SoftDevice): void {
    const place = this.#places.get(device)
    if (place !== undefined) this.#bits[place >> 5]! |= 1 << (place & 31)
  }

  /** Marks the devices whose timer is due. */
  markDue(now: number): void {
    for (let place = 0; place < this.#devices.length; place++)
      if (this.#dues[place]! <= now) this.#bits[place >> 5]! |= 1 << (place & 31)
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
      if (!device.hasWork()) this.#bits[place >> 5]! &= ~(1 << (place & 31))
    }
    let due = Number.POSITIVE_INFINITY
    for (let place = 0; place < devices.length; place++) due = Math.min(due, this.#dues[place]!)
    return due
  }
}
