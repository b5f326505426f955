/*
 * `userdma check --who`: all that calls, requests and peers do with a range of bytes, in order, as lines of a story.
 * Accesses of peers whose requests the checker sees are told when the request has ended, others when they come. Between
 * two of them a hash tells whether the program has changed the bytes.
 */
import { MAX_HASHED } from '../../settings/who.ts'
import type { Stack, Story, StoryEventKind } from '../../spec/check/finding.ts'
import type { RequestCompletion, WorkRequest } from '../../spec/check/requests.ts'
import { AccessFlags, nameIn } from '../../spec/enums.ts'
import { PostQueue } from '../../spec/session.ts'
import { isAtomic, remoteRights, returnsData, WcStatus } from '../../spec/work.ts'
import { requestText } from './buffers.ts'
import type { Detector, DetectorServices, Topic } from './detector.ts'
import { hashOfBytes } from './keys.ts'
import { accessText } from './lends/rights.ts'
import type { KnownObject } from './objects.ts'
import { MAX_TOLD, WhoLines } from './who-lines.ts'
import { type Bytes, bytesOfRegion, overlaps, WhoRanges } from './who-ranges.ts'

/** The most completions that are not polled, the latest. */
const MAX_COMPLETED = 4096

const { SUCCESS } = WcStatus.values
const { REMOTE_READ } = AccessFlags.values

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

/** The accesses so far, oldest first; without any range that was found, empty. */
export const WHO: Topic<() => Story> = { name: 'accesses to the bytes of --who' }

export const createWho = (services: DetectorServices): Detector | undefined => {
  const { objects, sources } = services
  if (sources.who === undefined) return undefined
  const ranges = new WhoRanges(services, sources.who)
  const lines = new WhoLines()
  services.tell(WHO, () => lines.of(ranges))
  /** Outstanding requests that may write, with what, by id. */
  const writers = new Map<number, { readonly owner: number; readonly bytes: readonly Bytes[] }>()
  /** Completions of CQs that are not polled, oldest first. */
  let completed: { readonly cq: number; readonly position: number; readonly request: WorkRequest }[] = []

  const tell = (bytes: Bytes, by: KnownObject, event: StoryEventKind, head: string, stack?: Stack): void =>
    lines.tell(bytes, by, event, head, sources.now(), stack)

  /** Whether a request may write to the bytes now. */
  const isWritten = (bytes: Bytes): boolean => {
    for (const writer of writers.values()) if (writer.bytes.some(one => overlaps(one, bytes))) return true
    return false
  }

  /** Tells what the program has changed since the last look. `isOurs` false: a device has written. */
  const look = (bytes: Bytes, isOurs = true): void => {
    for (const one of ranges.in(bytes)) {
      const { region, start, end } = one
      const isReadable = end - start <= MAX_HASHED && !isWritten(one)
      const hash = isReadable ? hashOfBytes(services, region, start, end) : undefined
      if (isOurs && one.hash !== undefined && hash !== undefined && hash !== one.hash)
        tell(one, region, 'changed', 'changed by the program since the last line')
      one.hash = hash
    }
  }

  /** Calls `use` for wanted bytes of a request. */
  const each = (request: WorkRequest, use: (bytes: Bytes, verb: Verb, where: string) => void): void => {
    for (const bytes of ranges.ownBytes(request)) if (ranges.isWanted(bytes)) use(bytes, ownVerb(request), '')
    for (const bytes of ranges.peerBytes(request))
      if (ranges.isWanted(bytes)) use(bytes, peerVerb(request), ' at the peer')
  }

  /** A request has ended well: what it has done. Returns whether anything is told. */
  const landed = (request: WorkRequest, filled?: string): boolean => {
    const owner = objects.find(request.owner)
    let isTold = false
    if (owner !== undefined)
      each(request, (bytes, verb) => {
        isTold = true
        tell(bytes, owner, 'accessed', `${requestText(request)} ${filled ?? verbs[verb]}`)
        look(bytes, verb === 'reads')
      })
    return isTold
  }

  /** As `landed`, of one that has failed. */
  const failed = (request: WorkRequest, queue: KnownObject, status: number): boolean => {
    let isTold = false
    each(request, bytes => {
      isTold = true
      tell(bytes, queue, 'completed', `${requestText(request)} has failed, ${nameIn(WcStatus.values, status)}`)
      look(bytes, false)
    })
    return isTold
  }

  const succeeded = (request: WorkRequest, { bytes, message }: RequestCompletion): boolean => {
    const sender = message && objects.find(message.owner)
    const from = message && sender ? `has taken ${requestText(message)} of ${sender.nameWithProgram}` : undefined
    return landed(isReceive(request) ? withBytes(request, bytes) : request, from)
  }

  return {
    on: {
      called({ method, refused, why, stack, time }, known) {
        const whole = bytesOfRegion(known)
        if (whole === undefined || refused !== undefined) return
        if (method === 'create' || method === 'modify') ranges.registered(whole, method === 'modify')
        if (method === 'destroy') ranges.deregistered(known)
        const what = callTexts[method]
        if (what === undefined || !ranges.isWanted(whole)) return
        if (method !== 'destroy') look(whole)
        lines.tell(whole, known, 'called', why === 'call' ? what : `${what} at the end`, time, stack)
      },
      named: event => ranges.named(event),
      calling({ method }, known) {
        const whole = bytesOfRegion(known)
        if (method === 'destroy' && whole !== undefined) look(whole)
      },
      posted(request) {
        const { owner, time } = request
        const queue = objects.find(owner)
        if (queue === undefined) return
        ranges.posted(request)
        each(request, (bytes, verb, where) => {
          look(bytes)
          const head = `posted ${requestText(request)}, which ${verb}${where}`
          lines.tell(bytes, queue, 'posted', head, time, services.postStack(queue, request))
        })
        const written: Bytes[] = []
        each(request, (bytes, verb) => {
          if (verb !== 'reads') written.push(bytes)
        })
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
      completed(request, completion) {
        const { status, cq, cqPosition, qp } = completion
        writers.delete(request.id)
        const queue = objects.find(qp)
        if (queue === undefined) return
        const isTold = status === SUCCESS ? succeeded(request, completion) : failed(request, queue, status)
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
            tell(bytes, owner, 'polled', `completion of ${requestText(request)} polled by now`)
          })
        }
      },
      accessed({ device, rkey, address, length, access, qpn }) {
        const qp = objects.qp(device, qpn)
        if (length === 0 || qp === undefined || services.maySeePeerOf(qp)) return
        const bytes = ranges.bytesOf(device, rkey, address, length)
        if (bytes === undefined || !ranges.isWanted(bytes)) return
        look(bytes)
        tell(bytes, qp, 'accessed', `a ${accessText(access)} of the peer, which is elsewhere`)
        if (accessText(access) !== 'READ') for (const one of ranges.in(bytes)) one.hash = undefined
      },
    },
  }
}
