/*
 * The latest requests that have ended, and those that are outstanding, of all programs. Only if the checker gets all
 * accesses: else nothing is kept.
 */
import type { WorkRequest } from '../../spec/check/requests.ts'
import { PostQueue } from '../../spec/session.ts'
import type { Detector, DetectorServices, Topic } from './detector.ts'
import { outstandingRequests } from './outstanding.ts'
import { shared } from './shared.ts'

/** Maximum kept requests that have ended, the latest. */
const MAX_ENDED = 1024

/** The latest requests that have ended, of all programs, the oldest first. */
export const LATEST: Topic<() => readonly WorkRequest[]> = { name: 'latest requests' }

const createLatestRequests = (services: DetectorServices) => {
  /** A ring of ended requests, and when they ended: two arrays, because each request of the program passes here. */
  const ended: WorkRequest[] = []
  const endTimes = new Float64Array(MAX_ENDED)
  let next = 0
  const outstanding = outstandingRequests(services)
  let newestId = -1

  const end = (request: WorkRequest): void => {
    ended[next] = request
    endTimes[next] = services.sources.now()
    next = (next + 1) % MAX_ENDED
  }

  services.tell(LATEST, () => [...ended.slice(next), ...ended.slice(0, next)])

  const on: Detector['on'] = {
    posted(request) {
      newestId = request.id
    },
    ended: end,
    completed(request) {
      if (request.queue !== PostQueue.SEND) end(request)
    },
  }

  return {
    /** The id of the newest request; −1: none. */
    newestId: () => newestId,
    /** Whether one of them, ended or outstanding, is of this kind. */
    some: (isIt: (request: WorkRequest) => boolean): boolean =>
      ended.some(isIt) || [...outstanding.byQueue.values()].some(requests => requests.some(isIt)),
    /** Those that have ended after `time`, in microseconds. */
    endedAfter: (time: number): WorkRequest[] => ended.filter((_, at) => endTimes[at]! > time),
    on: services.watchesAccesses ? on : {},
  }
}

export const latestRequests = shared({ name: 'latest requests and outstanding ones' }, createLatestRequests)
