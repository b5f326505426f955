/*
 * The requests that may access memory that peers were told of, and the sends of its owner, while there is such memory;
 * and when a program has heard of others last.
 */
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { PostQueue } from '../../../spec/session.ts'
import { returnsData, SendKind, sendOperations } from '../../../spec/work.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { shared } from '../shared.ts'
import { learnt, type Region } from './learnt.ts'
import type { Access } from './told.ts'

/** Maximum outstanding requests, and those whose queue was destroyed, the latest. */
const MAX_REQUESTS = 2 ** 14
const MAX_GONE = 64
/** Words of up to 8 bytes may be written by anybody at any time. */
export const WORD = 8

const isMessage = ({ opcode }: WorkRequest): boolean => {
  const kind = sendOperations[opcode]?.kind
  return kind === SendKind.SEND || kind === SendKind.WRITE
}

type Index = Map<number, Set<WorkRequest>>

const put = (index: Index, key: number, request: WorkRequest): void => {
  const known = index.get(key)
  if (known === undefined) index.set(key, new Set([request]))
  else known.add(request)
}
const take = (index: Index, key: number, request: WorkRequest): void => {
  const known = index.get(key)
  if (known?.delete(request) && known.size === 0) index.delete(key)
}

const createPeerRequests = (services: DetectorServices) => {
  const { objects, sources } = services
  const told = learnt(services)
  if (told === undefined) return undefined
  /** When a process, by its pid, got a message, or the data of a READ or atomic, or was written to last. */
  const heard = new Map<number | undefined, number>()
  const outstanding = new Set<WorkRequest>()
  /** Of these, by the keys of the memory at the peer, and of their own memory that they send. */
  const byRkey: Index = new Map()
  const byLkey: Index = new Map()
  const gone: WorkRequest[] = []

  const begin = (request: WorkRequest): void => {
    const { remote, elements } = request
    outstanding.add(request)
    if (remote !== undefined) put(byRkey, remote.rkey, request)
    if (isMessage(request)) for (const { lkey } of elements) put(byLkey, lkey, request)
  }

  const end = (request: WorkRequest): void => {
    if (!outstanding.delete(request)) return
    const { remote, elements, opcode, owner } = request
    if (remote !== undefined) take(byRkey, remote.rkey, request)
    for (const { lkey } of elements) take(byLkey, lkey, request)
    if (returnsData(opcode)) heard.set(objects.find(owner)?.program?.pid, sources.now())
  }

  const on: Detector['on'] = {
    posted(request) {
      if (told.all.size === 0 || request.queue !== PostQueue.SEND) return
      begin(request)
      if (outstanding.size <= MAX_REQUESTS) return
      const [oldest] = outstanding
      end(oldest!)
      services.omit('advertised', 1)
    },
    ended: end,
    completed(request, { qp }) {
      if (told.all.size > 0 && request.opcode < 0) heard.set(objects.find(qp)?.program?.pid, sources.now())
    },
    queueReset(owner) {
      for (const request of outstanding) {
        if (request.owner !== owner) continue
        end(request)
        gone.push(request)
        if (gone.length > MAX_GONE) gone.shift()
      }
    },
  }

  return {
    on,
    heard,
    /** The request of a peer that is accessing these bytes; undefined: unknown. */
    requestOf({ device, rkey, address, length, qpn }: Access): WorkRequest | undefined {
      const isIt = (request: WorkRequest): boolean => {
        const { remote } = request
        if (remote?.rkey !== rkey || remote.address > address || address + length > remote.address + remote.length)
          return false
        const owner = objects.find(request.owner)
        const destQpn = request.destQpn ?? owner?.attributes.destQpn
        return (
          (destQpn === undefined || destQpn === qpn) &&
          (owner === undefined || services.targetDeviceOf(request, owner) === device)
        )
      }
      for (const request of byRkey.get(rkey) ?? []) if (isIt(request)) return request
      return gone.findLast(isIt)
    },
    /** An outstanding send of the owner that has these bytes, and that the device saw after `after`. */
    sendOf({ object, shift }: Region, start: number, behind: number, after: WorkRequest): WorkRequest | undefined {
      for (const send of byLkey.get(object.lkey ?? 0) ?? []) {
        if (send.id <= after.id) continue
        const owner = objects.find(send.owner)
        if (owner?.program?.pid !== object.program?.pid || owner?.device !== object.device) continue
        const isSame = send.elements.some(
          ({ lkey, address, length }) =>
            lkey === object.lkey &&
            Math.min(address + shift + length, behind) - Math.max(address + shift, start) > WORD,
        )
        if (isSame) return send
      }
      return undefined
    },
  }
}

export type PeerRequests = NonNullable<ReturnType<typeof createPeerRequests>>

export const peerRequests = shared({ name: 'requests to memory that peers were told of' }, createPeerRequests)
