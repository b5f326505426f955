/*
 * Send buffers that the program changes before it knows that the device has sent them.
 *
 * Likewise the buffer of a READ, until its data comes: it is hashed at the fetch, and when the peer executes the READ.
 * What the program has written there is lost, as if it has given the READ up and uses the buffer otherwise.
 *
 * A send buffer is hashed when the program posts the send and polls its completion (by the preload library), when the
 * device fetches it, and when the device has finished it. Of TypeScript, only the last two. By default
 * only samples of the sends and of long messages are hashed; with `--buffers all`, all bytes of all sends.
 */
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { HashLog } from '../../../spec/context-logs.ts'
import { AccessFlags } from '../../../spec/enums.ts'
import { SendFlags, WrOpcode } from '../../../spec/work.ts'
import { isProgramMemory, isRead, isSample, overlapAddress, readsBuffer, requestText } from '../buffers.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { createDeviceWrites } from '../device-writes.ts'
import type { Access } from '../lends/told.ts'
import type { KnownObject } from '../objects.ts'
import { keepLatest, outstandingRequests } from '../outstanding.ts'
import { POSTED_NEXT } from './list-posted-again.ts'

const { FENCE } = SendFlags.values
const { RDMA_READ } = WrOpcode.values
const { REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values
const ALL = REMOTE_READ | REMOTE_WRITE | REMOTE_ATOMIC

/** Maximum finished sends of a queue that may be reported when they are polled, the latest. */
const MAX_FINISHED = 256

const NONE: readonly never[] = []

/** A hashed send that the device has finished, at `time` in microseconds. */
interface FinishedSend {
  readonly request: WorkRequest
  readonly time: number
}

export const createSendChangeDetector = (services: DetectorServices): Detector => {
  const { objects, sources } = services
  const outstanding = outstandingRequests(services)
  /** Hashes of the buffers of outstanding sends, when they were fetched. */
  const hashes = new Map<WorkRequest, number>()
  /** Hashes of the buffers of outstanding READs that no peer has executed yet, when they were fetched. */
  const reads = new Map<WorkRequest, number>()
  /** Hashed sends without a finding, by queue, oldest first. */
  const finished = new Map<number, FinishedSend[]>()
  /** Absent: no preload library reports changes at polls. */
  const writes = sources.postHash && createDeviceWrites(services)
  const checksAll = sources.buffers === 'all'

  const hashOf = ({ device }: KnownObject, request: WorkRequest): number | undefined =>
    sources.digest?.(device, request, checksAll)

  const report = (owner: KnownObject, request: WorkRequest): void => {
    if (services.ask(POSTED_NEXT)?.(owner, request)) return
    const region = objects.region(owner.device, request.elements[0]!.lkey)
    const completion = request.isSignaled ? 'its completion' : 'the completion of a later request'
    services.report('send-buffer-changed', services.occurrenceAtPost(owner, request), {
      text: `the buffer of ${requestText(request)} of ${owner.name} was changed before ${completion} was polled`,
      objects: [owner, region],
    })
  }

  /** Whether a fenced send may send the data of a READ or atomic, so that its buffer may change after the fetch. */
  const waitsForData = (request: WorkRequest): boolean =>
    (request.flags & FENCE) !== 0 &&
    ((outstanding.byQueue.get(request.owner) ?? NONE).some(isRead) ||
      [...outstanding.endedReads(request.owner), ...outstanding.readsInUse(request.owner)].some(
        read => overlapAddress(objects, request, request.length, read, read.length) !== undefined,
      ))

  /** Whether the program has the bytes of a request at the addresses of its elements. */
  const hasProgramAddresses = ({ device }: KnownObject, { elements }: WorkRequest): boolean =>
    elements.every(({ lkey }) => {
      const region = objects.region(device, lkey)
      return region !== undefined && isProgramMemory(region) && region.iova === region.start
    })

  /**
   * Reports if the bytes of a send at its fetch are not those of its post. A fenced send may send the data of a READ
   * that was outstanding at the post.
   */
  const checkSincePost = (owner: KnownObject, request: WorkRequest, hash: number): void => {
    if ((request.flags & FENCE) !== 0) return
    const posted = sources.postHash?.(owner.context, request)
    if (posted === undefined || posted.hash === hash || !hasProgramAddresses(owner, request)) return
    if (posted.isWhole !== checksAll && request.length > HashLog.wholeBytes) return
    hashes.delete(request)
    report(owner, request)
  }

  /** Reports if the bytes of a finished send have changed since the device fetched the send. */
  const checkSinceFetch = (request: WorkRequest): void => {
    const hashAtFetch = hashes.get(request)
    if (hashAtFetch === undefined) return
    hashes.delete(request)
    const owner = objects.find(request.owner)
    const hash = owner && hashOf(owner, request)
    if (hash === undefined || owner === undefined) return
    if (hash !== hashAtFetch) report(owner, request)
    else if (writes !== undefined) keepLatest(finished, request.owner, { request, time: sources.now() }, MAX_FINISHED)
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
    if (writes.hasAnswered(owner, send.time)) return
    if (!writes.mayHaveWritten(send.request, owner, outstanding.byQueue.values())) report(owner, send.request)
  }

  const isWatched = (request: WorkRequest): boolean => {
    const isReading = writes !== undefined && request.opcode === RDMA_READ && request.elements.length > 0
    return (
      (readsBuffer(request) || isReading) &&
      (checksAll || isSample(request.postIndex ?? request.index, HashLog.firstSends, HashLog.interval)) &&
      !waitsForData(request)
    )
  }

  /** A peer executes a READ: its data comes now. */
  const executed = ({ access, rkey, address, qpn }: Access): void => {
    if ((access & ALL) !== REMOTE_READ) return
    for (const [request, before] of reads) {
      const owner = objects.find(request.owner)
      const { remote, destQpn = owner?.attributes.destQpn } = request
      if (owner === undefined || remote?.rkey !== rkey || remote.address !== address || destQpn !== qpn) continue
      reads.delete(request)
      const hash = hashOf(owner, request)
      if (hash === undefined || hash === before || !hasProgramAddresses(owner, request)) return
      const others = [...outstanding.byQueue.values()].map(list => list.filter(other => other !== request))
      if (writes?.mayHaveWritten(request, owner, others) !== false) return
      services.report('send-buffer-changed', services.occurrenceAtPost(owner, request), {
        text: `the buffer of ${requestText(request)} of ${owner.name} was changed before its data came, which overwrites the change`,
        advice:
          'leave the buffer alone until the completion is polled; to give a READ up, move its queue pair to ERR and poll the flushed completion first',
        objects: [owner, objects.region(owner.device, request.elements[0]!.lkey)],
      })
      return
    }
  }

  return {
    on: {
      posted(request) {
        if (!isWatched(request)) return
        const owner = objects.find(request.owner)
        const hash = owner && hashOf(owner, request)
        if (hash === undefined || owner === undefined) return
        if (request.opcode === RDMA_READ) {
          reads.set(request, hash)
          return
        }
        hashes.set(request, hash)
        checkSincePost(owner, request, hash)
      },
      accessed: access => reads.size > 0 && executed(access),
      ended(request) {
        reads.delete(request)
        writes?.ended(request, request.owner)
        checkSinceFetch(request)
      },
      completed(request, { qp }) {
        if (request.opcode < 0) writes?.ended(request, qp)
      },
      receiveLost(request) {
        writes?.ended(request, request.owner)
      },
      queueReset(owner) {
        for (const request of outstanding.byQueue.get(owner) ?? NONE) {
          hashes.delete(request)
          reads.delete(request)
          writes?.ended(request, owner)
        }
        finished.delete(owner)
      },
      sendChanged: ({ index }, owner) => changedAtPoll(owner, index),
    },
  }
}
