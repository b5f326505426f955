/*
 * Findings about the buffers of requests. A buffer belongs to the device until the request has completed (IBA 10.6).
 * The detector finds
 * - send buffers that the program changes;
 * - buffers that two outstanding requests of a queue write to;
 * - received messages that a later message overwrites before they are polled;
 * - regions that are deregistered while requests use them;
 * - registered memory that is unmapped.
 *
 * A send buffer is hashed when the program posts the send and polls its completion (by the preload library), when the
 * device fetches it, and when the device has finished it. Of TypeScript, only the last two. By default
 * only samples of the sends and of long messages are hashed; with `--buffers all`, all bytes of all sends.
 */
import { requestName } from '../../spec/check/causes.ts'
import type { Stack } from '../../spec/check/finding.ts'
import type { ProgramEvent } from '../../spec/check/program-events.ts'
import type { RequestCompletion, WorkRequest } from '../../spec/check/requests.ts'
import { HashLog } from '../../spec/context-logs.ts'
import { MrKind } from '../../spec/enums.ts'
import { returnsData, SendFlags, SendKind, sendOperations, WcOpcode, WcStatus } from '../../spec/work.ts'
import type { Detector, DetectorServices } from './detector.ts'
import { createDeviceWrites } from './device-writes.ts'
import { hex, type KnownObject, type KnownObjects, unreleasedIn } from './objects.ts'
import { POSTED } from './reporting.ts'

const { RECV_RDMA_WITH_IMM } = WcOpcode.values
const { SUCCESS } = WcStatus.values
const { FENCE } = SendFlags.values
const { MEMORY, NULL, IMPLICIT } = MrKind.values

/** The first FIRST_SENDS requests of each send queue are hashed, then one of every SAMPLE_INTERVAL. */
const { firstSends: FIRST_SENDS, interval: SAMPLE_INTERVAL } = HashLog
/** The first overlaps of each queue are reported with their own stacks, then one of every SAMPLE_INTERVAL. */
const FIRST_OVERLAPS = 64
/** A request is compared with at most this many earlier requests of its queue, the latest. */
const MAX_COMPARED = 64
/** If a queue has more outstanding requests, new requests are not compared. */
const MAX_OUTSTANDING = 1024
/** Maximum finished READs and atomics of a queue whose data fenced sends may send, the latest. */
const MAX_READS = 64
/** Maximum finished sends of a queue that may be reported when they are polled, the latest. */
const MAX_FINISHED = 256

/** A request in the text of a finding: `WRITE wr_id 5`, `receive wr_id 2`, `WRITE block 7`. */
export const requestText = ({ opcode, wrId, numbered }: Pick<WorkRequest, 'opcode' | 'wrId' | 'numbered'>): string =>
  `${opcode < 0 ? 'receive' : requestName(opcode)} ${numbered ?? 'wr_id'} ${wrId}`

/** Whether the device sends the buffer. */
export const readsBuffer = ({ opcode, elements }: WorkRequest): boolean => {
  const kind = sendOperations[opcode]?.kind
  return elements.length > 0 && (kind === SendKind.SEND || kind === SendKind.WRITE)
}

/** Whether the device writes to the buffer. */
const writesBuffer = ({ opcode }: WorkRequest): boolean => opcode < 0 || returnsData(opcode)

/** Whether a request is a READ or an atomic. */
export const isRead = ({ opcode }: WorkRequest): boolean => returnsData(opcode)

/** Whether a request accesses memory of a region. An element of length 0 accesses none. */
export const usesRegion = ({ elements }: WorkRequest, region: KnownObject): boolean =>
  elements.some(({ lkey, length }) => lkey === region.lkey && length > 0)

/** Whether number `index` (from 0) is among the first or is a sample. */
const isSample = (index: number, first: number): boolean => index < first || index % SAMPLE_INTERVAL === 0

/** Whether a region, if it is known, is memory of the program. `start` of a file or of device memory is an offset. */
const isProgramMemory = (region: KnownObject | undefined): boolean =>
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

/** A receive that a message of `bytes` has filled; `cq`, `cqPosition` and `qp` as in RequestCompletion. */
interface FilledReceive {
  readonly request: WorkRequest
  readonly bytes: number
  readonly qp: number
  readonly cq: number
  readonly cqPosition: number
}

/** A hashed send that the device has finished, at `time` in microseconds. */
interface FinishedSend {
  readonly request: WorkRequest
  readonly time: number
}

/** Overlaps of outstanding requests of a queue. */
interface QueueOverlaps {
  /** The number of the last finding; undefined if it was left out. */
  finding: number | undefined
  /** Number of overlaps so far. */
  count: number
}

export const createBufferDetector = (services: DetectorServices): Detector => {
  /** Requests that the device has not finished, by queue (WorkRequest.owner), oldest first. */
  const outstanding = new Map<number, WorkRequest[]>()
  /** Hashes of the buffers of outstanding sends, when they were fetched. */
  const hashes = new Map<WorkRequest, number>()
  /** Filled receives whose completions were not polled, by queue. */
  const filled = new Map<number, FilledReceive[]>()
  /** By queue. */
  const overlaps = new Map<number, QueueOverlaps>()
  /** By CQ: the number of polled completions. */
  const polledCounts = new Map<number, number>()

  /** Hashed sends without a finding, by queue, oldest first. */
  const finished = new Map<number, FinishedSend[]>()
  /** READs and atomics whose completions were not polled, by queue, oldest first. */
  const unpolledReads = new Map<
    number,
    { readonly request: WorkRequest; readonly cq: number; readonly cqPosition: number }[]
  >()
  /** READs and atomics that have ended, and have no completion, by queue, oldest first. Their data may reach the memory later (`--torment`). */
  const reads = new Map<number, WorkRequest[]>()
  /** Absent: no preload library reports changes at polls. */
  const writes = services.sources.postHash && createDeviceWrites(services)

  const checksAll = services.sources.buffers === 'all'
  const hashOf = ({ device }: KnownObject, request: WorkRequest): number | undefined =>
    services.sources.digest?.(device, request, checksAll)

  const removeOutstanding = (request: WorkRequest): void => {
    const requests = outstanding.get(request.owner)
    if (requests === undefined) return
    // Mostly the first: requests of a queue end in order.
    const index = requests.indexOf(request)
    if (index === 0) requests.shift()
    else if (index > 0) requests.splice(index, 1)
  }

  /** An outstanding request that uses a region. */
  const outstandingUserOf = (
    region: KnownObject,
  ): { readonly request: WorkRequest; readonly owner: KnownObject } | undefined => {
    for (const [id, requests] of outstanding) {
      const owner = services.objects.find(id)
      if (owner?.device !== region.device) continue
      for (const request of requests) if (usesRegion(request, region)) return { request, owner }
    }
    return undefined
  }

  /** A program has deregistered a region: reports an outstanding request that uses the region. */
  const deregistered = (region: KnownObject, stack: Stack): void => {
    const user = outstandingUserOf(region)
    if (user === undefined) return
    const { request, owner } = user
    const text = `${region.name} was deregistered while ${owner.name} has ${requestText(request)} outstanding`
    services.report('region-in-use', services.occurrenceAt(region, stack), {
      text,
      severity: request.opcode < 0 ? 'warning' : 'error',
      moments: [services.postMoment(request)],
      objects: [region, owner],
    })
  }

  /** `isLost`: the second message has overwritten the first. Otherwise both requests are outstanding. */
  const reportOverlap = (
    request: WorkRequest,
    other: WorkRequest,
    address: number,
    isLost: boolean,
  ): number | undefined => {
    const owner = services.objects.find(request.owner)
    if (owner === undefined) return undefined
    const requestTexts = `${requestText(other)} and ${requestText(request)} of ${owner.name}`
    const text = isLost
      ? `the messages of ${requestTexts} were both written to address ${hex(address)}, before the first was polled`
      : `${requestTexts} are outstanding, and both write to address ${hex(address)}`
    return services.report('receive-overlap', services.occurrenceAtPost(owner, request), {
      text,
      severity: isLost ? 'warning' : 'note',
      moments: [services.postMoment(other, 'posted the other')],
      objects: [owner],
    })
  }

  /**
   * Reports an overlap of outstanding requests. The stack and text of a report take longer than a request. If all
   * receives have one buffer, each receive is an overlap; so most overlaps only count as repetitions of the last
   * reported one of the queue.
   */
  const reportOutstandingOverlap = (request: WorkRequest, other: WorkRequest, address: number): void => {
    let known = overlaps.get(request.owner)
    if (known === undefined) {
      known = { finding: undefined, count: 0 }
      overlaps.set(request.owner, known)
    }
    if (known.finding === undefined || isSample(known.count, FIRST_OVERLAPS))
      known.finding = reportOverlap(request, other, address, false)
    else services.repeat(known.finding)
    known.count++
  }

  /** As the program has posted them: the device may see the second READ after the first was polled. */
  const overlapOfReads = (owner: KnownObject, { wrId, address, stack }: ProgramEvent<'readsOverlap'>): void => {
    const finding = services.report(
      'receive-overlap',
      { ...services.occurrenceAt(owner, stack), ...POSTED },
      {
        text: `the READ or atomic wr_id ${wrId} of ${owner.name} was posted while an earlier one was outstanding, and both write to address ${hex(address)}`,
        objects: [owner],
      },
    )
    // What the device sees of the same mistake counts as repetitions.
    if (!overlaps.has(owner.id)) overlaps.set(owner.id, { finding, count: FIRST_OVERLAPS + 1 })
  }

  /** Reports if a new request and an outstanding request of its queue write to the same memory. */
  const checkOverlap = (request: WorkRequest, requests: readonly WorkRequest[]): void => {
    for (let i = Math.max(0, requests.length - MAX_COMPARED); i < requests.length; i++) {
      const other = requests[i]!
      const address = writesBuffer(other)
        ? overlapAddress(services.objects, request, request.length, other, other.length)
        : undefined
      if (address === undefined) continue
      reportOutstandingOverlap(request, other, address)
      return
    }
  }

  const unreleasedOf = (cq: number): number => {
    const known = services.objects.find(cq)
    return known === undefined ? 0 : unreleasedIn(known)
  }

  const mayBePolled = ({ cq, cqPosition }: FilledReceive): boolean => {
    const known = services.objects.find(cq)
    return known !== undefined && cqPosition <= (polledCounts.get(cq) ?? 0) + unreleasedIn(known)
  }

  /** READs and atomics of a queue that have completed, as the program cannot know yet. */
  const readsInUse = (owner: number): readonly WorkRequest[] => {
    const reading = unpolledReads.get(owner) ?? []
    const left = reading.filter(({ cq, cqPosition }) => cqPosition > (polledCounts.get(cq) ?? 0) + unreleasedOf(cq))
    if (left.length < reading.length) unpolledReads.set(owner, left)
    return left.map(({ request }) => request)
  }

  /** READs and atomics that have ended, whose completions will come. */
  const endedReads = (owner: number): readonly WorkRequest[] =>
    (reads.get(owner) ?? []).filter(({ isSignaled }) => isSignaled)

  const addRead = (request: WorkRequest): void => {
    const ended = reads.get(request.owner) ?? []
    reads.set(request.owner, ended)
    ended.push(request)
    if (ended.length > MAX_READS) ended.shift()
  }

  const removeRead = (request: WorkRequest): void => {
    const ended = reads.get(request.owner) ?? []
    const index = ended.indexOf(request)
    if (index >= 0) ended.splice(index, 1)
  }

  /** Whether a fenced send may send the data of a READ or atomic, so that its buffer may change after the fetch. */
  const waitsForData = (request: WorkRequest, earlier: readonly WorkRequest[]): boolean =>
    (request.flags & FENCE) !== 0 &&
    (earlier.some(isRead) ||
      [...(reads.get(request.owner) ?? []), ...readsInUse(request.owner)].some(
        read => overlapAddress(services.objects, request, request.length, read, read.length) !== undefined,
      ))

  /** Reports if a message has overwritten an unpolled message. */
  const checkOverwritten = (request: WorkRequest, { bytes, cq, cqPosition, qp }: RequestCompletion): void => {
    const receives = filled.get(request.owner) ?? []
    filled.set(request.owner, receives)
    for (const other of receives) {
      const address = overlapAddress(services.objects, request, bytes, other.request, other.bytes)
      if (address === undefined || mayBePolled(other)) continue
      reportOverlap(request, other.request, address, true)
      break
    }
    receives.push({ request, bytes, cq, cqPosition, qp })
    if (receives.length > MAX_COMPARED) receives.shift()
  }

  const removeFilled = (isOver: (receive: FilledReceive) => boolean): void => {
    for (const [owner, receives] of filled) {
      const others = receives.filter(receive => !isOver(receive))
      if (others.length === 0) filled.delete(owner)
      else if (others.length < receives.length) filled.set(owner, others)
    }
  }
  /** Removes the filled receives of the first `polled` completions of a CQ. */
  const removePolled = (cq: number, polled: number): void =>
    removeFilled(receive => receive.cq === cq && receive.cqPosition <= polled)

  /** Whether the program has the bytes of a request at the addresses of its elements. */
  const hasProgramAddresses = ({ device }: KnownObject, { elements }: WorkRequest): boolean =>
    elements.every(({ lkey }) => {
      const region = services.objects.region(device, lkey)
      return region !== undefined && isProgramMemory(region) && region.iova === region.start
    })

  /**
   * Reports if the bytes of a send at its fetch are not those of its post. A fenced send may send the data of a READ that
   * was outstanding at the post.
   */
  const checkSincePost = (owner: KnownObject, request: WorkRequest, hash: number): void => {
    if ((request.flags & FENCE) !== 0) return
    const posted = services.sources.postHash?.(owner.context, request)
    if (posted === undefined || posted.hash === hash || !hasProgramAddresses(owner, request)) return
    if (posted.isWhole !== checksAll && request.length > HashLog.wholeBytes) return
    hashes.delete(request)
    reportChanged(owner, request)
  }

  /** Reports if the bytes of a finished send have changed since the device fetched the send. */
  const checkBytes = (request: WorkRequest): void => {
    const hashAtFetch = hashes.get(request)
    if (hashAtFetch === undefined) return
    hashes.delete(request)
    const owner = services.objects.find(request.owner)
    const hash = owner && hashOf(owner, request)
    if (hash === undefined || owner === undefined) return
    if (hash !== hashAtFetch) reportChanged(owner, request)
    else if (writes !== undefined) {
      const sends = finished.get(request.owner) ?? []
      finished.set(request.owner, sends)
      sends.push({ request, time: services.sources.now() })
      if (sends.length > MAX_FINISHED) sends.shift()
    }
  }

  /**
   * The bytes of a polled send are not those of its post, and the device found no change. So the program has changed
   * them after the device had finished, unless a device has. If the peer has answered since, the program may know that
   * the buffer is free.
   */
  const changedAtPoll = (owner: KnownObject, index: number): void => {
    const sends = finished.get(owner.id) ?? []
    const at = sends.findIndex(({ request }) => request.postIndex === index)
    const [send] = at < 0 ? [] : sends.splice(at, 1)
    if (send === undefined || writes === undefined || !hasProgramAddresses(owner, send.request)) return
    if (writes.hasAnswered(owner, send.time) || writes.mayHaveWritten(send.request, owner, outstanding.values())) return
    reportChanged(owner, send.request)
  }

  const reportChanged = (owner: KnownObject, request: WorkRequest): void => {
    const region = services.objects.region(owner.device, request.elements[0]!.lkey)
    const completion = request.isSignaled ? 'its completion' : 'the completion of a later request'
    const text = `the buffer of ${requestText(request)} of ${owner.name} was changed before ${completion} was polled`
    services.report('send-buffer-changed', services.occurrenceAtPost(owner, request), {
      text,
      objects: [owner, region],
    })
  }

  return {
    on: {
      posted(request) {
        let requests = outstanding.get(request.owner)
        if (requests === undefined) {
          requests = []
          outstanding.set(request.owner, requests)
        }
        if (writesBuffer(request) && requests.length <= MAX_OUTSTANDING)
          checkOverlap(
            request,
            isRead(request) ? [...endedReads(request.owner), ...readsInUse(request.owner), ...requests] : requests,
          )
        const isUnsettled = waitsForData(request, requests)
        requests.push(request)
        if (
          isUnsettled ||
          !readsBuffer(request) ||
          !(checksAll || isSample(request.postIndex ?? request.index, FIRST_SENDS))
        )
          return
        const owner = services.objects.find(request.owner)
        const hash = owner && hashOf(owner, request)
        if (hash === undefined || owner === undefined) return
        hashes.set(request, hash)
        checkSincePost(owner, request, hash)
      },
      ended(request) {
        removeOutstanding(request)
        if (isRead(request)) addRead(request)
        writes?.ended(request, request.owner)
        checkBytes(request)
      },
      completed(request, completion) {
        const { status, opcode, bytes } = completion
        if (request.opcode >= 0) {
          if (isRead(request) && status === SUCCESS && completion.cqPosition > 0) {
            removeRead(request)
            const reading = unpolledReads.get(request.owner) ?? []
            unpolledReads.set(request.owner, reading)
            reading.push({ request, cq: completion.cq, cqPosition: completion.cqPosition })
            if (reading.length > MAX_READS) reading.shift()
          }
          return
        }
        removeOutstanding(request)
        writes?.ended(request, completion.qp)
        // A WRITE with immediate data does not write to the receive's buffer.
        const isFilled = status === SUCCESS && opcode !== RECV_RDMA_WITH_IMM && bytes > 0 && request.elements.length > 0
        if (isFilled) checkOverwritten(request, completion)
      },
      receiveLost(request) {
        removeOutstanding(request)
        writes?.ended(request, request.owner)
      },
      polled(cq, polled) {
        polledCounts.set(cq, polled)
        removePolled(cq, polled)
      },
      queueReset(owner) {
        for (const request of outstanding.get(owner) ?? []) {
          hashes.delete(request)
          writes?.ended(request, owner)
        }
        outstanding.delete(owner)
        reads.delete(owner)
        unpolledReads.delete(owner)
        finished.delete(owner)
        filled.delete(owner)
        // Receives of an SRQ that the queue pair took.
        removeFilled(({ qp }) => qp === owner)
        overlaps.delete(owner)
      },
      called({ class: name, method, refused, why, stack }, object) {
        if (method !== 'destroy' || refused !== undefined) return
        if (name === 'mr' && why === 'call') deregistered(object, stack)
        if (name !== 'cq') return
        polledCounts.delete(object.id)
        removePolled(object.id, Number.POSITIVE_INFINITY)
      },
      unmapped(_event, region) {
        const user = outstandingUserOf(region)
        const outstandingText = user && `, while ${user.owner.name} has ${requestText(user.request)} outstanding`
        services.report(
          'region-unmapped',
          services.occurrenceAt(region, region.creation.stack, region.creation.action),
          {
            text: `memory of ${region.name} was unmapped before the region was deregistered${outstandingText ?? ''}`,
            ...(user === undefined ? { severity: 'note' } : { moments: [services.postMoment(user.request)] }),
            objects: [region, user?.owner],
          },
        )
      },
      sendChanged: ({ index }, owner) => changedAtPoll(owner, index),
      readsOverlap: (event, owner) => overlapOfReads(owner, event),
    },
  }
}
