/*
 * Memory that its program gave back while a region of it lived, and that the device accessed afterwards, for a request
 * of the program or of a peer. The preload library tells of a block later than it was given back, at the program's next
 * call: so the latest requests are kept.
 *
 * A program may have allocated the block again: registration caches keep regions over freed blocks, rightly. It is
 * taken to have done so if it has posted a request with the region's lkey, or any message that may tell a peer of the
 * block, since: then the finding is a note.
 */
import type { Program, Stack } from '../../spec/check/finding.ts'
import type { WorkRequest } from '../../spec/check/requests.ts'
import { GiveBack, PostQueue } from '../../spec/session.ts'
import { WrOpcode } from '../../spec/work.ts'
import { requestText } from './buffers.ts'
import type { Detector, DetectorServices } from './detector.ts'
import { type KnownObject, moment } from './objects.ts'

/** Maximum kept requests that have ended, the latest. */
const MAX_ENDED = 1024
/** Maximum blocks that are remembered, the latest. */
const MAX_GIVEN = 256

const { SEND, SEND_WITH_IMM, SEND_WITH_INV, RDMA_WRITE_WITH_IMM } = WrOpcode.values
const messages: ReadonlySet<number> = new Set([SEND, SEND_WITH_IMM, SEND_WITH_INV, RDMA_WRITE_WITH_IMM])

/** Memory of a region, in its addresses, that was given back at `time`, in microseconds, by `stack`. */
export interface Given {
  readonly region: KnownObject
  /** GiveBack. */
  readonly how: number
  readonly start: number
  readonly end: number
  readonly time: number
  readonly stack: Stack
}

interface Access {
  readonly request: WorkRequest
  readonly isLocal: boolean
}

/** Per way of giving back: the participle, what the access means, and what to do. */
const ways: Readonly<
  Record<
    number,
    { readonly given: string; readonly meaning: string; readonly advice: string; readonly isDiscard?: true }
  >
> = {
  [GiveBack.FREE]: {
    given: 'freed',
    meaning: 'had freed',
    advice: 'deregister the region, and make sure that no peer uses its rkey any more, before its memory is freed',
  },
  [GiveBack.REALLOC]: {
    given: 'given back by realloc',
    meaning: 'had given back by realloc',
    advice: 'deregister the region before realloc, which may move the block, and register the new block',
  },
  [GiveBack.DISCARD]: {
    given: 'discarded (madvise)',
    meaning:
      'had discarded by madvise: an adapter keeps the pages that were registered, and the program has new ones, so it would never see the data',
    advice: 'deregister the region before madvise with MADV_DONTNEED, MADV_FREE or MADV_REMOVE',
    isDiscard: true,
  },
}

export interface MemoryGone extends Detector {
  /** The program has given back memory of a region. */
  gaveBack(given: Given): void
}

export const createMemoryGoneDetector = (services: DetectorServices): MemoryGone => {
  const { objects } = services
  /** By `KnownObject.id` of the region, the oldest first. */
  const givens = new Map<number, Given>()
  /** A ring of ended requests, and when they ended: two arrays, because each request of the program passes here. */
  const ended: WorkRequest[] = []
  const endTimes = new Float64Array(MAX_ENDED)
  let next = 0
  const outstanding = new Set<WorkRequest>()

  const peerDeviceOf = ({ attributes: { address } }: KnownObject): number | undefined =>
    address && services.deviceWithGid(address.dgid)

  /** How a request accesses given memory; undefined: it does not. */
  const accessOf = (request: WorkRequest, { region, start, end }: Given): Access | undefined => {
    const owner = objects.find(request.owner)
    if (owner === undefined) return undefined
    const overlaps = (address: number, length: number): boolean => address < end && start < address + length
    if (
      owner.device === region.device &&
      request.elements.some(({ lkey, address, length }) => lkey === region.lkey && overlaps(address, length))
    )
      return { request, isLocal: true }
    const { remote } = request
    if (remote === undefined || remote.rkey !== region.rkey || peerDeviceOf(owner) !== region.device) return undefined
    return overlaps(remote.address, remote.length) ? { request, isLocal: false } : undefined
  }

  /** Whether the region's program has used the region, or may have told a peer of it, between the two. */
  const isInUseAgain = ({ region, time }: Given, before: WorkRequest): boolean => {
    const uses = (request: WorkRequest): boolean => {
      const owner = objects.find(request.owner)
      if (request.time <= time || request.id >= before.id || owner?.program?.pid !== region.program?.pid) return false
      return messages.has(request.opcode) || request.elements.some(({ lkey }) => lkey === region.lkey)
    }
    return ended.some(uses) || [...outstanding].some(uses)
  }

  const report = (given: Given, { request, isLocal }: Access): void => {
    const { region, how, stack, time } = given
    const way = ways[how]
    const owner = objects.find(request.owner)
    if (way === undefined || owner === undefined) return
    // A request of the program itself that was posted later may use a block that was allocated again.
    const isUncertain = (isLocal && request.time > time) || isInUseAgain(given, request)
    const whose =
      isLocal || owner.program?.pid === region.program?.pid ? 'the program' : `process ${programText(region.program)}`
    services.report('memory-gone', services.occurrenceAtPost(owner, request), {
      text: `${requestText(request)} of ${owner.name} accesses memory of ${region.name} that ${whose} ${way.meaning}`,
      ...(isUncertain && !way.isDiscard ? { severity: 'note' } : way.isDiscard && { severity: 'warning' }),
      advice: way.advice,
      moments: [moment(way.given, time, stack)],
      objects: [region, owner],
    })
    givens.delete(region.id)
  }

  const check = (request: WorkRequest): void => {
    if (givens.size === 0) return
    for (const given of givens.values()) {
      const access = accessOf(request, given)
      if (access !== undefined) report(given, access)
    }
  }

  const end = (request: WorkRequest): void => {
    outstanding.delete(request)
    ended[next] = request
    endTimes[next] = services.sources.now()
    next = (next + 1) % MAX_ENDED
  }

  return {
    gaveBack(given) {
      const [oldest] = givens.keys()
      if (oldest !== undefined && givens.size === MAX_GIVEN) givens.delete(oldest)
      const { region, time } = given
      givens.delete(region.id)
      givens.set(region.id, given)
      for (const [at, request] of ended.entries()) {
        if (endTimes[at]! <= time) continue
        const access = accessOf(request, given)
        if (access !== undefined) {
          report(given, access)
          return
        }
      }
    },
    posted(request) {
      outstanding.add(request)
      // A receive accesses its memory when a message comes.
      if (request.queue === PostQueue.SEND) check(request)
    },
    ended(request) {
      end(request)
      check(request)
    },
    completed(request) {
      if (request.queue === PostQueue.SEND) return
      end(request)
      check(request)
    },
    receiveLost(request) {
      outstanding.delete(request)
    },
    queueReset(owner) {
      for (const request of outstanding) if (request.owner === owner) outstanding.delete(request)
    },
    called({ class: name, method, refused }, { id }) {
      if (name === 'mr' && refused === undefined && (method === 'destroy' || method === 'modify')) givens.delete(id)
    },
  }
}

const programText = (program: Program | undefined): string =>
  program === undefined ? 'of the peer' : `${program.pid} (${program.command})`
