/*
 * Requests to memory of peers, and accesses to regions of which bytes were lent, once a program has lent anything:
 * which request an access is of, and which requests are not finished.
 */
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { QpState } from '../../../spec/enums.ts'
import { LendRight } from '../../../spec/lends.ts'
import { SendKind, sendOperations } from '../../../spec/work.ts'
import { isProgramMemory } from '../buffers.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import type { KnownObject } from '../objects.ts'
import { outstandingRequests } from '../outstanding.ts'
import { shared } from '../shared.ts'
import { lentMemory } from './memory.ts'
import type { Access } from './told.ts'

/** Maximum kept requests that have ended, and accesses, the latest. */
const MAX_ENDED = 256
const MAX_ACCESSES = 1024
/** Numbers of an access. */
const NUMBERS = 5

const { ERR } = QpState.values

const rightsOfKind: ReadonlyMap<number | undefined, number> = new Map([
  [SendKind.READ, LendRight.READ],
  [SendKind.WRITE, LendRight.WRITE],
  [SendKind.ATOMIC, LendRight.ATOMIC],
  [SendKind.ATOMIC_WRITE, LendRight.WRITE],
])
/** LendRight that a request needs; undefined: it accesses no memory of its peer. */
const rightOfRequest = ({ opcode, remote }: WorkRequest): number | undefined =>
  remote === undefined || remote.length === 0 ? undefined : rightsOfKind.get(sendOperations[opcode]?.kind)

interface Ended {
  readonly request: WorkRequest
  readonly time: number
  /** Its queue pair was not reset or destroyed before. */
  readonly isDone: boolean
}

const createLentRequests = (services: DetectorServices) => {
  const { objects, sources } = services
  const memory = lentMemory(services)
  if (memory === undefined) return undefined
  const own = outstandingRequests(services)
  /** By id. */
  const outstanding = new Map<number, WorkRequest>()
  /** A ring. */
  const ended: Ended[] = []
  let nextEnded = 0
  /** A ring of accesses to lent regions: time, device, key, address, length. Those of an empty row are 0. */
  const accesses = new Float64Array(MAX_ACCESSES * NUMBERS)
  let nextAccess = 0
  /** The last of `accessedBelow`. */
  let outer: Access | undefined

  const end = (request: WorkRequest, isDone: boolean): void => {
    outstanding.delete(request.id)
    ended[nextEnded] = { request, time: sources.now(), isDone }
    nextEnded = (nextEnded + 1) % MAX_ENDED
  }

  /** The device that a request goes to; undefined: unknown, or not of this process. */
  const targetOf = ({ destination, owner }: WorkRequest): number | undefined => {
    const gid = destination?.gid ?? objects.find(owner)?.attributes.address?.dgid
    return gid && services.deviceWithGid(gid)
  }

  /** QPN of the queue pair that a request goes to; undefined: unknown. */
  const destQpnOf = ({ destQpn, owner }: WorkRequest): number | undefined =>
    destQpn ?? objects.find(owner)?.attributes.destQpn

  /** The request of an access, by what it has accessed: an outstanding one, else one that has ended, the latest. */
  const requestOf = ({ device, rkey, address: start, length, qpn }: Access): WorkRequest | undefined => {
    const isIt = (request: WorkRequest): boolean => {
      const { remote } = request
      if (remote === undefined || remote.rkey !== rkey) return false
      const isWithin = remote.address <= start && start + length <= remote.address + remote.length
      const destQpn = destQpnOf(request)
      return isWithin && (destQpn === undefined || destQpn === qpn)
    }
    for (const request of outstanding.values()) if (isIt(request) && targetOf(request) === device) return request
    for (let i = 1; i <= ended.length; i++) {
      const { request } = ended[(nextEnded - i + ended.length) % ended.length]!
      if (isIt(request)) return request
    }
    return undefined
  }

  /** Whether all bytes that a request names were accessed since it was posted. */
  const wasExecuted = ({ remote, time }: WorkRequest): boolean => {
    if (remote === undefined) return true
    const { address, length, rkey } = remote
    const parts: (readonly [number, number])[] = []
    for (let at = 0; at < accesses.length; at += NUMBERS)
      if (accesses[at]! >= time && accesses[at + 2] === rkey && accesses[at + 4]! > 0)
        parts.push([accesses[at + 3]!, accesses[at + 3]! + accesses[at + 4]!])
    parts.sort(([a], [b]) => a - b)
    let reached = address
    for (const [from, to] of parts) if (from <= reached) reached = Math.max(reached, to)
    return reached >= address + length
  }

  /** Whether the owner has ended the queue pair by which requests would come. */
  const isShut = (device: number | undefined, qpn: number | undefined): boolean => {
    const responder = device === undefined || qpn === undefined ? undefined : objects.qp(device, qpn)
    return responder !== undefined && (responder.destruction !== undefined || responder.attributes.state === ERR)
  }

  const on: Detector['on'] = {
    posted(request) {
      if (!memory.hasLends) return
      if (request.remote !== undefined) outstanding.set(request.id, request)
      memory.keys.requestSeen(request)
    },
    ended(request) {
      if (!memory.hasLends) return
      if (request.remote !== undefined) end(request, true)
      memory.keys.requestSeen(request)
    },
    queueReset(owner) {
      for (const request of outstanding.values()) if (request.owner === owner) end(request, false)
    },
  }

  return {
    on,
    /** Whether requests are outstanding, or have ended lately. */
    get hasSome() {
      return outstanding.size + ended.length > 0
    },
    targetOf,
    /** The request of an access, also of one by a key over the key of the access; undefined: unknown. */
    requestBehind(access: Access): WorkRequest | undefined {
      const isOfOuter = outer !== undefined && outer.qpn === access.qpn && outer.device === access.device
      return requestOf(access) ?? (isOfOuter ? requestOf(outer!) : undefined)
    },
    /** Whether a READ is retransmitted whose requester has its data. */
    isRepeated: (request: WorkRequest | undefined): boolean =>
      request !== undefined &&
      rightOfRequest(request) === LendRight.READ &&
      ended.some(one => one.request === request && one.isDone),
    /** An access by a key of no memory of its own: one over other keys, which are accessed next. */
    accessedBelow(access: Access): void {
      outer = access
    },
    /** An access to a region with lent bytes. */
    accessed({ device, rkey, address, length }: Access, now: number): void {
      const row = nextAccess * NUMBERS
      nextAccess = (nextAccess + 1) % MAX_ACCESSES
      accesses[row] = now
      accesses[row + 1] = device
      accesses[row + 2] = rkey
      accesses[row + 3] = address
      accesses[row + 4] = length
    },
    /** The outstanding requests of a process whose buffers have any of these bytes of it. */
    ownOf(pid: number | undefined, start: number, end: number): WorkRequest[] {
      const isOf = (owner: KnownObject, { elements }: WorkRequest): boolean =>
        elements.some(({ lkey, address, length }) => {
          const region = objects.region(owner.device, lkey)
          const from = address - (region?.iova ?? 0) + (region?.start ?? 0)
          return isProgramMemory(region) && from < end && from + length > start
        })
      return [...own.byQueue].flatMap(([id, requests]) => {
        const owner = objects.find(id)
        return owner?.program?.pid === pid && owner !== undefined ? requests.filter(one => isOf(owner, one)) : []
      })
    },
    /** The requests of peers that were outstanding at `time` to bytes of a process that `isMeant` takes. */
    unfinishedAt(
      pid: number | undefined,
      time: number,
      isMeant: (start: number, end: number, right: number, qpn: number | undefined) => boolean,
    ): WorkRequest[] {
      const isUnfinished = (request: WorkRequest): boolean => {
        const right = rightOfRequest(request)
        const { remote } = request
        if (right === undefined || remote === undefined || request.time > time) return false
        const device = targetOf(request)
        const destQpn = destQpnOf(request)
        if (device === undefined || isShut(device, destQpn)) return false
        const isOfThese = memory
          .rangesOf(device, remote)
          .some(({ region, start, end }) => region.object.program?.pid === pid && isMeant(start, end, right, destQpn))
        // The acknowledgement of a WRITE that has landed may be in flight.
        return isOfThese && !(right === LendRight.WRITE && wasExecuted(request))
      }
      const late = ended.filter(({ time: endTime }) => endTime > time).map(({ request }) => request)
      return [...outstanding.values(), ...late].filter(isUnfinished)
    },
  }
}

export const lentRequests = shared({ name: 'requests to lent memory' }, createLentRequests)
