/*
 * Findings about memory of unpolled requests: the memory is freed, its stack frame returns, or a fork copies it. The
 * preload library reports all such events (`PreloadEvents` in spec/preload-events.ts) and does not know how far the
 * device is. The detector looks up the request. If the request is neither outstanding nor unpolled, there is no
 * finding. Deregistered memory is left out: finding `region-in-use`.
 */

import type { ProgramEvent } from '../../../spec/check/program-events.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { PostQueue } from '../../../spec/session.ts'
import { requestText } from '../buffers.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { type KnownObject, moment } from '../objects.ts'

/** Maximum unexpired reports about sends that the device has not fetched. */
const MAX_AWAITED = 64
/** After this time, a report about a send that was not fetched is dropped. */
const AWAITED_MICROSECONDS = 1_000_000

/** The requests of a queue pair or SRQ. */
interface QueueRequests {
  /** Unpolled requests. The value: whether the device has finished the request. */
  readonly requests: Map<WorkRequest, boolean>
  /** Number of sends that the device has fetched since creation or RESET, of those that functions of verbs post. */
  fetched: number
}

/** A completed request; `qp` and `cqPosition` as in RequestCompletion. */
interface UnpolledRequest {
  readonly request: WorkRequest
  readonly qp: number
  readonly cqPosition: number
}

type Told = ProgramEvent<'bufferFreed' | 'frameReturned' | 'forkedOutstanding'>

/** A report about a send that the device has not fetched; `until` in microseconds. */
interface AwaitingReport {
  readonly event: Told
  readonly owner: number
  readonly until: number
}

const elementAt = ({ elements }: WorkRequest, wanted: number) =>
  elements.find(({ address, length }) => wanted >= address && wanted < address + length)

export const createLifetimeDetector = (services: DetectorServices): Detector | undefined => {
  const { isCopiedByFork } = services.sources
  if (isCopiedByFork === undefined) return undefined
  /** By queue (WorkRequest.owner). */
  const queues = new Map<number, QueueRequests>()
  /** By CQ, in the order of completions. */
  const unpolled = new Map<number, UnpolledRequest[]>()
  const awaiting: AwaitingReport[] = []

  const queueOf = (owner: number): QueueRequests => {
    let queue = queues.get(owner)
    if (queue === undefined) {
      queue = { requests: new Map(), fetched: 0 }
      queues.set(owner, queue)
    }
    return queue
  }

  const report = (event: Told, owner: KnownObject, request: WorkRequest, isFinished: boolean): void => {
    const lkey = elementAt(request, event.address)?.lkey
    const region = lkey === undefined ? undefined : services.objects.region(owner.device, lkey)
    // Events have addresses of the program. Requests have the same addresses only if iova is the start.
    if (region === undefined || region.destruction !== undefined || region.iova !== region.start) return
    const { more, stack, program } = event
    const name = `${requestText(request)} of ${owner.name}`
    const others = more === 0 ? '' : `, and of ${more} more`
    const when = isFinished ? 'before its completion was polled' : 'while it was outstanding'
    const objects = [region, owner]
    if (event.event === 'bufferFreed')
      services.report('buffer-freed', services.occurrenceAt(owner, stack, 'freed'), {
        text: `the memory of ${name}${others} was freed ${when}`,
        // The device no longer uses the memory.
        ...(isFinished && { severity: 'warning' as const }),
        moments: [services.postMoment(request)],
        objects,
      })
    else if (event.event === 'frameReturned')
      services.report('frame-returned', services.occurrenceAtPost(owner, request), {
        text: `the stack frame with the memory of ${name}${others} returned ${when}`,
        ...(isFinished && { severity: 'warning' as const }),
        moments: [moment('noticed', services.sources.now(), stack)],
        objects,
      })
    // If it is unknown whether the child gets a copy, it is assumed.
    else if (program !== undefined && isCopiedByFork(program, event.address) !== false)
      services.report('fork-outstanding', services.occurrenceAt(owner, stack, 'forked'), {
        text: isFinished
          ? `process ${program.pid} forked before the completion of ${name} was polled`
          : `process ${program.pid} forked while ${name} was outstanding`,
        moments: [services.postMoment(request)],
        objects,
      })
  }

  /** Removes expired reports. */
  const dropExpired = (now: number): void => {
    for (let i = awaiting.length - 1; i >= 0; i--) if (awaiting[i]!.until <= now) awaiting.splice(i, 1)
  }

  const take = (event: Told, owner: KnownObject): void => {
    const { queue, wrId, index, address } = event
    const { requests, fetched } = queueOf(owner.id)
    // A request with a higher index was posted after the mistake: the report may be late.
    for (const [request, isFinished] of requests)
      if (request.wrId === wrId && (request.postIndex ?? 0) <= index && elementAt(request, address) !== undefined) {
        report(event, owner, request, isFinished)
        return
      }
    if (queue !== PostQueue.SEND || index < fetched) return
    const now = services.sources.now()
    dropExpired(now)
    if (awaiting.length < MAX_AWAITED) awaiting.push({ event, owner: owner.id, until: now + AWAITED_MICROSECONDS })
  }

  return {
    on: {
      posted(request) {
        const queue = queueOf(request.owner)
        queue.requests.set(request, false)
        if (request.queue !== PostQueue.SEND) return
        const { postIndex } = request
        if (postIndex === undefined) return
        queue.fetched = postIndex + 1
        if (awaiting.length === 0) return
        dropExpired(services.sources.now())
        const owner = services.objects.find(request.owner)
        for (let i = awaiting.length - 1; i >= 0; i--) {
          const { event, owner: id } = awaiting[i]!
          if (id !== request.owner || event.index !== postIndex || event.wrId !== request.wrId) continue
          awaiting.splice(i, 1)
          if (owner !== undefined) report(event, owner, request, false)
        }
      },
      ended(request) {
        const { requests } = queueOf(request.owner)
        if (request.isSignaled) requests.set(request, true)
        else requests.delete(request)
      },
      completed(request, { cq, cqPosition, qp }) {
        const { requests } = queueOf(request.owner)
        if (!requests.has(request)) return
        // The CQ was full: nobody can poll the completion.
        if (cqPosition === 0) {
          requests.delete(request)
          return
        }
        requests.set(request, true)
        const completed = unpolled.get(cq)
        if (completed === undefined) unpolled.set(cq, [{ request, qp, cqPosition }])
        else completed.push({ request, qp, cqPosition })
      },
      receiveLost(request) {
        queues.get(request.owner)?.requests.delete(request)
      },
      polled(cq, polled) {
        const completed = unpolled.get(cq)
        if (completed === undefined) return
        let removed = 0
        for (; removed < completed.length && completed[removed]!.cqPosition <= polled; removed++) {
          const { request } = completed[removed]!
          queues.get(request.owner)?.requests.delete(request)
        }
        if (removed > 0) completed.splice(0, removed)
      },
      queueReset(owner) {
        queues.delete(owner)
        // Receives of an SRQ that the queue pair took.
        for (const completed of unpolled.values())
          for (const { request, qp } of completed) if (qp === owner) queues.get(request.owner)?.requests.delete(request)
        for (let i = awaiting.length - 1; i >= 0; i--) if (awaiting[i]!.owner === owner) awaiting.splice(i, 1)
      },
      called({ class: name, method, refused }, { id }) {
        if (name !== 'cq' || method !== 'destroy' || refused !== undefined) return
        // Nobody can poll these completions now. The requests of an SRQ would stay, because it may outlive the CQ.
        for (const { request } of unpolled.get(id) ?? []) queues.get(request.owner)?.requests.delete(request)
        unpolled.delete(id)
      },
      bufferFreed: take,
      frameReturned: take,
      forkedOutstanding: take,
    },
  }
}
