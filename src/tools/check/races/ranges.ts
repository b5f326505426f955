/*
 * The memory that requests access, for the race engine, with the regions that they name.
 */
import type { RequestElement, WorkRequest } from '../../../spec/check/requests.ts'
import { ATOMIC_BYTES, SendKind, sendOperations } from '../../../spec/work.ts'
import type { CheckerSources, DetectorServices } from '../detector.ts'
import { Keys } from '../keys.ts'
import type { KnownObject } from '../objects.ts'
import type { RequestKind } from './order.ts'
import { AccessKind, type Range, type Region } from './shadow.ts'

/** What a send opcode does to memory. */
interface Operation {
  readonly kind: RequestKind
  /** AccessKind of the access to memory of the poster, and to memory of the peer (unused for a SEND). */
  readonly localAccess: number
  readonly remoteAccess: number
}

/** By SendKind. Accesses of other requests are not checked. */
const operations: ReadonlyMap<number | undefined, Operation> = new Map([
  [SendKind.WRITE, { kind: 'WRITE', localAccess: AccessKind.SOURCE, remoteAccess: AccessKind.WRITE }],
  [SendKind.SEND, { kind: 'SEND', localAccess: AccessKind.SOURCE, remoteAccess: AccessKind.READ }],
  [SendKind.READ, { kind: 'READ', localAccess: AccessKind.RESULT, remoteAccess: AccessKind.READ }],
  [SendKind.ATOMIC, { kind: 'ATOMIC', localAccess: AccessKind.RESULT, remoteAccess: AccessKind.ATOMIC }],
  [SendKind.ATOMIC_WRITE, { kind: 'ATOMIC', localAccess: AccessKind.SOURCE, remoteAccess: AccessKind.ATOMIC }],
])

/** Undefined: accesses of the send are not checked. */
export const operationOf = ({ opcode }: WorkRequest): Operation | undefined =>
  operations.get(sendOperations[opcode]?.kind)

export interface KnownRegion extends Region {
  /** Undefined if the checker does not know the region. */
  readonly object: KnownObject | undefined
}

const NO_RANGES: readonly never[] = []
/** Appends a range. Array literals, because an array that grows by `push` reserves space for 17 elements. */
const withRange = (ranges: readonly Range[], range: Range | undefined): readonly Range[] => {
  if (range === undefined) return ranges
  if (ranges.length === 0) return [range]
  return ranges.length === 1 ? [ranges[0]!, range] : [...ranges, range]
}

export class RequestRanges {
  readonly #services: DetectorServices
  readonly #memoryOf: NonNullable<CheckerSources['memoryOf']>
  /** Registered regions by lkey. */
  readonly #regions: Keys<KnownRegion>

  constructor(services: DetectorServices, memoryOf: NonNullable<CheckerSources['memoryOf']>) {
    this.#services = services
    this.#memoryOf = memoryOf
    this.#regions = new Keys((device, lkey) => ({
      isDeregistered: false,
      object: services.objects.region(device, lkey),
    }))
  }

  /** The memory that a request accesses with a key; undefined: an unknown key, or no bytes. */
  #rangeOf(device: number, key: number, address: number, length: number, kind: number): Range | undefined {
    const memory = length === 0 ? undefined : this.#memoryOf(device, key)
    if (memory === undefined) return undefined
    const start = address + memory.shift
    const region = this.#regions.of(device, memory.region)!
    return { space: memory.space, start, end: start + length, kind, region }
  }

  /** The memory of the first `bytes` bytes of a scatter/gather list. */
  ofElements(device: number, elements: readonly RequestElement[], bytes: number, kind: number): readonly Range[] {
    let ranges: readonly Range[] = NO_RANGES
    let remaining = bytes
    for (const { address, length, lkey } of elements) {
      const used = Math.min(length, remaining)
      remaining -= used
      ranges = withRange(ranges, this.#rangeOf(device, lkey, address, used, kind))
    }
    return ranges
  }

  /** The memory that a send accesses: of the poster, and of the peer if its device is in this process. */
  ofSend(qp: KnownObject, { elements, remote, length }: WorkRequest, operation: Operation): readonly Range[] {
    const bytes = operation.kind === 'ATOMIC' ? ATOMIC_BYTES : length
    const ranges = this.ofElements(qp.device, elements, bytes, operation.localAccess)
    const peerDevice = remote && this.#services.peerDeviceOf(qp)
    const remoteRange =
      remote && peerDevice !== undefined
        ? this.#rangeOf(peerDevice, remote.rkey, remote.address, remote.length, operation.remoteAccess)
        : undefined
    return withRange(ranges, remoteRange)
  }

  /** A region was deregistered, or has other memory. */
  deregistered({ device, lkey }: KnownObject): void {
    const region = lkey === undefined ? undefined : this.#regions.take(device, lkey)
    if (region !== undefined) region.isDeregistered = true
  }
}
