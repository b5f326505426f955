/*
 * The requests that devices have not finished, and the READs and atomics whose data may not have reached the program:
 * what findings about buffers compare with. This is after their detectors: they see a queue as it was before the event.
 */
import type { WorkRequest } from '../../spec/check/requests.ts'
import { WcStatus } from '../../spec/work.ts'
import { isRead } from './buffers.ts'
import type { Detector, DetectorServices } from './detector.ts'
import { unreleasedIn } from './objects.ts'
import { shared } from './shared.ts'

/** Maximum finished READs and atomics of a queue whose data fenced sends may send, the latest. */
const MAX_READS = 64

interface CompletedRead {
  readonly request: WorkRequest
  readonly cq: number
  readonly cqPosition: number
}

const NONE: readonly never[] = []

/** Adds to the list of a key, of which the latest `max` stay. */
export const keepLatest = <T>(lists: Map<number, T[]>, key: number, one: T, max: number): void => {
  let list = lists.get(key)
  if (list === undefined) {
    list = []
    lists.set(key, list)
  }
  list.push(one)
  if (list.length > max) list.shift()
}

const createOutstandingRequests = ({ objects }: DetectorServices) => {
  /** Requests that the device has not finished, by queue (WorkRequest.owner), oldest first. */
  const byQueue = new Map<number, WorkRequest[]>()
  /** By CQ: the number of polled completions. */
  const polledCounts = new Map<number, number>()
  /** READs and atomics whose completions were not polled, by queue, oldest first. */
  const unpolledReads = new Map<number, CompletedRead[]>()
  /** READs and atomics that have ended, and have no completion, by queue, oldest first. */
  const reads = new Map<number, WorkRequest[]>()

  const remove = (request: WorkRequest): void => {
    const requests = byQueue.get(request.owner)
    if (requests === undefined) return
    // Mostly the first: requests of a queue end in order.
    const index = requests.indexOf(request)
    if (index === 0) requests.shift()
    else if (index > 0) requests.splice(index, 1)
  }

  /** Whether the program may have polled the completion at a position of a CQ. */
  const mayBePolled = (cq: number, cqPosition: number): boolean => {
    const known = objects.find(cq)
    return cqPosition <= (polledCounts.get(cq) ?? 0) + (known === undefined ? 0 : unreleasedIn(known))
  }

  const on: Detector['on'] = {
    posted(request) {
      const requests = byQueue.get(request.owner)
      if (requests === undefined) byQueue.set(request.owner, [request])
      else requests.push(request)
    },
    ended(request) {
      remove(request)
      if (isRead(request)) keepLatest(reads, request.owner, request, MAX_READS)
    },
    completed(request, { status, cq, cqPosition }) {
      if (request.opcode < 0) remove(request)
      else if (isRead(request) && status === WcStatus.values.SUCCESS && cqPosition > 0) {
        const ended = reads.get(request.owner)
        const index = ended?.indexOf(request) ?? -1
        if (index >= 0) ended?.splice(index, 1)
        keepLatest(unpolledReads, request.owner, { request, cq, cqPosition }, MAX_READS)
      }
    },
    receiveLost: remove,
    polled: (cq, count) => void polledCounts.set(cq, count),
    queueReset(owner) {
      byQueue.delete(owner)
      reads.delete(owner)
      unpolledReads.delete(owner)
    },
    called({ class: name, method, refused }, { id }) {
      if (name === 'cq' && method === 'destroy' && refused === undefined) polledCounts.delete(id)
    },
  }

  return {
    on,
    byQueue: byQueue as ReadonlyMap<number, readonly WorkRequest[]>,
    /**
     * READs and atomics of a queue that have ended, and have no completion. Their data may reach the memory later
     * (`--torment`).
     */
    endedReads: (owner: number): readonly WorkRequest[] => reads.get(owner) ?? NONE,
    /** READs and atomics of a queue that have completed, as the program cannot know yet. */
    readsInUse(owner: number): readonly WorkRequest[] {
      const reading = unpolledReads.get(owner)
      if (reading === undefined) return NONE
      const left = reading.filter(({ cq, cqPosition }) => !mayBePolled(cq, cqPosition))
      if (left.length < reading.length) unpolledReads.set(owner, left)
      return left.map(({ request }) => request)
    },
    mayBePolled,
  }
}

export const outstandingRequests = shared({ name: 'outstanding requests' }, createOutstandingRequests)
