/*
 * Accesses of peers to memory that its owner has not lent, or has lent for something else (spec/check/program-events.ts:
 * `lent`). A region is looked at from the first lend of bytes of it on. Without lends nothing is kept and asked.
 */
import type { Moment, Program } from '../../../spec/check/finding.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { AccessFlags, QpState } from '../../../spec/enums.ts'
import { LendHash, LendRight, type LentBytes, lendRightNames } from '../../../spec/lends.ts'
import { isOfDriver, SendKind, sendOperations, WrOpcode } from '../../../spec/work.ts'
import type { Detector, DetectorServices, Topic } from '../detector.ts'
import { type KnownObject, moment } from '../objects.ts'
import { type Interval, Intervals } from './intervals.ts'
import { type Lend, LendTable, type ProcessLends } from './table.ts'
import {
  accessText,
  historyText,
  type LendHistory,
  type LentAccess,
  lendMoments,
  rowOf,
  unfinishedText,
} from './text.ts'

/** Maximum kept requests that have ended, and accesses, the latest. */
const MAX_ENDED = 256
const MAX_ACCESSES = 1024
/** Maximum keys over keys over keys. */
const MAX_DEPTH = 4
/** Numbers of an access. */
const NUMBERS = 5

const { REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values
const { BIND_MW } = WrOpcode.values
const { ERR } = QpState.values

/** LendRight of an access; 0: none needs to be lent. */
const rightOf = (access: number): number =>
  (access & REMOTE_ATOMIC) !== 0
    ? LendRight.ATOMIC
    : (access & REMOTE_WRITE) !== 0
      ? LendRight.WRITE
      : (access & REMOTE_READ) !== 0
        ? LendRight.READ
        : 0

const rightsOfKind: ReadonlyMap<number | undefined, number> = new Map([
  [SendKind.READ, LendRight.READ],
  [SendKind.WRITE, LendRight.WRITE],
  [SendKind.ATOMIC, LendRight.ATOMIC],
  [SendKind.ATOMIC_WRITE, LendRight.WRITE],
])
/** LendRight that a request needs; undefined: it accesses no memory of its peer. */
const rightOfRequest = ({ opcode, remote }: WorkRequest): number | undefined =>
  remote === undefined || remote.length === 0 ? undefined : rightsOfKind.get(sendOperations[opcode]?.kind)

/** A region of a program, in addresses of its process. */
interface Region {
  readonly object: KnownObject
  readonly start: number
  readonly end: number
  /** Bytes of it were lent. */
  isLent: boolean
  /** Among those whose bytes were not lent yet. */
  place: Interval<Region> | undefined
}

/** Bytes of a process. */
interface Accessed {
  readonly region: Region
  readonly start: number
  readonly end: number
}

/** What a key grants access to. `shift`: address in the process minus address in requests. */
interface Keyed {
  readonly region: Region
  readonly shift: number
}

/** An access of a peer. `address`: in requests; `qpn`: the responder's. */
interface Access {
  readonly device: number
  readonly key: number
  readonly address: number
  readonly length: number
  readonly qpn: number
}

interface Ended {
  readonly request: WorkRequest
  readonly time: number
  /** Its queue pair was not reset or destroyed before. */
  readonly isDone: boolean
}

/** Some accesses are compared: the first, fourth, sixteenth … of a lend, or all. */
const isCompared = (accesses: number): boolean => (accesses & (accesses - 1)) === 0 && (accesses & 0x55555555) !== 0

/** Bytes of a process; `region`: `CoreObject.id`. */
export interface LentRange {
  readonly pid: number | undefined
  readonly start: number
  readonly end: number
  readonly region: number
}

export interface Lends {
  /** Whether a process has declared anything: then it is taken at its word. */
  isDeclared(pid: number | undefined): boolean
  /** What a request accesses; undefined: no memory of a process. */
  rangeOf(device: number, key: number, address: number, length: number): LentRange | undefined
  /** Whether any of these bytes of a process is lent. */
  isLent(pid: number | undefined, start: number, end: number): boolean
  /** What is lent now. */
  rows(): LentBytes[]
  /** How many requests of peers to these bytes of a process are outstanding. */
  unfinished(pid: number | undefined, start: number, end: number): number
}

export const LENDS: Topic<Lends> = { name: 'lends' }

export const createLendDetector = (services: DetectorServices): Detector | undefined => {
  const { objects, sources } = services
  const { memoryOf, lent } = sources
  if (memoryOf === undefined || lent === 'off') return undefined
  const table = new LendTable(services.omit)
  let hasLends = false

  // ---- regions ----

  /** By `KnownObject.id`. */
  const regions = new Map<number, Region>()
  /** Regions without a lent byte, by process. */
  const unlent = new Map<number | undefined, Intervals<Region>>()
  /** By device, then key. Undefined: a key of no memory of a process. */
  const keys = new Map<number, Map<number, Keyed | undefined>>()

  const unlentOf = (pid: number | undefined): Intervals<Region> => {
    let known = unlent.get(pid)
    if (known === undefined) {
      known = new Intervals()
      unlent.set(pid, known)
    }
    return known
  }

  const forgetRegion = ({ id, program }: KnownObject): void => {
    const region = regions.get(id)
    regions.delete(id)
    if (region?.place !== undefined) unlent.get(program?.pid)?.remove(region.place)
    if (unlent.get(program?.pid)?.size === 0) unlent.delete(program?.pid)
    keys.clear()
  }

  const addRegion = (object: KnownObject): void => {
    const { start, size, program } = object
    if (start === undefined || size === undefined || size === 0) return
    const region: Region = { object, start, end: start + size, isLent: false, place: undefined }
    regions.set(object.id, region)
    const lends = table.find(program?.pid)
    if (lends?.hasLasting(start, region.end)) region.isLent = true
    else region.place = unlentOf(program?.pid).add(start, region.end, region)
  }

  const keyed = (device: number, key: number): Keyed | undefined => {
    let ofDevice = keys.get(device)
    if (ofDevice === undefined) {
      ofDevice = new Map()
      keys.set(device, ofDevice)
    }
    const known = ofDevice.get(key)
    if (known !== undefined || ofDevice.has(key)) return known
    // The rkey of EFA is another number than the lkey.
    const memory = memoryOf(device, objects.region(device, key)?.lkey ?? key)
    const region = memory && regions.get(objects.region(device, memory.region)?.id ?? -1)
    const found = memory && region && { region, shift: memory.shift }
    ofDevice.set(key, found)
    return found
  }

  /** The memory of programs that requests with a key access, also one over other keys. `depth`: of these. */
  const rangesOf = (
    device: number,
    { rkey, address, length }: { readonly rkey: number; readonly address: number; readonly length: number },
    depth = 0,
  ): Accessed[] => {
    const plain = keyed(device, rkey)
    if (plain !== undefined)
      return [{ region: plain.region, start: address + plain.shift, end: address + plain.shift + length }]
    const over = depth < MAX_DEPTH ? memoryOf(device, rkey) : undefined
    const from = address + (over?.shift ?? 0)
    let at = 0
    return (over?.parts ?? []).flatMap(({ key, address: start, length: bytes }) => {
      const [first, last] = [Math.max(from, at), Math.min(from + length, at + bytes)]
      const part = { rkey: key, address: start + first - at, length: last - first }
      at += bytes
      return part.length > 0 ? rangesOf(device, part, depth + 1) : []
    })
  }

  // ---- requests ----

  /** By id. */
  const outstanding = new Map<number, WorkRequest>()
  /** A ring. */
  const ended: Ended[] = []
  let nextEnded = 0
  /** A ring of accesses to lent regions: time, device, key, address, length. Those of an empty row are 0. */
  const accesses = new Float64Array(MAX_ACCESSES * NUMBERS)
  let nextAccess = 0
  /** The last access by a key of no memory of its own: one over other keys, which are accessed next. */
  let outer: Access | undefined
  /** The request of the last finding: an access may be judged several times. */
  let lastTold: { readonly request: WorkRequest | undefined; readonly at: number } | undefined

  const end = (request: WorkRequest, isDone: boolean): void => {
    outstanding.delete(request.id)
    ended[nextEnded] = { request, time: sources.now(), isDone }
    nextEnded = (nextEnded + 1) % MAX_ENDED
  }

  /** The device that a request goes to; undefined: unknown, or not of this process. */
  const targetOf = ({ destination, owner }: WorkRequest): number | undefined => {
    const gid = destination?.gid ?? objects.find(owner)?.attributes.address?.dgid
    return gid && services.deviceWithGid(gid)
  }

  /** The request of an access, by what it has accessed: an outstanding one, else one that has ended, the latest. */
  const requestOf = ({ device, key, address: start, length, qpn }: Access): WorkRequest | undefined => {
    const isIt = (request: WorkRequest): boolean => {
      const { remote } = request
      if (remote === undefined || remote.rkey !== key) return false
      const isWithin = remote.address <= start && start + length <= remote.address + remote.length
      const destQpn = request.destQpn ?? objects.find(request.owner)?.attributes.destQpn
      return isWithin && (destQpn === undefined || destQpn === qpn)
    }
    const isTo = (request: WorkRequest): boolean => targetOf(request) === device
    for (const request of outstanding.values()) if (isIt(request) && isTo(request)) return request
    for (let i = 1; i <= ended.length; i++) {
      const { request } = ended[(nextEnded - i + ended.length) % ended.length]!
      if (isIt(request)) return request
    }
    return undefined
  }

  /** Whether a READ is retransmitted whose requester has its data. */
  const isRepeated = (request: WorkRequest | undefined): boolean =>
    request !== undefined &&
    rightOfRequest(request) === LendRight.READ &&
    ended.some(one => one.request === request && one.isDone)

  const requestBehind = (access: Access): WorkRequest | undefined => {
    const isOfOuter = outer !== undefined && outer.qpn === access.qpn && outer.device === access.device
    return requestOf(access) ?? (isOfOuter ? requestOf(outer!) : undefined)
  }

  /** Whether all bytes that a request names were accessed since it was posted. */
  const wasExecuted = ({ remote, time }: WorkRequest): boolean => {
    if (remote === undefined) return true
    const { address, length, rkey } = remote
    const parts: (readonly [number, number])[] = []
    for (let at = 0; at < accesses.length; at += NUMBERS)
      if (accesses[at]! >= time && accesses[at + 2] === rkey && accesses[at + 4]! > 0)
        parts.push([accesses[at + 3]!, accesses[at + 3]! + accesses[at + 4]!])
    parts.sort(([a], [b]) => a - b)
    let reached = address
    for (const [from, to] of parts) if (from <= reached) reached = Math.max(reached, to)
    return reached >= address + length
  }

  /** Whether the owner has ended the queue pair by which requests would come. */
  const isShut = (device: number | undefined, qpn: number | undefined): boolean => {
    const responder = device === undefined || qpn === undefined ? undefined : objects.qp(device, qpn)
    return responder !== undefined && (responder.destruction !== undefined || responder.attributes.state === ERR)
  }

  /** The requests of peers that were outstanding at `time` to bytes of a process that `isMeant` takes. */
  const unfinishedAt = (
    pid: number | undefined,
    time: number,
    isMeant: (start: number, end: number, right: number, qpn: number | undefined) => boolean,
  ): WorkRequest[] => {
    const isUnfinished = (request: WorkRequest): boolean => {
      const right = rightOfRequest(request)
      const { remote } = request
      if (right === undefined || remote === undefined || request.time > time) return false
      const device = targetOf(request)
      const destQpn = request.destQpn ?? objects.find(request.owner)?.attributes.destQpn
      if (device === undefined || isShut(device, destQpn)) return false
      // The acknowledgement of a WRITE that has landed may be in flight.
      return (
        rangesOf(device, remote).some(
          ({ region, start, end }) => region.object.program?.pid === pid && isMeant(start, end, right, destQpn),
        ) && !(right === LendRight.WRITE && wasExecuted(request))
      )
    }
    const late = ended.filter(({ time: endTime }) => endTime > time).map(({ request }) => request)
    return [...outstanding.values(), ...late].filter(isUnfinished)
  }

  // ---- findings ----

  /** Where and when: the post of the request, if it is known. */
  const occurrenceOf = (request: WorkRequest | undefined, region: KnownObject) => {
    const owner = request && objects.find(request.owner)
    return request !== undefined && owner !== undefined
      ? { ...services.occurrenceAtPost(owner, request), action: 'posted' }
      : { ...services.occurrenceAt(region, []), action: 'accessed' }
  }

  const reportNotLent = (
    lender: ProcessLends,
    { object }: Region,
    access: LentAccess,
    at: number,
    request: WorkRequest | undefined,
  ): void => {
    if (lastTold !== undefined && request !== undefined && lastTold.request === request) return
    if (isRepeated(request)) return
    lastTold = { request, at }
    const responder = objects.qp(object.device, access.qpn)
    const owner = request && objects.find(request.owner)
    const history = historyOf(lender, access, at)
    const name = lender.nameOf(at)
    services.report('not-lent', occurrenceOf(request, object), {
      text: `${accessText(access, request, owner, responder)} ${object.name}${name === undefined ? '' : ` (${name})`}: ${historyText(history, access, sources.now(), object)}`,
      details: [
        ...(access.start === at
          ? []
          : [`the first of these bytes that is not lent is ${at - access.start} bytes further`]),
        ...(history.last === undefined && table.hasForgotten ? ['the oldest lends are forgotten'] : []),
      ],
      moments: lendMoments(history),
      objects: [object, owner, responder],
    })
  }

  /** Prefers a lend that would have allowed the access. */
  const historyOf = (lender: ProcessLends, { right, qpn }: LentAccess, at: number): LendHistory => {
    const fits = (lend: Lend): boolean => (lend.rights & right) !== 0 && (lend.qpn === 0 || lend.qpn === qpn)
    const lasting = lender.lasting(at, at + 1)
    let other: Lend | undefined
    for (const lend of table.ended(lender, at)) {
      other ??= lend
      if (!fits(lend)) continue
      const { time } = lend.ended!
      return { last: lend, since: lasting.find(later => later.time >= time) }
    }
    return lasting.length > 0 ? { last: lasting.at(-1), since: undefined } : { last: other, since: undefined }
  }

  const reportUnfinished = (
    requests: readonly WorkRequest[],
    what: string,
    moments: readonly Moment[],
    occurrence: { readonly time: number; readonly stack: readonly string[]; readonly action: string },
  ): void => {
    const [request] = requests
    const owner = request && objects.find(request.owner)
    const device = request && targetOf(request)
    const region = device === undefined ? undefined : rangesOf(device, request!.remote!)[0]?.region.object
    if (request === undefined || owner === undefined || region === undefined) return
    services.report(
      'taken-back-early',
      { ...services.occurrenceAt(region, occurrence.stack, occurrence.action), time: occurrence.time },
      {
        text: `${what} of ${region.name} while ${unfinishedText(request, owner)}${requests.length > 1 ? `, the first of ${requests.length} requests, is` : ' is'} outstanding`,
        moments: [services.postMoment(request), ...moments],
        objects: [region, owner],
      },
    )
  }

  /** A peer reads bytes of a lend: compares them with what they were. */
  const compare = (lend: Lend, { object, start, end: behind }: Region): void => {
    lend.accesses++
    if (lend.hash === undefined || !(sources.buffers === 'all' || isCompared(lend.accesses))) return
    const { lkey, iova, device } = object
    if (lend.start < start || lend.end > behind || lkey === undefined || iova === undefined) return
    const length = Math.min(lend.end - lend.start, LendHash.bytes)
    const hash = sources.rangeHash?.(device, lkey, lend.start - start + iova, length)
    if (hash === undefined || hash === lend.hash) return
    lend.hash = undefined
    services.report('lent-changed', services.occurrenceAt(object, lend.stack, 'lent'), {
      text: `the program has changed bytes of ${object.name} that it has lent for reading${lend.label === '' ? '' : ` (${lend.label})`}, before a peer has read them`,
      moments: [moment('read', sources.now(), [])],
      objects: [object],
    })
  }

  services.tell(LENDS, {
    rows() {
      const now = sources.now()
      const programs = new Map([...regions.values()].map(({ object: { program } }) => [program?.pid, program]))
      return table.lenders().flatMap(lender => {
        lender.settle(now)
        const program = programs.get(lender.pid) ?? { pid: lender.pid ?? 0, command: '' }
        const peers = new Map<number, Program | undefined>()
        const peerOf = (qpn: number): Program | undefined => {
          if (peers.has(qpn)) return peers.get(qpn)
          const qp = objects.qpOfProgram(program, qpn)
          const peer = qp && services.peerOf(qp)?.program
          peers.set(qpn, peer)
          return peer
        }
        return lender.all().map(({ start, end: behind, rights, qpn, label, time, until, stack }): LentBytes => {
          const to = qpn === 0 ? undefined : peerOf(qpn)
          return {
            ...rowOf(program, start, behind, now - time, stack),
            rights: (Object.keys(lendRightNames) as (keyof typeof lendRightNames)[]).filter(
              name => (rights & lendRightNames[name]) !== 0,
            ),
            ...(label !== '' && { label }),
            ...(qpn !== 0 && { qpn }),
            ...(to && { to }),
            ...(until !== Number.POSITIVE_INFINITY && { left: Math.round(until - now) }),
          }
        })
      })
    },
    rangeOf(device, key, address, length) {
      const memory = keyed(device, key)
      if (memory === undefined) return undefined
      const { region, shift } = memory
      const { id, program } = region.object
      return { pid: program?.pid, start: address + shift, end: address + shift + length, region: id }
    },
    isLent(pid, start, behind) {
      const lender = hasLends ? table.find(pid) : undefined
      lender?.settle(sources.now())
      return lender?.hasLasting(start, behind) === true
    },
    isDeclared: pid => hasLends && table.find(pid) !== undefined,
    unfinished: (pid, start, behind) =>
      unfinishedAt(pid, sources.now(), (from, until) => from < behind && until > start).length,
  })

  return {
    on: {
      lent(event) {
        hasLends = true
        const lend = table.lend(event)
        if (lend === undefined) return
        const regionsBefore = unlent.get(event.pid)
        if (regionsBefore === undefined) return
        for (const region of regionsBefore.overlapping(event.start, event.end)) {
          region.isLent = true
          if (region.place !== undefined) regionsBefore.remove(region.place)
          region.place = undefined
        }
      },
      takenBack({ pid, lend: id, time, stack }) {
        const lender = table.find(pid)
        lender?.settle(time)
        const lend = lender?.takeBack(id, time, stack)
        if (lender === undefined || lend === undefined || outstanding.size + ended.length === 0) return
        const { start, end: behind, rights, qpn: to } = lend
        const requests = unfinishedAt(pid, time, (from, until, right, qpn) => {
          if (
            from >= behind ||
            until <= start ||
            (rights & right) === 0 ||
            (to !== 0 && qpn !== undefined && qpn !== to)
          )
            return false
          const [first, last] = [Math.max(from, start), Math.min(until, behind)]
          return lender.firstNotLent(right, qpn ?? 0, first, last, () => {}) < last
        })
        const label = lend.label === '' ? '' : ` (${lend.label})`
        reportUnfinished(
          requests,
          `the program takes back ${behind - start} bytes${label}`,
          [moment('lent', lend.time, lend.stack)],
          {
            time,
            stack,
            action: 'taken back',
          },
        )
      },
      unchecked({ pid, start, end: behind }) {
        table.of(pid).uncheck(start, behind, services.omit)
      },
      named({ pid, start, end: behind, name }) {
        table.of(pid).name(start, behind, name)
      },
      expectsFinished({ pid, start, end: behind, time, stack }) {
        hasLends = true
        const requests = unfinishedAt(pid, time, (from, until) => from < behind && until > start)
        reportUnfinished(requests, `the program relies on it that nobody accesses ${behind - start} bytes`, [], {
          time,
          stack,
          action: 'relied on',
        })
      },
      lendsEnd({ pid, lost }) {
        const lender = table.find(pid)
        if (lost > 0) table.giveUp(lender ?? table.of(pid), lost)
        else table.forget(pid)
      },
      accessed({ device, rkey, address, length, access, qpn }) {
        const right = rightOf(access)
        if (!hasLends || length === 0 || right === 0) return
        const memory = keyed(device, rkey)
        if (memory === undefined) outer = { device, key: rkey, address, length, qpn }
        if (memory === undefined || !memory.region.isLent) return
        const { region, shift } = memory
        const lender = table.find(region.object.program?.pid)
        if (lender === undefined || lender.isGivenUp) return
        const now = sources.now()
        lender.settle(now)
        const row = nextAccess * NUMBERS
        nextAccess = (nextAccess + 1) % MAX_ACCESSES
        accesses[row] = now
        accesses[row + 1] = device
        accesses[row + 2] = rkey
        accesses[row + 3] = address
        accesses[row + 4] = length
        const start = address + shift
        const behind = start + length
        const at = lender.firstNotLent(right, qpn, start, behind, lend => {
          if (right === LendRight.READ) compare(lend, region)
        })
        if (right !== LendRight.READ) lender.written(start, behind)
        if (at < behind)
          reportNotLent(
            lender,
            region,
            { right, qpn, start, length },
            at,
            requestBehind({ device, key: rkey, address, length, qpn }),
          )
      },
      posted(request) {
        if (!hasLends) return
        if (request.remote !== undefined) outstanding.set(request.id, request)
        if (request.opcode === BIND_MW || isOfDriver(request.opcode)) keys.clear()
      },
      ended(request) {
        if (!hasLends) return
        if (request.remote !== undefined) end(request, true)
        if (request.opcode === BIND_MW || isOfDriver(request.opcode)) keys.clear()
      },
      queueReset(owner) {
        for (const request of outstanding.values()) if (request.owner === owner) end(request, false)
      },
      called({ class: name, method, refused }, object) {
        if (refused !== undefined) return
        if (name === 'mw') keys.clear()
        if (name !== 'mr') return
        if (method === 'destroy' || method === 'modify') forgetRegion(object)
        if (method === 'create' || method === 'modify') addRegion(object)
        keys.clear()
      },
    },
  }
}
