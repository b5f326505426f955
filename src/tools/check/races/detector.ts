/*
 * The detector of races. It passes the requests of devices and the event logs of programs to the race engine
 * (races.ts), and reports races with the stacks of both posts. It does nothing until a program writes an event log.
 */
import { requestName } from '../../../spec/check/causes.ts'
import type { Stack } from '../../../spec/check/finding.ts'
import type { RequestElement, WorkRequest } from '../../../spec/check/requests.ts'
import { isSrqClass } from '../../../spec/classes/ids.ts'
import { PostQueue } from '../../../spec/session.ts'
import { ATOMIC_BYTES, SendFlags, SendKind, sendOperations, WcOpcode, WcStatus, WrOpcode } from '../../../spec/work.ts'
import type { Detector, DetectorServices, Topic } from '../detector.ts'
import { hex, type KnownObject, moment } from '../objects.ts'
import { POSTED } from '../reporting.ts'
import { BenignRaces } from './benign.ts'
import { type Posted, RaceFeed } from './feed.ts'
import type { RequestKind } from './order.ts'
import { type Race, Races, type Request } from './races.ts'
import { type Access, AccessKind, type Range, type Region } from './shadow.ts'

interface RaceSearch {
  /** As `BenignRaces.hasSpace`. */
  hasSpace(session: number, pid: number): boolean
  /** A program writes an event log from now on. */
  begin(): void
}
export const RACES: Topic<RaceSearch> = { name: 'races' }

/** After this many events of devices, the events are joined with the logs. */
const BATCH = 512

/** What a send opcode does to memory. */
interface Operation {
  readonly kind: RequestKind
  /** AccessKind of the access to memory of the poster, and to memory of the peer (unused for a SEND). */
  readonly localAccess: number
  readonly remoteAccess: number
}

/** By SendKind. Accesses of other requests are not checked. */
const operations: ReadonlyMap<number | undefined, Operation> = new Map([
  [SendKind.WRITE, { kind: 'WRITE', localAccess: AccessKind.SOURCE, remoteAccess: AccessKind.WRITE }],
  [SendKind.SEND, { kind: 'SEND', localAccess: AccessKind.SOURCE, remoteAccess: AccessKind.READ }],
  [SendKind.READ, { kind: 'READ', localAccess: AccessKind.RESULT, remoteAccess: AccessKind.READ }],
  [SendKind.ATOMIC, { kind: 'ATOMIC', localAccess: AccessKind.RESULT, remoteAccess: AccessKind.ATOMIC }],
  [SendKind.ATOMIC_WRITE, { kind: 'ATOMIC', localAccess: AccessKind.SOURCE, remoteAccess: AccessKind.ATOMIC }],
])

/** By AccessKind. */
const accessWords: Readonly<Record<number, string>> = {
  [AccessKind.SOURCE]: 'reads',
  [AccessKind.RESULT]: 'writes',
  [AccessKind.READ]: 'reads',
  [AccessKind.WRITE]: 'writes',
  [AccessKind.ATOMIC]: 'changes',
}

interface KnownRegion extends Region {
  /** Undefined if the checker does not know the region. */
  readonly object: KnownObject | undefined
}

const { ATOMIC_FETCH_AND_ADD } = WrOpcode.values
const NO_RANGES: readonly never[] = []
/** Appends a range. Array literals, because an array that grows by `push` reserves space for 17 elements. */
const withRange = (ranges: readonly Range[], range: Range | undefined): readonly Range[] => {
  if (range === undefined) return ranges
  if (ranges.length === 0) return [range]
  return ranges.length === 1 ? [ranges[0]!, range] : [...ranges, range]
}

/** Whether a completion means that the peer has the message. */
const isReliable = ({ class: name }: KnownObject): boolean => name === 'rc_qp' || name.startsWith('xrc_')

const nameOf = ({ opcode }: WorkRequest): string => (opcode < 0 ? 'receive' : requestName(opcode))

export const createRaceDetector = (services: DetectorServices): Detector | undefined => {
  const { objects, sources } = services
  const { memoryOf, logStack, readLog } = sources
  if (memoryOf === undefined || logStack === undefined || readLog === undefined) return undefined
  let hasBegun = false
  /** Registered regions by device, then lkey. */
  const regions = new Map<number, Map<number, KnownRegion>>()

  const regionOf = (device: number, lkey: number): KnownRegion => {
    let ofDevice = regions.get(device)
    if (ofDevice === undefined) {
      ofDevice = new Map()
      regions.set(device, ofDevice)
    }
    let region = ofDevice.get(lkey)
    if (region === undefined) {
      region = { isDeregistered: false, object: objects.region(device, lkey) }
      ofDevice.set(lkey, region)
    }
    return region
  }

  /** The memory that a request accesses with a key; undefined: an unknown key, or no bytes. */
  const rangeOf = (device: number, key: number, address: number, length: number, kind: number): Range | undefined => {
    const memory = length === 0 ? undefined : memoryOf(device, key)
    if (memory === undefined) return undefined
    const start = address + memory.shift
    return { space: memory.space, start, end: start + length, kind, region: regionOf(device, memory.region) }
  }

  /** The memory of the first `bytes` bytes of a scatter/gather list. */
  const elementRanges = (
    device: number,
    elements: readonly RequestElement[],
    bytes: number,
    kind: number,
  ): readonly Range[] => {
    let ranges: readonly Range[] = NO_RANGES
    let remaining = bytes
    for (const { address, length, lkey } of elements) {
      const used = Math.min(length, remaining)
      remaining -= used
      ranges = withRange(ranges, rangeOf(device, lkey, address, used, kind))
    }
    return ranges
  }

  /** The memory that a send accesses: of the poster, and of the peer if its device is in this process. */
  const sendRanges = (
    qp: KnownObject,
    { elements, remote, length }: WorkRequest,
    operation: Operation,
  ): readonly Range[] => {
    const bytes = operation.kind === 'ATOMIC' ? ATOMIC_BYTES : length
    const ranges = elementRanges(qp.device, elements, bytes, operation.localAccess)
    const peerDevice = remote && qp.attributes.address && services.deviceWithGid(qp.attributes.address.dgid)
    const remoteRange =
      remote && peerDevice !== undefined
        ? rangeOf(peerDevice, remote.rkey, remote.address, remote.length, operation.remoteAccess)
        : undefined
    return withRange(ranges, remoteRange)
  }

  // ---- findings ----

  const benign = new BenignRaces(services.omit)

  const ownerOf = ({ info }: Request<Posted>): KnownObject | undefined => objects.find(info.request.owner)

  const accessText = (access: Access<Request<Posted>>): string => {
    const {
      request,
      range: { start, end, kind, region },
    } = access
    const owner = ownerOf(request)
    const { program } = (region as KnownRegion).object ?? {}
    const memory = program === undefined ? '' : ` of process ${program.pid} (${program.command})`
    const subject = `${nameOf(request.info.request)} of ${owner?.nameWithProgram ?? 'a queue pair that is gone'}`
    return `${subject}, ${request.info.request.numbered ?? 'wr_id'} ${request.info.request.wrId}, ${accessWords[kind]} ${end - start} bytes at ${hex(start)}${memory}`
  }

  /** Why the two accesses are a race. */
  const reasons: Readonly<Record<Race<Posted>['id'], string>> = {
    race: 'nothing orders them',
    'read-then-write-unfenced': 'the second has no fence, and the first was not known to be over',
    'atomic-mixed-with-write': 'one is atomic, the other is not, and nothing orders them',
    'buffer-reused': 'the first was not known to be over',
    'counter-shared': 'each is behind a WRITE of its queue, and the value does not say which of these has landed',
  }

  const stackOf = ({ info: { process, stack } }: Request<Posted>): Stack => logStack(process, stack)

  const report = ({ id, isProven, first, second, start, end }: Race<Posted>): void => {
    const [earlier, later] = [first.request, second.request]
    const owner = ownerOf(later)
    const program = (second.range.region as KnownRegion).object?.program
    const isCounter = id === 'counter-shared'
    if (isCounter && [earlier, later].some(({ info }) => info.request.opcode !== ATOMIC_FETCH_AND_ADD)) return
    if (owner === undefined || (program !== undefined && benign.allows(program.pid, start, end))) return
    const names = `${nameOf(later.info.request)} of ${owner.name} and ${nameOf(earlier.info.request)} of ${ownerOf(earlier)?.name ?? 'a queue pair that is gone'}`
    services.report(
      id,
      {
        ...services.occurrenceAt(owner, stackOf(later)),
        ...POSTED,
        action: `posted the ${nameOf(later.info.request)}`,
      },
      {
        text: `${names} access the same ${end - start} bytes: ${reasons[id]}`,
        ...(!isProven && { severity: 'warning' as const }),
        details: [
          `first:  ${accessText(first)}`,
          `second: ${accessText(second)}`,
          isProven
            ? 'one thread posted both and did not wait between, and no thread had polled the completion of the first'
            : 'the first may have been over, but nothing that userdma sees says so to the thread that posted the second',
        ],
        moments: [moment(`posted the ${nameOf(earlier.info.request)}`, earlier.postTime, stackOf(earlier))],
        objects: [
          owner,
          ownerOf(earlier),
          (second.range.region as KnownRegion).object,
          (first.range.region as KnownRegion).object,
        ],
      },
    )
  }

  const races = new Races<Posted>(report, services.omit)
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
        const operation = isSend ? operations.get(sendOperations[request.opcode]?.kind) : undefined
        feed.add({
          event: isSend ? 'send' : 'receive',
          request,
          context: owner.context,
          time: request.time,
          kind: isSend ? (operation?.kind ?? 'OTHER') : 'RECEIVE',
          isFenced: isSend && (request.flags & SendFlags.values.FENCE) !== 0,
          ranges: operation === undefined ? [] : sendRanges(owner, request, operation),
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
          ranges: leavesBuffer ? [] : elementRanges(owner.device, request.elements, bytes, AccessKind.RESULT),
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
        if (name !== 'mr' || (method !== 'destroy' && method !== 'modify')) return
        const { lkey } = object
        const ofDevice = regions.get(object.device)
        if (lkey === undefined || ofDevice === undefined) return
        const region = ofDevice.get(lkey)
        if (region !== undefined) region.isDeregistered = true
        ofDevice.delete(lkey)
      },
    },
  }
}
