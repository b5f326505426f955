/*
 * The buffers of requests: what a request does with them, and where those of two requests overlap.
 */
import { requestName } from '../../spec/check/causes.ts'
import type { WorkRequest } from '../../spec/check/requests.ts'
import { MrKind } from '../../spec/enums.ts'
import { returnsData, SendKind, sendOperations } from '../../spec/work.ts'
import type { KnownObject, KnownObjects } from './objects.ts'

const { MEMORY, NULL, IMPLICIT } = MrKind.values

/** A request in the text of a finding: `WRITE wr_id 5`, `receive wr_id 2`, `WRITE block 7`. */
export const requestText = ({ opcode, wrId, numbered }: Pick<WorkRequest, 'opcode' | 'wrId' | 'numbered'>): string =>
  `${opcode < 0 ? 'receive' : requestName(opcode)} ${numbered ?? 'wr_id'} ${wrId}`

/** Whether the device sends the buffer. */
export const readsBuffer = ({ opcode, elements }: WorkRequest): boolean => {
  const kind = sendOperations[opcode]?.kind
  return elements.length > 0 && (kind === SendKind.SEND || kind === SendKind.WRITE)
}

/** Whether a request is a READ or an atomic. */
export const isRead = ({ opcode }: WorkRequest): boolean => returnsData(opcode)

/** Whether a request accesses memory of a region. An element of length 0 accesses none. */
export const usesRegion = ({ elements }: WorkRequest, region: KnownObject): boolean =>
  elements.some(({ lkey, length }) => lkey === region.lkey && length > 0)

/** Whether number `index` (from 0) is among the first or is a sample: one of every `interval`. */
export const isSample = (index: number, first: number, interval: number): boolean =>
  index < first || index % interval === 0

/** Whether a region, if it is known, is memory of the program. `start` of a file or of device memory is an offset. */
export const isProgramMemory = (region: KnownObject | undefined): boolean =>
  region === undefined || region.regionKind === MEMORY || region.regionKind === IMPLICIT

/** Whether equal addresses in the two regions are the same memory: only if they count from the same base. */
const isSameMemory = (objects: KnownObjects, request: WorkRequest, lkey: number, otherLkey: number): boolean => {
  const owner = objects.find(request.owner)
  const region = owner && objects.region(owner.device, lkey)
  if (region?.regionKind === NULL) return false
  if (lkey === otherLkey) return true
  const other = owner && objects.region(owner.device, otherLkey)
  if (!isProgramMemory(region) || !isProgramMemory(other)) return false
  return (region?.start ?? 0) - (region?.iova ?? 0) === (other?.start ?? 0) - (other?.iova ?? 0)
}

/**
 * The first of the addresses that are in the first `bytes` of `request`'s buffer and in the first `otherBytes` of
 * `other`'s buffer; both are of one device.
 */
export const overlapAddress = (
  objects: KnownObjects,
  request: WorkRequest,
  bytes: number,
  other: WorkRequest,
  otherBytes: number,
): number | undefined => {
  let remaining = bytes
  for (const { address, length, lkey } of request.elements) {
    const end = address + Math.min(length, remaining)
    let otherRemaining = otherBytes
    for (const element of other.elements) {
      const otherEnd = element.address + Math.min(element.length, otherRemaining)
      const start = Math.max(address, element.address)
      if (start < Math.min(end, otherEnd) && isSameMemory(objects, request, lkey, element.lkey)) return start
      otherRemaining -= Math.min(element.length, otherRemaining)
    }
    remaining -= Math.min(length, remaining)
  }
  return undefined
}
