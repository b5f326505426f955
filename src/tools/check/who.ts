/*
 * `userdma check --who`: all that calls, requests and peers do with a range of bytes, in order, as lines of a story.
 * Accesses of peers whose requests the checker sees are told when the request has ended, others when they come. Between
 * two of them a hash tells whether the program has changed the bytes.
 */
import type { Program, Stack, Story, StoryEventKind, StoryLine } from '../../spec/check/finding.ts'
import type { CheckedCall, ProgramEvent } from '../../spec/check/program-events.ts'
import type { RequestCompletion, WorkRequest } from '../../spec/check/requests.ts'
import { MAX_HASHED } from '../../spec/check/who.ts'
import { AccessFlags, nameIn } from '../../spec/enums.ts'
import { PostQueue } from '../../spec/session.ts'
import { counted } from '../../spec/text.ts'
import { isAtomic, remoteRights, returnsData, WcStatus } from '../../spec/work.ts'
import { requestText } from './buffers.ts'
import type { Detector, DetectorServices, Topic } from './detector.ts'
import { accessText } from './lends/rights.ts'
import { type KnownObject, shortName } from './objects.ts'

/** The most kept lines, the latest. */
const MAX_TOLD = 2 ** 14
/** The most watched ranges: of processes, or of queues with the wr_id. */
const MAX_WATCHED = 64
/** The most completions that are not polled, the latest. */
const MAX_COMPLETED = 4096
/** Frames of a line. */
const MAX_FRAMES = 16

const { SUCCESS } = WcStatus.values
const { REMOTE_READ } = AccessFlags.values

/** Bytes of a region, by addresses in the memory of its program. */
interface Bytes {
  readonly region: KnownObject
  readonly start: number
  readonly end: number
}

interface Watched extends Bytes {
  /** The newest hash; undefined: a device may have written since, or they cannot be read. */
  hash: number | undefined
}

/** What is told of bytes: `head`, then how many of the range they are, and where. */
interface Told {
  readonly bytes: Bytes
  readonly program: Program | undefined
  readonly object: string
  readonly event: StoryEventKind
  readonly head: string
  readonly stack: Stack
  readonly time: number
  /** Of several: of the first. */
  readonly since: number
  readonly count: number
}

/** What an access does, and has done. */
const verbs = { reads: 'has read', writes: 'has written', changes: 'has changed' } as const
type Verb = keyof typeof verbs

const callTexts: Readonly<Record<string, string>> = {
  create: 'registered',
  modify: 'registered anew',
  destroy: 'deregistered',
}

const isReceive = ({ queue }: WorkRequest): boolean => queue !== PostQueue.SEND
/** What a request does with its own buffers, and with those of the peer. */
const ownVerb = (request: WorkRequest): Verb => (isReceive(request) || returnsData(request.opcode) ? 'writes' : 'reads')
const peerVerb = ({ opcode }: WorkRequest): Verb =>
  isAtomic(opcode) ? 'changes' : remoteRights(opcode) === REMOTE_READ ? 'reads' : 'writes'

/** The accesses so far, oldest first; without any range that was found, empty. */
export const WHO: Topic<() => Story> = { name: 'accesses to the bytes of --who' }

export const createWho = (services: DetectorServices): Detector | undefined => {
  const { objects, sources } = services
  const { who: range } = sources
  if (range === undefined) return undefined
  let watched: Watched[] = []
  const told: Told[] = []
  let forgotten = 0
  /** How many regions each process has registered, by pid. */
  const registered = new Map<number | undefined, number>()
  /** Queues whose request with the wr_id was found. */
  const found = new Set<number>()
  /** What has the name of the range. */
  const named: Pick<ProgramEvent<'named'>, 'pid' | 'start' | 'end'>[] = []
  /** Regions that exist, if names are looked for. */
  const regions = new Set<KnownObject>()
  /** Outstanding requests that may write, with what, by id. */
  const writers = new Map<number, { readonly owner: number; readonly bytes: readonly Bytes[] }>()
  /** Completions of CQs that are not polled, oldest first. */
  let completed: { readonly cq: number; readonly position: number; readonly request: WorkRequest }[] = []

  /** The bytes that a key and an address name; undefined: unknown. */
  const bytesOf = (device: number, key: number, address: number, length: number): Bytes | undefined => {
    const known = objects.region(device, key)
    if (known?.class === 'mr' && known.start !== undefined && known.iova !== undefined) {
      const start = address - known.iova + known.start
      return { region: known, start, end: start + length }
    }
    const memory = sources.memoryOf?.(device, key)
    const region = memory && objects.region(device, memory.region)
    return region && { region, start: address + memory.shift, end: address + memory.shift + length }
  }

  const overlaps = (one: Bytes, other: Bytes): boolean =>
    one.region.program?.pid === other.region.program?.pid && one.start < other.end && other.start < one.end
  const watchedIn = (bytes: Bytes): Watched[] => watched.filter(one => overlaps(one, bytes))

  /** A range of a process in the place of one with the same address. */
  const watch = (bytes: Bytes): void => {
    const { region, start, end } = bytes
    const isSame = (one: Watched): boolean =>
      one.region.program?.pid === region.program?.pid && one.start === start && one.end === end
    watched = watched.filter(one => !isSame(one))
    if (watched.length < MAX_WATCHED) watched.push({ ...bytes, hash: undefined })
  }

  // ---- what is told ----

  /** Any bytes may turn out to be those of a request with the wr_id, or of the name, that comes later. */
  const isWanted = (bytes: Bytes): boolean =>
    range.kind === 'request' || range.kind === 'name' || watchedIn(bytes).length > 0

  const tell = (
    bytes: Bytes,
    { program }: Pick<KnownObject, 'program'>,
    object: string,
    event: StoryEventKind,
    head: string,
    stack: Stack = [],
    time = sources.now(),
  ): void => {
    const last = told.at(-1)
    const isRepeat =
      last?.object === object &&
      last.event === event &&
      last.bytes.start === bytes.start &&
      last.bytes.end === bytes.end &&
      withoutNumber(last.head) === withoutNumber(head) &&
      last.stack.join() === stack.join()
    if (isRepeat) told.pop()
    const [since, count] = isRepeat ? [last.since, last.count + 1] : [time, 1]
    told.push({ bytes, program, object, event, head, stack, time, since, count })
    if (told.length <= MAX_TOLD) return
    told.shift()
    forgotten++
  }

  // ---- changes by the program ----

  const hashOf = ({ region, start, end }: Bytes): number | undefined => {
    const { device, lkey, iova, start: first, destruction } = region
    if (lkey === undefined || iova === undefined || first === undefined || destruction !== undefined) return undefined
    return end - start > MAX_HASHED ? undefined : sources.rangeHash?.(device, lkey, start - first + iova, end - start)
  }

  /** Whether a request may write to the bytes now. */
  const isWritten = (bytes: Bytes): boolean => {
    for (const writer of writers.values()) if (writer.bytes.some(one => overlaps(one, bytes))) return true
    return false
  }

  /** Tells what the program has changed since the last look. `isOurs` false: a device has written. */
  const look = (bytes: Bytes, isOurs = true): void => {
    for (const one of watchedIn(bytes)) {
      const hash = isWritten(one) ? undefined : hashOf(one)
      if (isOurs && one.hash !== undefined && hash !== undefined && hash !== one.hash)
        tell(one, one.region, shortName(one.region), 'changed', 'changed by the program since the last line')
      one.hash = hash
    }
  }

  // ---- requests ----

  /** Of its own program. */
  const ownBytes = ({ owner, elements }: WorkRequest): Bytes[] => {
    const queue = objects.find(owner)
    if (queue === undefined) return []
    return elements.flatMap(({ lkey, address, length }) => bytesOf(queue.device, lkey, address, length) ?? [])
  }

  /** Those at the peer, if that is known here. */
  const peerBytes = (request: WorkRequest): Bytes[] => {
    const { owner, remote } = request
    const queue = objects.find(owner)
    const device = queue && services.targetDeviceOf(request, queue)
    const bytes =
      device === undefined ? undefined : remote && bytesOf(device, remote.rkey, remote.address, remote.length)
    return bytes === undefined ? [] : [bytes]
  }

  /** Calls `use` for wanted bytes of a request. */
  const each = (request: WorkRequest, use: (bytes: Bytes, verb: Verb, where: string) => void): void => {
    for (const bytes of ownBytes(request)) if (isWanted(bytes)) use(bytes, ownVerb(request), '')
    for (const bytes of peerBytes(request)) if (isWanted(bytes)) use(bytes, peerVerb(request), ' at the peer')
  }

  /** A request has ended well: what it has done. */
  const landed = (request: WorkRequest, filled?: string): void => {
    const owner = objects.find(request.owner)
    if (owner === undefined) return
    each(request, (bytes, verb) => {
      tell(bytes, owner, shortName(owner), 'accessed', `${requestText(request)} ${filled ?? verbs[verb]}`)
      look(bytes, verb === 'reads')
    })
  }

  const registeredBytes = ({ start, size, class: name }: KnownObject, region: KnownObject): Bytes | undefined =>
    name === 'mr' && start !== undefined && size !== undefined ? { region, start, end: start + size } : undefined

  const watchedOf = (whole: Bytes): Bytes | undefined => {
    if (range.kind === 'address') {
      const bytes = { ...whole, start: range.start, end: range.start + range.length }
      return overlaps(bytes, whole) ? bytes : undefined
    }
    const pid = whole.region.program?.pid
    if (range.kind !== 'region' || registered.get(pid) !== range.number) return undefined
    const start = whole.start + range.offset
    return { ...whole, start, end: range.length === undefined ? whole.end : start + range.length }
  }

  /** Watches named bytes of a region. */
  const watchNamed = (region: KnownObject, { pid, start, end }: (typeof named)[number]): void => {
    const whole = registeredBytes(region, region)
    if (range.kind !== 'name' || whole === undefined || region.program?.pid !== pid) return
    const from = start + range.offset
    const bytes = { region, start: from, end: range.length === undefined ? end : from + range.length }
    if (bytes.start < bytes.end && overlaps(bytes, whole)) watch(bytes)
  }

  const called = ({ method, refused, why, stack, time }: CheckedCall, known: KnownObject): void => {
    const whole = registeredBytes(known, known)
    if (whole === undefined || refused !== undefined) return
    if (method === 'create' || method === 'modify') {
      const pid = known.program?.pid
      if (method === 'create') registered.set(pid, (registered.get(pid) ?? 0) + 1)
      const bytes = watchedOf(whole)
      if (bytes !== undefined) watch(bytes)
      if (range.kind === 'name') regions.add(known)
      for (const one of named) watchNamed(known, one)
    }
    if (method === 'destroy') regions.delete(known)
    const what = callTexts[method]
    if (what === undefined || !isWanted(whole)) return
    if (method !== 'destroy') look(whole)
    tell(whole, known, shortName(known), 'called', why === 'call' ? what : `${what} at the end`, stack, time)
  }

  services.tell(WHO, () => {
    const lines = told.flatMap(one => watchedIn(one.bytes).map(range => lineOf(one, range, watched.length > 1)))
    if (forgotten === 0) return lines
    const [{ time = 0 } = {}] = lines
    const text = `${counted(forgotten, 'earlier line')} forgotten`
    return [{ time, object: '', event: 'overwritten', text, stack: [], count: forgotten }, ...lines]
  })

  return {
    on: {
      called,
      named(event) {
        if (range.kind !== 'name' || event.name !== range.name || named.length === MAX_WATCHED) return
        named.push(event)
        for (const region of regions) watchNamed(region, event)
      },
      calling({ method }, known) {
        const whole = registeredBytes(known, known)
        if (method === 'destroy' && whole !== undefined) look(whole)
      },
      posted(request) {
        const { owner, wrId, time } = request
        const queue = objects.find(owner)
        if (queue === undefined) return
        if (range.kind === 'request' && wrId === range.wrId && !found.has(owner)) {
          found.add(owner)
          for (const bytes of [...ownBytes(request), ...peerBytes(request)]) watch(bytes)
        }
        each(request, (bytes, verb, where) => {
          look(bytes)
          const head = `posted ${requestText(request)}, which ${verb}${where}`
          tell(bytes, queue, shortName(queue), 'posted', head, services.postStack(queue, request), time)
        })
        const written = [
          ...(ownVerb(request) === 'reads' ? [] : ownBytes(request)),
          ...(peerVerb(request) === 'reads' ? [] : peerBytes(request)),
        ].filter(isWanted)
        if (written.length > 0 && writers.size < MAX_TOLD) writers.set(request.id, { owner, bytes: written })
      },
      ended(request) {
        if (request.isSignaled) return
        writers.delete(request.id)
        landed(request)
      },
      receiveLost({ id }) {
        writers.delete(id)
      },
      queueReset(owner) {
        for (const [id, writer] of writers) if (writer.owner === owner) writers.delete(id)
      },
      completed(request, { status, bytes, cq, cqPosition, message, qp }: RequestCompletion) {
        writers.delete(request.id)
        const queue = objects.find(qp)
        if (queue === undefined) return
        let isTold = false
        if (status !== SUCCESS)
          each(request, one => {
            isTold = true
            const head = `${requestText(request)} has failed, ${nameIn(WcStatus.values, status)}`
            tell(one, queue, shortName(queue), 'completed', head)
            look(one, false)
          })
        else {
          const sender = message && objects.find(message.owner)
          const from = message && sender ? `has taken ${requestText(message)} of ${sender.nameWithProgram}` : undefined
          const taken = isReceive(request) ? withBytes(request, bytes) : request
          each(taken, () => {
            isTold = true
          })
          landed(taken, from)
        }
        if (!isTold || cqPosition === 0) return
        completed.push({ cq, position: cqPosition, request })
        if (completed.length > MAX_COMPLETED) completed.shift()
      },
      polled(cq, count) {
        const isPolled = (one: (typeof completed)[number]): boolean => one.cq === cq && one.position <= count
        if (!completed.some(isPolled)) return
        const polled = completed.filter(isPolled)
        completed = completed.filter(one => !isPolled(one))
        for (const { request } of polled) {
          const owner = objects.find(request.owner)
          if (owner === undefined) continue
          each(request, bytes => {
            look(bytes)
            tell(bytes, owner, shortName(owner), 'polled', `completion of ${requestText(request)} polled by now`)
          })
        }
      },
      accessed({ device, rkey, address, length, access, qpn }) {
        const qp = objects.qp(device, qpn)
        if (length === 0 || qp === undefined || services.maySeePeerOf(qp)) return
        const bytes = bytesOf(device, rkey, address, length)
        if (bytes === undefined || !isWanted(bytes)) return
        look(bytes)
        tell(bytes, qp, shortName(qp), 'accessed', `a ${accessText(access)} of the peer, which is elsewhere`)
        if (accessText(access) !== 'READ') for (const one of watchedIn(bytes)) one.hash = undefined
      },
    },
  }
}

const withoutNumber = (head: string): string => head.replace(/ wr_id \d+/g, '')

/** A receive that a message of `bytes` bytes has filled. */
const withBytes = (request: WorkRequest, bytes: number): WorkRequest => {
  let left = bytes
  const elements = request.elements.flatMap(element => {
    const length = Math.min(left, element.length)
    left -= length
    return length === 0 ? [] : [{ ...element, length }]
  })
  return { ...request, elements }
}

/** `isNamed`: with the region. */
const lineOf = (
  { bytes, program, object, event, head, stack, time, since, count }: Told,
  range: Watched,
  isNamed: boolean,
): StoryLine => {
  const first = Math.max(bytes.start, range.start)
  const length = Math.min(bytes.end, range.end) - first
  const place = `at +${first - range.start}${isNamed ? ` of ${shortName(range.region)}` : ''}`
  return {
    time,
    ...(count > 1 && { since }),
    ...(program && { pid: program.pid, command: program.command }),
    object,
    event,
    text: `${head}: ${counted(length, 'byte')} ${place}`,
    stack: stack.slice(0, MAX_FRAMES),
    count,
  }
}
