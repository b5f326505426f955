/*
 * Memory that its program gave back while a region of it lived, and that the device accessed afterwards, for a request
 * of the program or of a peer. The preload library tells of a block later than it was given back, at the program's next
 * call: so the latest requests are kept.
 *
 * A program may have allocated the block again: registration caches keep regions over freed blocks, rightly. While the
 * preload library keeps the block, that is impossible. Else the program is taken to have done so if it has posted a
 * request with the region's lkey, or any message that may tell a peer of the block, since: then the finding is a note.
 */
import type { Program, Stack } from '../../../spec/check/finding.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { GiveBack, PostQueue } from '../../../spec/session.ts'
import { takesReceive } from '../../../spec/work.ts'
import { requestText } from '../buffers.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { latestRequests } from '../latest-requests.ts'
import { LEARNT } from '../lends/learnt.ts'
import { accessText } from '../lends/rights.ts'
import { hex, type KnownObject, moment } from '../objects.ts'

/** Maximum blocks that are remembered, the latest. */
const MAX_GIVEN = 256
/** Maximum kept accesses of peers, the latest, and numbers of one. */
const MAX_ACCESSES = 256
const NUMBERS = 7

/** Memory of a region, in its addresses, that was given back at `time`, in microseconds, by `stack`. */
interface Gone {
  readonly region: KnownObject
  /** GiveBack. */
  readonly how: number
  readonly start: number
  readonly end: number
  /** Whether nothing else gets the memory before `reusableAt`. */
  readonly isKept: boolean
  readonly time: number
  readonly stack: Stack
  /** When the program may have had the memory again, microseconds; infinite: not yet. */
  reusableAt: number
  /** The newest request that was known when the memory was given back. */
  readonly newest: number
}

interface Access {
  readonly request: WorkRequest
  readonly isLocal: boolean
}

/** Per way of giving back: the participle, what the access means, and what to do. */
const ways: Readonly<
  Record<
    number,
    {
      readonly given: string
      readonly meaning: string
      readonly advice: string
      readonly isDiscard?: true
      /** Accesses of the program's own requests that other findings tell: of those that were outstanding, or all. */
      readonly toldOtherwise?: 'outstanding' | 'all'
    }
  >
> = {
  [GiveBack.FREE]: {
    given: 'freed',
    meaning: 'had freed',
    advice: 'deregister the region, and make sure that no peer uses its rkey any more, before its memory is freed',
    toldOtherwise: 'outstanding',
  },
  [GiveBack.REALLOC]: {
    given: 'given back by realloc',
    meaning: 'had given back by realloc',
    advice: 'deregister the region before realloc, which may move the block, and register the new block',
    toldOtherwise: 'outstanding',
  },
  [GiveBack.FRAME]: {
    given: 'the frame had returned',
    meaning: 'had on the stack, in a function that has returned',
    advice: 'register memory that lives as long as the region, or deregister it before the function returns',
    toldOtherwise: 'all',
  },
  [GiveBack.THREAD]: {
    given: 'the thread ended',
    meaning: 'had on the stack of a thread that has ended',
    advice: 'register memory that lives as long as the region, or deregister it before the thread ends',
  },
  [GiveBack.DISCARD]: {
    given: 'discarded (madvise)',
    meaning:
      'had discarded by madvise: an adapter keeps the pages that were registered, and the program has new ones, so it would never see the data',
    advice: 'deregister the region before madvise with MADV_DONTNEED, MADV_FREE or MADV_REMOVE',
    isDiscard: true,
  },
}

/** Whether a request of the program was posted before it gave the memory back. */
const wasPosted = (request: WorkRequest, { time, newest }: Gone): boolean =>
  request.time <= time || request.id <= newest

/** How a request accesses given memory; undefined: it does not. */
const accessOf = (services: DetectorServices, request: WorkRequest, given: Gone): Access | undefined => {
  const { region, start, end, how } = given
  const owner = services.objects.find(request.owner)
  if (owner === undefined) return undefined
  const overlaps = (address: number, length: number): boolean => address < end && start < address + length
  if (
    owner.device === region.device &&
    request.elements.some(({ lkey, address, length }) => lkey === region.lkey && overlaps(address, length))
  ) {
    const { toldOtherwise } = ways[how] ?? {}
    const isTold = toldOtherwise === 'all' || (toldOtherwise === 'outstanding' && wasPosted(request, given))
    return isTold ? undefined : { request, isLocal: true }
  }
  const { remote } = request
  if (remote === undefined || remote.rkey !== region.rkey || services.targetDeviceOf(request, owner) !== region.device)
    return undefined
  return overlaps(remote.address, remote.length) ? { request, isLocal: false } : undefined
}

export const createMemoryGoneDetector = (services: DetectorServices): Detector => {
  const { objects } = services
  /** By `KnownObject.id` of the region, the oldest first. */
  const givens = new Map<number, Gone>()
  const latest = latestRequests(services)

  /** Whether the region's program has used the region, or may have told a peer of it, between the two. */
  const isInUseAgain = ({ region, time }: Gone, before: WorkRequest): boolean => {
    const uses = (request: WorkRequest): boolean => {
      const owner = objects.find(request.owner)
      if (request.time <= time || request.id >= before.id || owner?.program?.pid !== region.program?.pid) return false
      return takesReceive(request.opcode) || request.elements.some(({ lkey }) => lkey === region.lkey)
    }
    return latest.some(uses)
  }

  const report = (given: Gone, { request, isLocal }: Access): void => {
    const { region, how, stack, time } = given
    const way = ways[how]
    const owner = objects.find(request.owner)
    if (way === undefined || owner === undefined) return
    // A request of the program itself that was posted later may use a block that was allocated again.
    const isFree = given.isKept && services.sources.now() < given.reusableAt
    const { start = 0, iova = start } = region
    const { remote } = request
    const from = remote === undefined || isLocal ? 0 : remote.address + start - iova
    const told =
      from === 0 ? [] : (services.ask(LEARNT)?.momentsOf(region.program?.pid, from, from + remote!.length) ?? [])
    const isUncertain = !isFree && ((isLocal && !wasPosted(request, given)) || isInUseAgain(given, request))
    const whose =
      isLocal || owner.program?.pid === region.program?.pid ? 'the program' : `process ${programText(region.program)}`
    services.report('memory-gone', services.occurrenceAtPost(owner, request), {
      text: `${requestText(request)} of ${owner.name} accesses memory of ${region.name} that ${whose} ${way.meaning}`,
      ...(isUncertain && !way.isDiscard ? { severity: 'note' } : way.isDiscard && { severity: 'warning' }),
      advice: way.advice,
      moments: [...told, moment(way.given, time, stack)],
      objects: [region, owner],
    })
    givens.delete(region.id)
  }

  const check = (request: WorkRequest): void => {
    if (givens.size === 0) return
    for (const given of givens.values()) {
      const access = accessOf(services, request, given)
      if (access !== undefined) report(given, access)
    }
  }

  /**
   * A ring of the latest accesses of peers: time, device, key, address, length, rights, QPN. Rows of an empty one have
   * time 0.
   */
  const accesses = new Float64Array(MAX_ACCESSES * NUMBERS)
  let nextAccess = 0

  /** The access at `at` of the ring is one to given memory, by a peer whose requests are unknown. */
  const checkAccess = (given: Gone, at: number): boolean => {
    const { region, start, end, how } = given
    if (accesses[at]! < given.time || accesses[at + 2] !== region.rkey) return false
    const [time, device, , address, length, access, qpn] = accesses.subarray(at, at + NUMBERS) as unknown as number[]
    if (device !== region.device || address! >= end || start >= address! + length!) return false
    const qp = services.objects.qp(device!, qpn!)
    const way = ways[how]
    if (qp === undefined || way === undefined || services.maySeePeerOf(qp)) return false
    const isCertain = given.isKept && time! < given.reusableAt
    services.report('memory-gone', services.occurrenceOfAccess(region, time), {
      text: `a ${accessText(access!)} of the peer of ${qp.name}, of another daemon or machine, accesses ${length} bytes at ${hex(address!)} of ${region.name}, which the program ${way.meaning}`,
      ...(way.isDiscard ? { severity: 'warning' as const } : !isCertain && { severity: 'note' as const }),
      advice: way.advice,
      moments: [moment(way.given, given.time, given.stack)],
      objects: [region, qp],
    })
    givens.delete(region.id)
    return true
  }

  const remember = (given: Gone): void => {
    const { region, time } = given
    const [oldest] = givens.keys()
    if (oldest !== undefined && givens.size === MAX_GIVEN) givens.delete(oldest)
    givens.delete(region.id)
    givens.set(region.id, given)
    for (let at = 0; at < accesses.length; at += NUMBERS) if (accesses[at] !== 0 && checkAccess(given, at)) return
    for (const request of latest.endedAfter(time)) {
      const access = accessOf(services, request, given)
      if (access !== undefined) {
        report(given, access)
        return
      }
    }
  }

  const requests: Detector['on'] = {
    posted(request) {
      // A receive accesses its memory when a message comes.
      if (request.queue === PostQueue.SEND) check(request)
    },
    ended: check,
    completed(request) {
      if (request.queue !== PostQueue.SEND) check(request)
    },
    called({ class: name, method, refused }, { id }) {
      if (name === 'mr' && refused === undefined && (method === 'destroy' || method === 'modify')) givens.delete(id)
    },
  }

  return {
    on: {
      ...(services.watchesAccesses && requests),
      accessed({ device, rkey, address, length, access, qpn }) {
        if (length === 0) return
        const at = nextAccess * NUMBERS
        nextAccess = (nextAccess + 1) % MAX_ACCESSES
        accesses[at] = services.sources.now()
        accesses[at + 1] = device
        accesses[at + 2] = rkey
        accesses[at + 3] = address
        accesses[at + 4] = length
        accesses[at + 5] = access
        accesses[at + 6] = qpn
        for (const given of givens.values()) checkAccess(given, at)
      },
      reusable({ time }, { id }) {
        const given = givens.get(id)
        if (given !== undefined) given.reusableAt = time
      },
      gaveBack({ start, end, how, isKept, time, stack }, region) {
        if (region.start === undefined || region.iova === undefined) return
        const offset = region.iova - region.start
        remember({
          region,
          how,
          start: start + offset,
          end: end + offset,
          isKept: isKept === 1,
          time,
          stack,
          reusableAt: Number.POSITIVE_INFINITY,
          newest: how === GiveBack.DISCARD ? -1 : latest.newestId(),
        })
      },
    },
  }
}

const programText = (program: Program | undefined): string =>
  program === undefined ? 'of the peer' : `${program.pid} (${program.command})`
