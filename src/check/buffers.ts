/*
 * Buffers of requests: memory that the device still uses belongs to it (IBA 10.6).
 */
import { requestName } from '../spec/causes.ts'
import type { WorkRequest } from '../spec/requests.ts'
import { type KnownObject, moment } from './objects.ts'
import type { Topic, World } from './topic.ts'

/** As a sentence names it: WRITE wr_id 5, receive wr_id 2. */
export const requestText = ({ opcode, wrId }: WorkRequest): string =>
  `${opcode < 0 ? 'receive' : requestName(opcode)} wr_id ${wrId}`

export const createBuffers = (world: World): Topic => {
  /** Requests that the device has not finished, by owner. */
  const outstanding = new Map<number, Set<WorkRequest>>()
  const over = (request: WorkRequest): void => {
    outstanding.get(request.owner)?.delete(request)
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

  return {
    posted(request) {
      const requests = outstanding.get(request.owner)
      if (requests === undefined) outstanding.set(request.owner, new Set([request]))
      else requests.add(request)
    },
    ended: over,
    completed: over,
    forgotten(owner) {
      outstanding.delete(owner)
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
        moments: [moment('posted', request.time, world.postStack(owner, request))],
        objects: [region, owner],
      })
    },
  }
}
