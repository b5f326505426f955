/*
 * The detector of races. It passes the requests of devices (ranges.ts) and the event logs of programs to the race
 * engine (races.ts), which reports races (report.ts). It does nothing until a program writes an event log.
 */
import { isSrqClass } from '../../../spec/classes/ids.ts'
import { PostQueue } from '../../../spec/session.ts'
import { SendFlags, WcOpcode, WcStatus } from '../../../spec/work.ts'
import type { Detector, DetectorServices, Topic } from '../detector.ts'
import type { KnownObject } from '../objects.ts'
import { BenignRaces } from '../races/benign.ts'
import { type Posted, RaceFeed } from '../races/feed.ts'
import { Races } from '../races/races.ts'
import { operationOf, RequestRanges } from '../races/ranges.ts'
import { createRaceReport } from '../races/report.ts'
import { AccessKind } from '../races/shadow.ts'

interface RaceSearch {
  /** As `BenignRaces.hasSpace`. */
  hasSpace(session: number, pid: number): boolean
  /** A program writes an event log from now on. */
  begin(): void
}
export const RACES: Topic<RaceSearch> = { name: 'races' }

/** After this many events of devices, the events are joined with the logs. */
const BATCH = 512

/** Whether a completion means that the peer has the message. */
const isReliable = ({ class: name }: KnownObject): boolean => name === 'rc_qp' || name.startsWith('xrc_')

export const createRaceDetector = (services: DetectorServices): Detector | undefined => {
  const { objects, sources } = services
  const { memoryOf, logStack, readLog } = sources
  if (memoryOf === undefined || logStack === undefined || readLog === undefined) return undefined
  let hasBegun = false
  const ranges = new RequestRanges(services, memoryOf)
  const benign = new BenignRaces(services.omit)
  const races = new Races<Posted>(createRaceReport(services, benign, logStack), services.omit)
  const feed = new RaceFeed(races, (context, handle) => objects.byHandle(context, 'cq', handle), services.omit)

  const markLogLost = (context: number): void => {
    const queues: [queue: number, number: number][] = []
    const cqs: number[] = []
    for (const { id, class: name, qpn, handle } of objects.existingIn(context)) {
      if (qpn !== undefined) queues.push([PostQueue.SEND, qpn], [PostQueue.RECEIVE, qpn])
      else if (isSrqClass(name)) queues.push([PostQueue.SHARED, handle])
      else if (name === 'cq') cqs.push(id)
    }
    feed.markLogLost(context, queues, cqs)
  }

  const join = (): void => {
    if (!hasBegun) return
    const { entries, lost, time } = readLog()
    for (const context of lost) markLogLost(context)
    feed.join(entries, time)
  }
  const joinBatch = (): void => {
    if (feed.unjoinedEvents >= BATCH) join()
  }

  services.tell(RACES, {
    hasSpace: (session, pid) => benign.hasSpace(session, pid),
    begin() {
      hasBegun = true
      services.searchesRaces = true
    },
  })

  return {
    on: {
      benign: ({ session, pid, start, end }) => benign.allow(session, pid, start, end),
      logged: join,
      posted(request) {
        const owner = hasBegun ? objects.find(request.owner) : undefined
        if (owner === undefined) return
        const isSend = request.queue === PostQueue.SEND
        const operation = isSend ? operationOf(request) : undefined
        feed.add({
          event: isSend ? 'send' : 'receive',
          request,
          context: owner.context,
          time: request.time,
          kind: isSend ? (operation?.kind ?? 'OTHER') : 'RECEIVE',
          isFenced: isSend && (request.flags & SendFlags.values.FENCE) !== 0,
          ranges: operation === undefined ? [] : ranges.ofSend(owner, request, operation),
          isReliable: !isSend || isReliable(owner),
        })
        joinBatch()
      },
      ended(request) {
        // A signaled send ends with its completion.
        if (hasBegun && !request.isSignaled) feed.add({ event: 'end', request, time: services.sources.now() })
      },
      completed(request, { cq, cqPosition, status, opcode, bytes, qp, message }) {
        const isLost = cqPosition === 0
        if (!hasBegun || isLost) return
        const isFilled = request.queue !== PostQueue.SEND && status === WcStatus.values.SUCCESS
        const owner = isFilled ? objects.find(qp) : undefined
        // A WRITE with immediate data consumes a receive and does not write to its buffer.
        const leavesBuffer = opcode === WcOpcode.values.RECV_RDMA_WITH_IMM
        const filled = owner && {
          qp,
          message,
          ranges: leavesBuffer ? [] : ranges.ofElements(owner.device, request.elements, bytes, AccessKind.RESULT),
        }
        feed.add({ event: 'completion', request, time: services.sources.now(), cq, filled })
        joinBatch()
      },
      queueReset(id) {
        const owner = hasBegun ? objects.find(id) : undefined
        if (owner === undefined) return
        join()
        feed.forget(id, owner.context, owner.isQp ? 'qp' : 'srq', owner.qpn ?? owner.handle)
      },
      called({ class: name, method, refused }, object) {
        if (!hasBegun || refused !== undefined) return
        if (name === 'cq' && method === 'destroy') {
          join()
          feed.forgetCq(object.id)
        }
        // ibv_rereg_mr (`modify`) may give a region other memory.
        if (name === 'mr' && (method === 'destroy' || method === 'modify')) ranges.deregistered(object)
      },
    },
  }
}
