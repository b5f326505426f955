/*
 * What keys of devices name, for detectors that look at each access: kept until a call or a request may have changed
 * it.
 */
import type { WorkRequest } from '../../spec/check/requests.ts'
import { isOfDriver, WrOpcode } from '../../spec/work.ts'
import type { DetectorServices } from './detector.ts'
import type { KnownObject } from './objects.ts'

export class Keys<T> {
  readonly #find: (device: number, key: number) => T | undefined
  /** By device, then key. Undefined: the key names nothing. */
  readonly #known = new Map<number, Map<number, T | undefined>>()

  /** `find`: looks at what a key names. */
  constructor(find: (device: number, key: number) => T | undefined) {
    this.#find = find
  }

  of(device: number, key: number): T | undefined {
    let ofDevice = this.#known.get(device)
    if (ofDevice === undefined) {
      ofDevice = new Map()
      this.#known.set(device, ofDevice)
    }
    const known = ofDevice.get(key)
    if (known !== undefined || ofDevice.has(key)) return known
    const found = this.#find(device, key)
    ofDevice.set(key, found)
    return found
  }

  /** Forgets a key. Returns what it named, if that was looked at. */
  take(device: number, key: number): T | undefined {
    const known = this.#known.get(device)?.get(key)
    this.#known.get(device)?.delete(key)
    return known
  }

  forget(): void {
    this.#known.clear()
  }

  /** A request was posted, or has ended: one that binds a window changes what its key names. */
  requestSeen({ opcode }: WorkRequest): void {
    if (opcode === WrOpcode.values.BIND_MW || isOfDriver(opcode)) this.#known.clear()
  }
}

/** The hash of bytes of a region, by addresses in the memory of its program; undefined: they cannot be read. */
export const hashOfBytes = (
  { sources }: DetectorServices,
  { device, lkey, iova, start: first, destruction }: KnownObject,
  start: number,
  end: number,
): number | undefined =>
  lkey === undefined || iova === undefined || first === undefined || destruction !== undefined
    ? undefined
    : sources.rangeHash?.(device, lkey, start - first + iova, end - start)
