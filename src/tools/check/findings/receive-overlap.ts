/*
 * Buffers that two requests of a queue write to: both are outstanding, or a message overwrites one that was received
 * and not polled.
 */
import type { ProgramEvent } from '../../../spec/check/program-events.ts'
import type { RequestCompletion, WorkRequest } from '../../../spec/check/requests.ts'
import { HashLog } from '../../../spec/context-logs.ts'
import { WcOpcode, WcStatus } from '../../../spec/work.ts'
import { isRead, isSample, overlapAddress, requestText } from '../buffers.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { hex, type KnownObject } from '../objects.ts'
import { keepLatest, outstandingRequests } from '../outstanding.ts'
import { POSTED } from '../reporting.ts'

const { RECV_RDMA_WITH_IMM } = WcOpcode.values
const { SUCCESS } = WcStatus.values

/** The first overlaps of each queue are reported with their own stacks, then one of every HashLog.interval. */
const FIRST_OVERLAPS = 64
/** A request is compared with at most this many earlier requests of its queue, the latest. */
const MAX_COMPARED = 64
/** If a queue has more outstanding requests, new requests are not compared. */
const MAX_OUTSTANDING = 1024

const NONE: readonly never[] = []

/** Whether the device writes to the buffer. */
const writesBuffer = (request: WorkRequest): boolean => request.opcode < 0 || isRead(request)

/** A receive that a message of `bytes` has filled; `cq`, `cqPosition` and `qp` as in RequestCompletion. */
interface FilledReceive {
  readonly request: WorkRequest
  readonly bytes: number
  readonly qp: number
  readonly cq: number
  readonly cqPosition: number
}

/** Overlaps of outstanding requests of a queue. */
interface QueueOverlaps {
  /** The number of the last finding; undefined if it was left out. */
  finding: number | undefined
  /** Number of overlaps so far. */
  count: number
}

export const createOverlapDetector = (services: DetectorServices): Detector => {
  const outstanding = outstandingRequests(services)
  /** Filled receives whose completions were not polled, by queue. */
  const filled = new Map<number, FilledReceive[]>()
  /** By queue. */
  const overlaps = new Map<number, QueueOverlaps>()

  /** `isLost`: the second message has overwritten the first. Otherwise both requests are outstanding. */
  const report = (request: WorkRequest, other: WorkRequest, address: number, isLost: boolean): number | undefined => {
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
  const reportOutstanding = (request: WorkRequest, other: WorkRequest, address: number): void => {
    let known = overlaps.get(request.owner)
    if (known === undefined) {
      known = { finding: undefined, count: 0 }
      overlaps.set(request.owner, known)
    }
    if (known.finding === undefined || isSample(known.count, FIRST_OVERLAPS, HashLog.interval))
      known.finding = report(request, other, address, false)
    else services.repeat(known.finding)
    known.count++
  }

  /** As the program has posted them: the device may see the second READ after the first was polled. */
  const readsOverlap = ({ wrId, address, stack }: ProgramEvent<'readsOverlap'>, owner: KnownObject): void => {
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
  const checkOutstanding = (request: WorkRequest, requests: readonly WorkRequest[]): void => {
    for (let i = Math.max(0, requests.length - MAX_COMPARED); i < requests.length; i++) {
      const other = requests[i]!
      const address = writesBuffer(other)
        ? overlapAddress(services.objects, request, request.length, other, other.length)
        : undefined
      if (address === undefined) continue
      reportOutstanding(request, other, address)
      return
    }
  }

  /** READs and atomics that have ended, whose completions will come, or were not polled. */
  const readsOf = (owner: number): readonly WorkRequest[] => [
    ...outstanding.endedReads(owner).filter(({ isSignaled }) => isSignaled),
    ...outstanding.readsInUse(owner),
  ]

  /** Reports if a message has overwritten an unpolled message. */
  const checkOverwritten = (request: WorkRequest, { bytes, cq, cqPosition, qp }: RequestCompletion): void => {
    for (const other of filled.get(request.owner) ?? NONE) {
      const address = overlapAddress(services.objects, request, bytes, other.request, other.bytes)
      if (address === undefined || outstanding.mayBePolled(other.cq, other.cqPosition)) continue
      report(request, other.request, address, true)
      break
    }
    keepLatest(filled, request.owner, { request, bytes, cq, cqPosition, qp }, MAX_COMPARED)
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

  return {
    on: {
      posted(request) {
        if (!writesBuffer(request)) return
        const requests = outstanding.byQueue.get(request.owner) ?? NONE
        if (requests.length > MAX_OUTSTANDING) return
        checkOutstanding(request, isRead(request) ? [...readsOf(request.owner), ...requests] : requests)
      },
      completed(request, completion) {
        const { status, opcode, bytes } = completion
        // A WRITE with immediate data does not write to the receive's buffer.
        const isFilled = status === SUCCESS && opcode !== RECV_RDMA_WITH_IMM && bytes > 0 && request.elements.length > 0
        if (request.opcode < 0 && isFilled) checkOverwritten(request, completion)
      },
      polled: removePolled,
      queueReset(owner) {
        filled.delete(owner)
        // Receives of an SRQ that the queue pair took.
        removeFilled(({ qp }) => qp === owner)
        overlaps.delete(owner)
      },
      called({ class: name, method, refused }, { id }) {
        if (name === 'cq' && method === 'destroy' && refused === undefined) removePolled(id, Number.POSITIVE_INFINITY)
      },
      readsOverlap,
    },
  }
}
