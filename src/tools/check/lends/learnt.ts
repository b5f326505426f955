/*
 * Lent memory as programs tell it their peers (`advertised` of spec/check/program-events.ts), without declarations. An
 * advertisement lends bytes to the peer of one queue pair, for one use of each byte. Told is only what the events prove:
 * - a WRITE that was under way, or that nothing can have ordered, when other bytes were written or sent there;
 * - a READ that gets other bytes than its advertisement, after another one of the same bytes;
 * - bytes that were told again with another content, though the first peer neither accessed them nor answered.
 */
import type { Moment, Stack } from '../../../spec/check/finding.ts'
import type { ProgramEvent } from '../../../spec/check/program-events.ts'
import type { RequestCompletion, WorkRequest } from '../../../spec/check/requests.ts'
import { durationText } from '../../../spec/duration.ts'
import { AccessFlags } from '../../../spec/enums.ts'
import type { LentBytes } from '../../../spec/lends.ts'
import { PostQueue } from '../../../spec/session.ts'
import { isOfDriver, returnsData, SendKind, sendOperations, WrOpcode } from '../../../spec/work.ts'
import { requestText } from '../buffers.ts'
import type { Detector, DetectorServices, Topic } from '../detector.ts'
import { hex, type KnownObject, moment } from '../objects.ts'
import { type Interval, Intervals } from './intervals.ts'
import { LENDS } from './lends.ts'
import { rowOf } from './text.ts'

/** Maximum advertisements that are remembered, the latest. */
export const MAX_ADVERTISED = 2 ** 15
/** Maximum advertisements of one byte, the latest. */
const MAX_OVERLAPPING = 32
/** Maximum outstanding requests, and those whose queue was destroyed, the latest. */
const MAX_REQUESTS = 2 ** 14
const MAX_GONE = 64
/** Maximum WRITEs of an advertisement that are remembered, the latest. */
const MAX_WRITTEN = 16
/** Longer ones are not compared. */
const MAX_COMPARED = 0x1_0000
/** Words of up to 8 bytes may be written by anybody at any time. */
const WORD = 8

const { REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values
const { BIND_MW } = WrOpcode.values

interface Region {
  readonly object: KnownObject
  /** Address in the process minus address in requests. */
  readonly shift: number
}

/** An advertisement. */
interface Told {
  readonly event: ProgramEvent<'advertised'>
  readonly qpn: number
  /** Of a datagram: the queue pair that gets it. */
  readonly receiver: KnownObject | undefined
  readonly region: KnownObject
  /** Its place among those of the process. */
  interval: Interval<Told> | undefined
  /** Of the bytes; undefined: unknown, or a peer may have changed them. */
  hash: number | undefined
  /** How many bytes were accessed. */
  used: number
  /** What was written for it, the latest. */
  readonly written: Written[]
}

/** An access of a peer to a region. `address`: in requests; `qpn`: the responder's. */
interface Access {
  readonly device: number
  readonly rkey: number
  readonly address: number
  readonly length: number
  readonly isRead: boolean
  readonly qpn: number
}

interface Written {
  readonly time: number
  readonly start: number
  readonly end: number
  /** Undefined: unknown. */
  readonly request: WorkRequest | undefined
}

/** How many of its bytes are among those from `start` to before `end`. */
const common = (written: Written, start: number, end: number): number =>
  Math.min(written.end, end) - Math.max(written.start, start)

const isMessage = ({ opcode }: WorkRequest): boolean => {
  const kind = sendOperations[opcode]?.kind
  return kind === SendKind.SEND || kind === SendKind.WRITE
}

interface Learnt {
  /** Whether a peer was told of any of these bytes of a process. */
  isLent(pid: number | undefined, start: number, end: number): boolean
  /** The latest message that told a peer of any of these bytes of a process. */
  momentsOf(pid: number | undefined, start: number, end: number): Moment[]
  /** What peers were told of and have not accessed wholly, nor answered. */
  rows(): LentBytes[]
}

export const LEARNT: Topic<Learnt> = { name: 'what peers were told of' }

export const createLearntDetector = (services: DetectorServices): Detector | undefined => {
  const { objects, sources } = services
  if ((sources.lent ?? 'learnt') !== 'learnt') return undefined
  /** By process, by its addresses. */
  const trees = new Map<number | undefined, Intervals<Told>>()
  /** The oldest first. */
  const all = new Set<Told>()
  /** By device, then key. */
  const regions = new Map<number, Map<number, Region | undefined>>()
  const outstanding = new Set<WorkRequest>()
  /** Of these, by the keys of the memory at the peer, and of their own memory that they send. */
  const byRkey = new Map<number, Set<WorkRequest>>()
  const byLkey = new Map<number, Set<WorkRequest>>()
  const gone: WorkRequest[] = []
  /** When a queue pair, and a process, got a message last. */
  const answers = new Map<number, number>()
  const heard = new Map<number | undefined, number>()

  const regionOf = (device: number, key: number): Region | undefined => {
    let ofDevice = regions.get(device)
    if (ofDevice === undefined) {
      ofDevice = new Map()
      regions.set(device, ofDevice)
    }
    if (ofDevice.has(key)) return ofDevice.get(key)
    const found = regionWith(device, key) ?? regionOfWindow(device, key)
    ofDevice.set(key, found)
    return found
  }

  const regionWith = (device: number, key: number): Region | undefined => {
    const object = objects.region(device, key)
    const { start, iova } = object ?? {}
    return object?.class !== 'mr' || start === undefined || iova === undefined
      ? undefined
      : { object, shift: start - iova }
  }

  const regionOfWindow = (device: number, key: number): Region | undefined => {
    const memory = sources.memoryOf?.(device, key)
    const region = memory && memory.region !== key ? regionWith(device, memory.region) : undefined
    return memory && region && { object: region.object, shift: memory.shift }
  }

  const forget = (told: Told): void => {
    all.delete(told)
    const { pid } = told.event
    const tree = trees.get(pid)
    if (told.interval !== undefined) tree?.remove(told.interval)
    if (tree?.size === 0) trees.delete(pid)
  }

  const forgetIf = (isOver: (told: Told) => boolean): void => {
    for (const told of all) if (isOver(told)) forget(told)
  }

  const hashOf = ({ device, lkey, iova, start: first, destruction }: KnownObject, start: number, end: number) =>
    lkey === undefined ||
    iova === undefined ||
    first === undefined ||
    destruction !== undefined ||
    end - start > MAX_COMPARED
      ? undefined
      : sources.rangeHash?.(device, lkey, start - first + iova, end - start)

  const isAnswered = ({ event: { qp, time } }: Told): boolean => (answers.get(qp) ?? Number.NEGATIVE_INFINITY) > time

  // ---- requests ----

  /** The request of a peer that is accessing these bytes; undefined: unknown. */
  const requestOf = ({ device, rkey, address, length, qpn }: Access): WorkRequest | undefined => {
    const isIt = (request: WorkRequest): boolean => {
      const { remote } = request
      if (remote?.rkey !== rkey || remote.address > address || address + length > remote.address + remote.length)
        return false
      const owner = objects.find(request.owner)
      const destQpn = request.destQpn ?? owner?.attributes.destQpn
      return (
        (destQpn === undefined || destQpn === qpn) &&
        (owner === undefined || services.targetDeviceOf(request, owner) === device)
      )
    }
    for (const request of byRkey.get(rkey) ?? []) if (isIt(request)) return request
    return gone.findLast(isIt)
  }

  const programOf = ({ owner }: WorkRequest): number | undefined => objects.find(owner)?.program?.pid

  /** A send of the owner that has these bytes, and that the device saw after `request`. */
  const sendOf = (
    { object, shift }: Region,
    start: number,
    end: number,
    after: WorkRequest,
  ): WorkRequest | undefined => {
    for (const send of byLkey.get(object.lkey ?? 0) ?? []) {
      if (send.id <= after.id) continue
      const owner = objects.find(send.owner)
      if (owner?.program?.pid !== object.program?.pid || owner?.device !== object.device) continue
      const isSame = send.elements.some(
        ({ lkey, address, length }) =>
          lkey === object.lkey && Math.min(address + shift + length, end) - Math.max(address + shift, start) > WORD,
      )
      if (isSame) return send
    }
    return undefined
  }

  // ---- findings ----

  const messageText = ({ event: { message } }: Told): string =>
    'call' in message ? `the private data of ${message.call}` : requestText(message)

  const messageStack = ({ event: { message, qp } }: Told): Stack => {
    if ('call' in message) return message.stack
    const owner = objects.find(qp)
    return owner ? services.postStackIn(owner.context, message) : []
  }

  const messageMoment = (told: Told, action: string): Moment => {
    return moment(`${action} (${messageText(told)})`, told.event.time, messageStack(told))
  }

  const ago = (time: number): string => `${durationText(Math.max(0, sources.now() - time))} before`

  const bytesText = ({ region, event: { start, end } }: Told): string =>
    `${end - start} bytes at ${hex(start)} of ${region.name}`

  const reporting = (request: WorkRequest | undefined, region: KnownObject) => {
    const owner = request && objects.find(request.owner)
    return {
      owner,
      occurrence:
        request !== undefined && owner !== undefined
          ? services.occurrenceAtPost(owner, request)
          : services.occurrenceAt(region, [], 'accessed'),
    }
  }

  const accessName = (
    request: WorkRequest | undefined,
    owner: KnownObject | undefined,
    word: string,
    qpn: number,
  ): string => {
    if (request === undefined) return `a ${word} of the peer of QP ${hex(qpn)}`
    return owner === undefined
      ? `${requestText(request)} of QP ${hex(request.number)}, which its program has destroyed,`
      : `${requestText(request)} of ${owner.nameWithProgram}`
  }

  const reportLateWrite = (
    told: Told,
    request: WorkRequest | undefined,
    why: string,
    moments: readonly Moment[],
  ): void => {
    const { region, qpn, event } = told
    const { owner, occurrence } = reporting(request, region)
    services.report('late-write', occurrence, {
      text: `${accessName(request, owner, 'WRITE', qpn)} lands in ${bytesText(told)}, which ${messageText(told)} told its peer ${ago(event.time)}: ${why}`,
      moments: [messageMoment(told, 'told'), ...moments],
      objects: [region, owner, objects.find(event.qp)],
    })
  }

  /** Why a WRITE comes too late, with what came between; undefined: nothing proves it. */
  const checkWrite = (told: Told, region: Region, late: Written, newer: readonly Told[]): void => {
    const { start, end, request } = late
    for (const other of newer) {
      const written = other.written.findLast(one => common(one, start, end) > WORD)
      if (written === undefined) continue
      const wasUnderWay = request !== undefined && request.time < written.time
      if (!wasUnderWay && !isUnordered(told, other, late, written.time)) continue
      reportLateWrite(
        told,
        request,
        `${messageText(other)} has told the same bytes to the peer of QP ${hex(other.qpn)} since, which wrote them ${ago(written.time)}`,
        [
          messageMoment(other, 'told again'),
          ...(written.request === undefined ? [] : [services.postMoment(written.request, 'posted the other WRITE')]),
          moment('the other WRITE landed', written.time, []),
        ],
      )
      return
    }
    const send = request && sendOf(region, start, end, request)
    if (send === undefined) return
    reportLateWrite(told, request, `the program sends these bytes by ${requestText(send)}, which is outstanding`, [
      services.postMoment(send, 'posted the send of these bytes'),
    ])
  }

  /**
   * Both have written the same bytes wholly, for the first time, and since the WRITE of the second the program of the
   * first has got no message that may tell of it.
   */
  const isUnordered = (told: Told, other: Told, { start, end, request }: Written, since: number): boolean => {
    const isWhole = ({ event }: Told): boolean => event.start === start && event.end === end
    if (told.used > 0 || other.used !== end - start || !isWhole(told) || !isWhole(other)) return false
    const owner = request && objects.find(request.owner)
    return owner !== undefined && (heard.get(owner.program?.pid) ?? Number.NEGATIVE_INFINITY) <= since
  }

  const checkRead = (told: Told, request: WorkRequest | undefined, newer: readonly Told[]): void => {
    const [other] = newer
    if (other === undefined || told.hash === undefined) return
    const { region, event, qpn } = told
    const hash = hashOf(region, event.start, event.end)
    if (hash === undefined || hash === told.hash) return
    const { owner, occurrence } = reporting(request, region)
    services.report('late-read', occurrence, {
      text: `${accessName(request, owner, 'READ', qpn)} reads ${bytesText(told)}, which are not those that ${messageText(told)} told its peer ${ago(event.time)}: ${messageText(other)} has told the same bytes since, ${ago(other.event.time)}`,
      moments: [messageMoment(told, 'told'), messageMoment(other, 'told again')],
      objects: [region, owner, objects.find(event.qp)],
    })
  }

  /** The same bytes are told again: whether the first peer still may come. */
  const checkAgain = (before: Told, again: Told): void => {
    if (before.used > 0 || isAnswered(before) || before.hash === undefined || before.hash === again.hash) return
    // A peer that refuses a connection has answered.
    if (again.hash === undefined || 'call' in before.event.message) return
    const { region, event } = again
    const owner = objects.find(event.qp)
    if (owner === undefined) return
    const occurrence = services.occurrenceAt(region, messageStack(again), 'told again')
    services.report('lent-twice', occurrence, {
      text: `${messageText(again)} of ${owner.name} tells of ${bytesText(again)}, whose content was changed since ${messageText(before)} told of them ${ago(before.event.time)}, and that peer has neither accessed them nor answered`,
      moments: [messageMoment(before, 'told')],
      objects: [region, owner],
    })
  }

  const add = (
    event: ProgramEvent<'advertised'>,
    region: KnownObject,
    qpn: number,
    receiver: KnownObject | undefined,
  ): void => {
    const { pid, start, end, time, isReadable } = event
    let tree = trees.get(pid)
    if (tree === undefined) {
      tree = new Intervals()
      trees.set(pid, tree)
    }
    const known = tree.overlapping(start, end)
    const told: Told = {
      event,
      qpn,
      receiver,
      region,
      used: 0,
      written: [],
      hash: isReadable ? hashOf(region, start, end) : undefined,
      interval: undefined,
    }
    const same = known.filter(one => one.event.start === start && one.event.end === end)
    const [first, ...others] = same
    const before = first && others.reduce((a, b) => (b.event.time >= a.event.time ? b : a), first)
    if (before !== undefined) checkAgain(before, told)
    // The peer of this queue pair goes on.
    const over = known.filter(
      one => isOfPeer(one, told) && (one.used > 0 || isAnswered(one) || one.event.time === time),
    )
    const place = over.find(one => same.includes(one))
    told.interval = place?.interval === undefined ? tree.add(start, end, told) : tree.replace(place.interval, told)
    for (const one of over)
      if (one === place) all.delete(one)
      else forget(one)
    if (known.length >= MAX_OVERLAPPING) {
      const oldest = known.reduce((a, b) => (a.event.time <= b.event.time ? a : b))
      if (all.has(oldest)) forget(oldest)
      services.omit('advertised', 1)
    }
    all.add(told)
    if (all.size <= MAX_ADVERTISED) return
    const [oldest] = all
    forget(oldest!)
    services.omit('advertised', 1)
  }

  const isOfPeer = (one: Told, other: Told): boolean =>
    one.event.qp === other.event.qp && one.receiver === other.receiver

  /** Whether it is known which queue pair accesses the bytes, not only which program. */
  const isExact = ({ receiver }: Told): boolean => receiver?.class !== 'ud_qp'

  const peerOf = ({ receiver, event: { qp } }: Told): KnownObject | undefined => {
    const owner = objects.find(qp)
    return receiver ?? (owner && services.peerOf(owner))
  }

  const peerPid = (told: Told): number | undefined => peerOf(told)?.program?.pid

  /** Whether the accesses of the two are told apart. */
  const isOther = (one: Told, other: Told): boolean => {
    if (isExact(one) && isExact(other)) return !isOfPeer(one, other)
    const [pid, otherPid] = [peerPid(one), peerPid(other)]
    return pid !== undefined && otherPid !== undefined && pid !== otherPid
  }

  /** Whether an access of `requester`, undefined if it is unknown, may be for this. */
  const isFor = (told: Told, { device, qpn }: Access, requester: KnownObject | undefined): boolean => {
    const { receiver, event } = told
    if (event.device !== device) return false
    if (receiver === undefined) return told.qpn === qpn
    return isExact(told)
      ? requester === receiver
      : requester?.program !== undefined && requester.program.pid === receiver.program?.pid
  }

  /** A device may tell of an access several times, for its rights and its packets: only the first one counts. */
  const judged = new WeakSet<WorkRequest>()
  let last: Access | undefined

  const isTold = (access: Access, request: WorkRequest | undefined): boolean => {
    const { rkey, address, length, qpn } = access
    const isSame = last?.qpn === qpn && last.rkey === rkey && last.address === address && last.length === length
    last = access
    if (request === undefined) return isSame
    if (judged.has(request)) return true
    judged.add(request)
    return false
  }

  const use = (region: Region, access: Access): void => {
    const { address, length, isRead } = access
    const request = requestOf(access)
    if (isTold(access, request)) return
    const requester = request && objects.find(request.owner)
    const start = address + region.shift
    const end = start + length
    const overlapping = trees.get(region.object.program?.pid)?.overlapping(start, end) ?? []
    let told: Told | undefined
    for (const one of overlapping) {
      const { event, used } = one
      const isIt = event.start <= start && end <= event.end && isFor(one, access, requester)
      if (isIt && used < event.end - event.start && (told === undefined || event.time < told.event.time)) told = one
    }
    if (told !== undefined) {
      const { event } = told
      const newer = overlapping.filter(one => one.event.time > event.time)
      if (isRead) checkRead(told, request, newer)
      else if (length > WORD) {
        const written = { time: sources.now(), start, end, request }
        const late = told
        checkWrite(
          told,
          region,
          written,
          newer.filter(one => isOther(one, late)),
        )
        told.written.push(written)
        if (told.written.length > MAX_WRITTEN) told.written.shift()
      }
      told.used += length
    }
    if (isRead) return
    for (const one of overlapping) one.hash = undefined
    heard.set(region.object.program?.pid, sources.now())
  }

  const put = (index: Map<number, Set<WorkRequest>>, key: number, request: WorkRequest): void => {
    const known = index.get(key)
    if (known === undefined) index.set(key, new Set([request]))
    else known.add(request)
  }
  const take = (index: Map<number, Set<WorkRequest>>, key: number, request: WorkRequest): void => {
    const known = index.get(key)
    if (known?.delete(request) && known.size === 0) index.delete(key)
  }

  const begin = (request: WorkRequest): void => {
    const { remote, elements } = request
    outstanding.add(request)
    if (remote !== undefined) put(byRkey, remote.rkey, request)
    if (isMessage(request)) for (const { lkey } of elements) put(byLkey, lkey, request)
  }

  const end = (request: WorkRequest): void => {
    if (!outstanding.delete(request)) return
    const { remote, elements, opcode } = request
    if (remote !== undefined) take(byRkey, remote.rkey, request)
    for (const { lkey } of elements) take(byLkey, lkey, request)
    if (returnsData(opcode)) heard.set(programOf(request), sources.now())
  }

  services.tell(LEARNT, {
    isLent: (pid, start, end) => (trees.get(pid)?.overlapping(start, end, 1).length ?? 0) > 0,
    momentsOf: (pid, start, end) =>
      (trees.get(pid)?.overlapping(start, end) ?? [])
        .sort((a, b) => b.event.time - a.event.time)
        .slice(0, 1)
        .map(told => messageMoment(told, 'told a peer of it')),
    rows: () =>
      [...all].flatMap((told): LentBytes[] => {
        const { event, region, qpn, used } = told
        if (used >= event.end - event.start || isAnswered(told)) return []
        const program = region.program ?? { pid: event.pid ?? 0, command: '' }
        const to = peerOf(told)?.program
        const row = rowOf(program, event.start, event.end, sources.now() - event.time, messageStack(told))
        return [{ ...row, qpn, ...(to && { to }), told: messageText(told) }]
      }),
  })

  return {
    on: {
      advertised(event) {
        if (services.ask(LENDS)?.isDeclared(event.pid)) return
        const qpn = objects.find(event.qp)?.qpn
        const region = regionOf(event.device, event.rkey)?.object
        const { to } = event
        const target = to && services.deviceWithGid(to.gid)
        const receiver = to && target !== undefined ? objects.qp(target, to.qpn) : undefined
        // Accesses of an unknown receiver are not recognised: that of a datagram, and of private data by UD.
        if (receiver === undefined && (to !== undefined || objects.find(event.qp)?.class === 'ud_qp')) return
        if (region !== undefined && qpn !== undefined) add(event, region, qpn, receiver)
      },
      accessed({ device, rkey, address, length, access, qpn }) {
        if (all.size === 0 || length === 0) return
        const region = regionOf(device, rkey)
        if (region === undefined) return
        const isRead = (access & (REMOTE_READ | REMOTE_WRITE | REMOTE_ATOMIC)) === REMOTE_READ
        use(region, { device, rkey, address, length, isRead, qpn })
      },
      posted(request) {
        if (request.opcode === BIND_MW || isOfDriver(request.opcode)) regions.clear()
        if (all.size === 0 || request.queue !== PostQueue.SEND) return
        begin(request)
        if (outstanding.size <= MAX_REQUESTS) return
        const [oldest] = outstanding
        end(oldest!)
        services.omit('advertised', 1)
      },
      ended(request) {
        if (request.opcode === BIND_MW || isOfDriver(request.opcode)) regions.clear()
        end(request)
      },
      completed(request, { qp }: RequestCompletion) {
        if (all.size === 0 || request.opcode >= 0) return
        const now = sources.now()
        answers.set(qp, now)
        heard.set(objects.find(qp)?.program?.pid, now)
      },
      queueReset(owner) {
        answers.delete(owner)
        for (const request of outstanding) {
          if (request.owner !== owner) continue
          end(request)
          gone.push(request)
          if (gone.length > MAX_GONE) gone.shift()
        }
        if (all.size > 0) forgetIf(({ event }) => event.qp === owner)
      },
      called({ class: name, method, refused }, object) {
        if (name === 'mw') regions.clear()
        if (name !== 'mr' || refused !== undefined) return
        regions.clear()
        if (method !== 'create' && all.size > 0) forgetIf(({ region }) => region === object)
      },
    },
  }
}
