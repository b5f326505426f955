/*
 * Buffers of requests: memory that the device still uses belongs to it (IBA 10.6).
 *
 * Bytes of a send are hashed when the device fetches the send and when it has ended: writes of the program before the
 * fetch are not detected. By default requests and bytes are sampled (`isSample`; the driver samples bytes).
 */
import { requestName } from '../spec/check/causes.ts'
import type { WorkRequest } from '../spec/check/requests.ts'
import { sendOperations, WcOpcode, WcStatus } from '../spec/work.ts'
import type { KnownObject } from './objects.ts'
import type { Topic, World } from './topic.ts'

const { SEND, RDMA_WRITE, RDMA_READ, COMP_SWAP, FETCH_ADD } = WcOpcode.values
const { SUCCESS } = WcStatus.values

/** The first requests of each queue are all checked; of the later ones, one in SAMPLE. */
const FIRST_SAMPLES = 16
const SAMPLE = 16
/** Number of outstanding requests, the latest ones, with which a new one is compared. */
const MAX_COMPARED = 64

/** A queue with more outstanding requests is not checked for overlaps. */
const MAX_OUTSTANDING = 1024

/** The name of a request in a sentence: WRITE wr_id 5, receive wr_id 2. */
export const requestText = ({ opcode, wrId }: WorkRequest): string =>
  `${opcode < 0 ? 'receive' : requestName(opcode)} wr_id ${wrId}`

const completionOf = (opcode: number): number =>
  (sendOperations as Readonly<Record<number, { readonly completion: number }>>)[opcode]?.completion ?? -1

/** Whether the device reads the buffer. */
const isSource = ({ opcode, elements }: WorkRequest): boolean => {
  const kind = completionOf(opcode)
  return elements.length > 0 && (kind === SEND || kind === RDMA_WRITE)
}

/** Whether the device writes to the buffer. */
const isTarget = ({ opcode }: WorkRequest): boolean => {
  const kind = completionOf(opcode)
  return opcode < 0 || kind === RDMA_READ || kind === COMP_SWAP || kind === FETCH_ADD
}

const isSample = ({ index }: WorkRequest): boolean => index < FIRST_SAMPLES || index % SAMPLE === 0

/** The first address that both write to, of the first `bytes` of `one`; undefined: none. */
const overlap = (one: WorkRequest, bytes: number, other: WorkRequest, otherBytes: number): number | undefined => {
  let left = bytes
  for (const { address, length } of one.elements) {
    const end = address + Math.min(length, left)
    let otherLeft = otherBytes
    for (const element of other.elements) {
      const otherEnd = element.address + Math.min(element.length, otherLeft)
      const start = Math.max(address, element.address)
      if (start < Math.min(end, otherEnd)) return start
      otherLeft -= Math.min(element.length, otherLeft)
    }
    left -= Math.min(length, left)
  }
  return undefined
}

interface Landed {
  readonly request: WorkRequest
  readonly bytes: number
  readonly cq: number
  readonly count: number
}

export const createBuffers = (world: World): Topic => {
  /** Requests that the device has not finished, by owner, oldest first. */
  const outstanding = new Map<number, WorkRequest[]>()
  /** Hashes of sampled sends. */
  const hashes = new Map<WorkRequest, number>()
  /** Messages in receives that were not polled, by owner. */
  const landed = new Map<number, Landed[]>()

  const isAll = world.sources.buffers === 'all'
  const hashOf = ({ device }: KnownObject, request: WorkRequest): number | undefined =>
    world.sources.digest?.(device, request, isAll)

  const over = (request: WorkRequest): void => {
    const requests = outstanding.get(request.owner)
    if (requests === undefined) return
    // Requests of one queue end in order, those of a shared queue nearly so.
    const at = requests.indexOf(request)
    if (at === 0) requests.shift()
    else if (at > 0) requests.splice(at, 1)
  }

  /** A request that uses a region, the oldest one. */
  const userOf = (region: KnownObject): { readonly request: WorkRequest; readonly owner: KnownObject } | undefined => {
    for (const [id, requests] of outstanding) {
      const owner = world.objects.find(id)
      if (owner?.device !== region.device) continue
      for (const request of requests)
        if (request.elements.some(({ lkey, length }) => lkey === region.lkey && length > 0)) return { request, owner }
    }
    return undefined
  }

  const findOverlap = (request: WorkRequest, other: WorkRequest, at: number, isLost: boolean): void => {
    const owner = world.objects.find(request.owner)
    if (owner === undefined) return
    const both = `${requestText(other)} and ${requestText(request)} of ${owner.name}`
    const text = isLost
      ? `the messages of ${both} were both written to address 0x${at.toString(16)}, before the first was polled`
      : `${both} are outstanding, and both write to address 0x${at.toString(16)}`
    world.find('receive-overlap', world.placeOfPost(owner, request), {
      text,
      severity: isLost ? 'warning' : 'note',
      moments: [world.postMoment(other, 'posted the other')],
      objects: [owner],
    })
  }

  /** Compares a new request that the device writes to with the latest outstanding ones of its queue. */
  const compare = (request: WorkRequest, requests: readonly WorkRequest[]): void => {
    const latest = requests.length > MAX_COMPARED ? requests.slice(-MAX_COMPARED) : requests
    for (const other of latest) {
      const at = isTarget(other) ? overlap(request, request.length, other, other.length) : undefined
      if (at === undefined) continue
      findOverlap(request, other, at, false)
      return
    }
  }

  const land = (request: WorkRequest, bytes: number, cq: number, count: number): void => {
    const all = landed.get(request.owner) ?? []
    landed.set(request.owner, all)
    for (const other of all) {
      const at = overlap(request, bytes, other.request, other.bytes)
      if (at === undefined) continue
      findOverlap(request, other.request, at, true)
      break
    }
    all.push({ request, bytes, cq, count })
    if (all.length > MAX_COMPARED) all.shift()
  }

  const checkBytes = (request: WorkRequest): void => {
    const before = hashes.get(request)
    if (before === undefined) return
    hashes.delete(request)
    const owner = world.objects.find(request.owner)
    const now = owner && hashOf(owner, request)
    if (now === undefined || now === before || owner === undefined) return
    const region = world.objects.region(owner.device, request.elements[0]!.lkey)
    const text = `the buffer of ${requestText(request)} of ${owner.name} was changed before the request completed`
    world.find('send-buffer-changed', world.placeOfPost(owner, request), {
      text,
      objects: [owner, region],
    })
  }

  return {
    posted(request) {
      let requests = outstanding.get(request.owner)
      if (requests === undefined) {
        requests = []
        outstanding.set(request.owner, requests)
      }
      if (isTarget(request) && requests.length <= MAX_OUTSTANDING) compare(request, requests)
      requests.push(request)
      if (!isSource(request) || !(isAll || isSample(request))) return
      const owner = world.objects.find(request.owner)
      const hash = owner && hashOf(owner, request)
      if (hash !== undefined) hashes.set(request, hash)
    },
    ended(request) {
      over(request)
      checkBytes(request)
    },
    completed(request, { status, bytes, cq, count }) {
      if (request.opcode >= 0) return
      over(request)
      if (status === SUCCESS && bytes > 0 && request.elements.length > 0) land(request, bytes, cq, count)
    },
    polled(cq, polled) {
      for (const [owner, all] of landed) {
        const left = all.filter(one => one.cq !== cq || one.count > polled)
        if (left.length === 0) landed.delete(owner)
        else if (left.length < all.length) landed.set(owner, left)
      }
    },
    forgotten(owner) {
      for (const request of outstanding.get(owner) ?? []) hashes.delete(request)
      outstanding.delete(owner)
      landed.delete(owner)
    },
    calling({ class: name, method, stack }, region) {
      if (name !== 'mr' || method !== 'destroy') return
      const user = userOf(region)
      if (user === undefined) return
      const { request, owner } = user
      const text = `${region.name} was deregistered while ${owner.name} has ${requestText(request)} outstanding`
      world.find('region-in-use', world.placeOf(region, stack), {
        text,
        severity: request.opcode < 0 ? 'warning' : 'error',
        moments: [world.postMoment(request)],
        objects: [region, owner],
      })
    },
    unmapped(region) {
      const user = userOf(region)
      const use = user && `, while ${user.owner.name} has ${requestText(user.request)} outstanding`
      world.find('region-unmapped', world.placeOf(region, region.made.stack, region.made.what), {
        text: `memory of ${region.name} was unmapped before the region was deregistered${use ?? ''}`,
        ...(user && { moments: [world.postMoment(user.request)] }),
        objects: [region, user?.owner],
      })
    },
  }
}
