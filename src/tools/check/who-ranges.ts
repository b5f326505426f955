/*
 * The bytes that `userdma check --who` watches, which are found as regions are registered, bytes are named and requests
 * are posted; and the bytes of requests.
 */
import type { WhoRange } from '../../settings/who.ts'
import type { ProgramEvent } from '../../spec/check/program-events.ts'
import type { WorkRequest } from '../../spec/check/requests.ts'
import type { DetectorServices } from './detector.ts'
import type { KnownObject } from './objects.ts'

/** The most watched ranges: of processes, or of queues with the wr_id. */
const MAX_WATCHED = 64

/** Bytes of a region, by addresses in the memory of its program. */
export interface Bytes {
  readonly region: KnownObject
  readonly start: number
  readonly end: number
}

export interface Watched extends Bytes {
  /** The newest hash; undefined: a device may have written since, or they cannot be read. */
  hash: number | undefined
}

export const overlaps = (one: Bytes, other: Bytes): boolean =>
  one.region.program?.pid === other.region.program?.pid && one.start < other.end && other.start < one.end

/** Undefined: it is no region. */
export const bytesOfRegion = (region: KnownObject): Bytes | undefined => {
  const { start, size, class: name } = region
  return name === 'mr' && start !== undefined && size !== undefined ? { region, start, end: start + size } : undefined
}

type Named = Pick<ProgramEvent<'named'>, 'pid' | 'start' | 'end'>

export class WhoRanges {
  readonly #services: DetectorServices
  readonly #range: WhoRange
  #watched: Watched[] = []
  /** How many regions each process has registered, by pid. */
  readonly #registered = new Map<number | undefined, number>()
  /** Queues whose request with the wr_id was found. */
  readonly #found = new Set<number>()
  /** What has the name of the range. */
  readonly #named: Named[] = []
  /** Regions that exist, if names are looked for. */
  readonly #regions = new Set<KnownObject>()

  constructor(services: DetectorServices, range: WhoRange) {
    this.#services = services
    this.#range = range
  }

  get count(): number {
    return this.#watched.length
  }

  in(bytes: Bytes): Watched[] {
    return this.#watched.filter(one => overlaps(one, bytes))
  }

  /** Any bytes may turn out to be those of a request with the wr_id, or of the name, that comes later. */
  isWanted(bytes: Bytes): boolean {
    const { kind } = this.#range
    return kind === 'request' || kind === 'name' || this.in(bytes).length > 0
  }

  /** A range of a process in the place of one with the same address. */
  #watch(bytes: Bytes): void {
    const { region, start, end } = bytes
    const isSame = (one: Watched): boolean =>
      one.region.program?.pid === region.program?.pid && one.start === start && one.end === end
    this.#watched = this.#watched.filter(one => !isSame(one))
    if (this.#watched.length < MAX_WATCHED) this.#watched.push({ ...bytes, hash: undefined })
  }

  #watchedOf(whole: Bytes): Bytes | undefined {
    const range = this.#range
    if (range.kind === 'address') {
      const bytes = { ...whole, start: range.start, end: range.start + range.length }
      return overlaps(bytes, whole) ? bytes : undefined
    }
    const pid = whole.region.program?.pid
    if (range.kind !== 'region' || this.#registered.get(pid) !== range.number) return undefined
    const start = whole.start + range.offset
    return { ...whole, start, end: range.length === undefined ? whole.end : start + range.length }
  }

  /** Watches named bytes of a region. */
  #watchNamed(region: KnownObject, { pid, start, end }: Named): void {
    const range = this.#range
    const whole = bytesOfRegion(region)
    if (range.kind !== 'name' || whole === undefined || region.program?.pid !== pid) return
    const from = start + range.offset
    const bytes = { region, start: from, end: range.length === undefined ? end : from + range.length }
    if (bytes.start < bytes.end && overlaps(bytes, whole)) this.#watch(bytes)
  }

  /** `isAgain`: by ibv_rereg_mr. */
  registered(whole: Bytes, isAgain: boolean): void {
    const { region } = whole
    const pid = region.program?.pid
    if (!isAgain) this.#registered.set(pid, (this.#registered.get(pid) ?? 0) + 1)
    const bytes = this.#watchedOf(whole)
    if (bytes !== undefined) this.#watch(bytes)
    if (this.#range.kind === 'name') this.#regions.add(region)
    for (const one of this.#named) this.#watchNamed(region, one)
  }

  deregistered(region: KnownObject): void {
    this.#regions.delete(region)
  }

  named(event: ProgramEvent<'named'>): void {
    const range = this.#range
    if (range.kind !== 'name' || event.name !== range.name || this.#named.length === MAX_WATCHED) return
    this.#named.push(event)
    for (const region of this.#regions) this.#watchNamed(region, event)
  }

  posted(request: WorkRequest): void {
    const { owner, wrId } = request
    if (this.#range.kind !== 'request' || wrId !== this.#range.wrId || this.#found.has(owner)) return
    this.#found.add(owner)
    for (const bytes of [...this.ownBytes(request), ...this.peerBytes(request)]) this.#watch(bytes)
  }

  /** The bytes that a key and an address name; undefined: unknown. */
  bytesOf(device: number, key: number, address: number, length: number): Bytes | undefined {
    const { objects, sources } = this.#services
    const known = objects.region(device, key)
    if (known?.class === 'mr' && known.start !== undefined && known.iova !== undefined) {
      const start = address - known.iova + known.start
      return { region: known, start, end: start + length }
    }
    const memory = sources.memoryOf?.(device, key)
    const region = memory && objects.region(device, memory.region)
    return region && { region, start: address + memory.shift, end: address + memory.shift + length }
  }

  /** The bytes of a request of its own program. */
  ownBytes({ owner, elements }: WorkRequest): Bytes[] {
    const queue = this.#services.objects.find(owner)
    if (queue === undefined) return []
    return elements.flatMap(({ lkey, address, length }) => this.bytesOf(queue.device, lkey, address, length) ?? [])
  }

  /** Those at the peer, if that is known here. */
  peerBytes(request: WorkRequest): Bytes[] {
    const { owner, remote } = request
    const queue = this.#services.objects.find(owner)
    const device = queue && this.#services.targetDeviceOf(request, queue)
    const bytes =
      device === undefined ? undefined : remote && this.bytesOf(device, remote.rkey, remote.address, remote.length)
    return bytes === undefined ? [] : [bytes]
  }
}
