/*
 * The interface of the checker's detectors. A detector takes events, and reports mistakes through `DetectorServices`,
 * or keeps what others ask for. Its memory must be bounded by the existing requests and objects, or by constants.
 */

import type { WhoRange } from '../../settings/who.ts'
import type { AdapterName } from '../../spec/check/adapters.ts'
import type { Moment, Stack } from '../../spec/check/finding.ts'
import type { FindingId } from '../../spec/check/findings.ts'
import type { NoteOmission } from '../../spec/check/omissions.ts'
import type { PeerFacts, PeerQuestion } from '../../spec/check/peer-facts.ts'
import type { ProducerFacts, ProgramProbes } from '../../spec/check/probes.ts'
import type {
  CheckedCall,
  CheckedWait,
  ContextEnd,
  ProgramEvent,
  ProgramEventName,
} from '../../spec/check/program-events.ts'
import type { BufferCheck, RequestWatcher, WorkRequest } from '../../spec/check/requests.ts'
import type { Wait, WaitId } from '../../spec/check/waits.ts'
import type { LentCheck } from '../../spec/lends.ts'
import type { PreloadEventName, PreloadEvents } from '../../spec/preload-events.ts'
import { PostQueue } from '../../spec/session.ts'
import type { DeviceWithGid } from './connection.ts'
import type { Consequences } from './consequences.ts'
import { wrongNumber } from './nearly.ts'
import { NetPeers } from './net-peers.ts'
import { type KnownObject, type KnownObjects, moment } from './objects.ts'
import { type FindingContent, type FindingReporter, type Occurrence, POSTED } from './reporting.ts'

/** What a checker is made with: what its producer is and can answer, and the options of its user. */
export interface CheckerSources extends ProgramProbes, ProducerFacts {
  /** The time of the current event, in microseconds. */
  now(): number
  /** Absent: `sampled`. */
  readonly buffers?: BufferCheck
  /** Absent: `learnt`. */
  readonly lent?: LentCheck
  /** The range of `--who`. */
  readonly who?: WhoRange
  /** Under torment: DEVICE/PROCESS/OBJECT of an object, by its id. */
  readonly tormentName?: (id: number) => string | undefined
  /** The adapters of `--like`. */
  readonly adapters?: readonly AdapterName[]
  /** Microseconds since 1970 at time 0 of the events' clock; absent: there is no net. */
  readonly clock?: number
  /**
   * Asks the checkers of the other hosts of a net about the other end of a connection, and calls `answered`. False:
   * there is no net. Absent: likewise.
   */
  askPeer?(question: PeerQuestion, answered: (host: string | undefined, facts: PeerFacts | undefined) => void): boolean
}

/** For a checker that only gets calls and failures. */
export const noSources: CheckerSources = {
  now: () => 0,
  deviceName: () => '',
  deviceWithGid: () => undefined,
  postStack: () => [],
}

/** The object that an event of a preload library is about; undefined: none. */
type PreloadOwner<N extends PreloadEventName> = (typeof PreloadEvents)[N]['about'] extends 'context'
  ? undefined
  : KnownObject

/**
 * An access of a peer to registered memory. `address`: in requests. `access`: ibv_access_flags. `qpn`: the responder's.
 */
interface Access {
  readonly device: number
  readonly rkey: number
  readonly address: number
  readonly length: number
  readonly access: number
  readonly qpn: number
}

export type RefusedCall = CheckedCall & Required<Pick<CheckedCall, 'refused'>>

/** Parts of events: what happens at a call, in this order, and then others. */
export interface EventParts {
  /** A call was refused; undefined: it is about no known object. */
  refused(call: RefusedCall, object: KnownObject | undefined): void
  created(call: CheckedCall, object: KnownObject): void
  modified(call: CheckedCall, object: KnownObject): void
  /** An object is about to be removed from the table. */
  ends(call: CheckedCall, object: KnownObject): void
  destroyed(call: CheckedCall, object: KnownObject): void
  /**
   * A call on no known object has ended, such as a query of a port, or a refused create; of one on an object comes
   * `called`.
   */
  asked(call: CheckedCall): void
  /** `contextEnds`, if it is known what was outstanding. */
  contextSettled(end: ContextEnd): void
  accessed(access: Access): void
  /** What has waited for more to be known is reported. */
  settles(): void
}

/** No other value that a taker may return by chance. */
export const TOLD = Symbol('told')

/** The object that an event of the stream is about: of `calling`, `called` and `unmapped` a known one. */
type About<N extends ProgramEventName> = N extends PreloadEventName
  ? PreloadOwner<N>
  : N extends 'calling' | 'called' | 'unmapped'
    ? KnownObject
    : undefined

/**
 * What a detector may take. Events of requests are only about objects that the checker knows. A taker of another event
 * that returns TOLD has told what later detectors would tell, and they do not get it.
 */
export type Takers = RequestWatcher &
  EventParts & { readonly [N in ProgramEventName]: (event: ProgramEvent<N>, object: About<N>) => unknown }

export interface Detector {
  readonly on?: Partial<Takers>
  /** What findings of waits say more than the wait itself. Undefined: the wait is no finding. */
  readonly refines?: { readonly [id in WaitId]?: (known: KnownWait) => Refinement | undefined }
}

/** Undefined: the checker lacks what the detector needs. */
export type CreateDetector = (services: DetectorServices) => Detector | undefined

/** What a detector knows that others ask for. */
export interface Topic<T> {
  readonly name: string
  readonly knowledge?: T
}

/** A program waits. */
interface KnownWait {
  readonly wait: Wait
  readonly at: Pick<CheckedWait, 'time' | 'context'>
  /** The queue pairs that the wait names, first the program's own. */
  readonly qps: readonly (KnownObject | undefined)[]
  /** The CQ, channel or identifier that it names. */
  readonly waited: KnownObject | undefined
  /** Where the request that it names was posted. */
  readonly postStack: Stack | undefined
}

/** What is present replaces that of the wait; details and objects follow them. */
export interface Refinement extends Partial<FindingContent> {
  /** Absent: the call that created what the wait names, else the post of its request. */
  readonly where?: Pick<Occurrence, 'stack' | 'action' | 'isPost'>
}

export class DetectorServices {
  readonly objects: KnownObjects
  readonly deviceWithGid: DeviceWithGid
  readonly sources: CheckerSources
  readonly omit: NoteOmission
  readonly consequences: Consequences
  /** Ends of connections on other hosts. */
  readonly net: NetPeers
  /** Contexts whose programs have closed their descriptors: their objects are no leaks. */
  readonly closedContexts = new Set<number>()
  /** Whether a program writes an event log for the search for races. */
  searchesRaces = false
  readonly #reporter: FindingReporter
  readonly #knowledge = new Map<Topic<unknown>, unknown>()

  constructor(objects: KnownObjects, reporter: FindingReporter, sources: CheckerSources) {
    this.objects = objects
    this.deviceWithGid = gid => sources.deviceWithGid(gid)
    this.sources = sources
    this.omit = reporter.omit
    this.consequences = reporter.consequences
    this.net = new NetPeers(objects, sources.clock ?? 0)
    this.#reporter = reporter
  }

  /** A detector tells what it knows. */
  tell<T>(topic: Topic<T>, knowledge: T): void {
    this.#knowledge.set(topic, knowledge)
  }

  /** What the detector knows that tells of this; undefined: there is none. */
  ask<T>(topic: Topic<T>): T | undefined {
    return this.#knowledge.get(topic) as T | undefined
  }

  /** As `ask`, of a detector that every checker has. */
  need<T>(topic: Topic<T>): T {
    const knowledge = this.ask(topic)
    if (knowledge === undefined) throw new Error(`no detector tells of ${topic.name}`)
    return knowledge
  }

  /** As `FindingReporter.directOf`. */
  directOf(pid: number | undefined): string | undefined {
    return this.#reporter.directOf(pid)
  }

  /** The number of the peer's device; undefined: there is no peer, or its device is not of this process. */
  peerDeviceOf({ attributes: { address } }: KnownObject): number | undefined {
    return address && this.deviceWithGid(address.dgid)
  }

  /** The device that a request goes to: a datagram names its destination. */
  targetDeviceOf({ destination }: WorkRequest, owner: KnownObject): number | undefined {
    return destination === undefined ? this.peerDeviceOf(owner) : this.deviceWithGid(destination.gid)
  }

  /**
   * Whether the checker may see the requests of the peer of a queue pair: of SRD and DC it is unknown who the peer is.
   */
  maySeePeerOf(qp: KnownObject): boolean {
    if (qp.attributes.address === undefined) return true
    const device = this.peerDeviceOf(qp)
    return device !== undefined && this.sources.hasUnchecked?.(device) !== true
  }

  /** As `peerOf`, also on another host of a net, if its checker was asked. */
  peerInNet(qp: KnownObject): KnownObject | undefined {
    return this.peerOf(qp) ?? this.net.peerOf(qp)
  }

  peerOf(qp: KnownObject): KnownObject | undefined {
    const device = this.peerDeviceOf(qp)
    const { destQpn } = qp.attributes
    return device === undefined || destQpn === undefined ? undefined : this.objects.qp(device, destQpn)
  }

  /** What is known of the dest_qp_num of no queue pair; empty: nothing. */
  wrongNumber(device: number | undefined, qpn: number | undefined): ReturnType<typeof wrongNumber> {
    if (device === undefined || qpn === undefined || this.objects.qp(device, qpn) !== undefined) return {}
    return wrongNumber(this.objects, device, qpn)
  }

  /** Whether accesses are of use before a lend: only the preload library tells of memory that is given back. */
  get watchesAccesses(): boolean {
    return this.sources.isCopiedByFork !== undefined && this.sources.lacks === undefined
  }

  /** Whether an error was reported. */
  get hasErrors(): boolean {
    return this.#reporter.hasErrors
  }

  /** Returns the number of the finding, for `repeat`; undefined if it was left out. */
  report(id: FindingId, occurrence: Occurrence, content: FindingContent): number | undefined {
    return this.#reporter.report(id, occurrence, content)
  }

  /** Counts one more occurrence of the finding with this number. */
  repeat(number: number): void {
    this.#reporter.repeat(number)
  }

  /** An occurrence now, with the program, device and context of an object. */
  occurrenceAt({ device, context, program }: KnownObject, stack: Stack, action?: string): Occurrence {
    const { sources } = this
    const time = sources.now()
    return { time, device: sources.deviceName(device), context, program, stack, ...(action && { action }) }
  }

  /** An access of a peer, whose post is unknown here, to a region. */
  occurrenceOfAccess(region: KnownObject, time = this.sources.now()): Occurrence {
    return { ...this.occurrenceAt(region, []), time, action: '' }
  }

  /** An occurrence now, with the stack of the post of a request of `owner`. */
  occurrenceAtPost(owner: KnownObject, request: WorkRequest): Occurrence {
    return { ...this.occurrenceAt(owner, this.postStack(owner, request)), ...POSTED }
  }

  /** The post of a request; if its queue was destroyed, without the stack. */
  postMoment(request: WorkRequest, action = 'posted'): Moment {
    const owner = this.objects.find(request.owner)
    return moment(action, request.time, owner ? this.postStack(owner, request) : [])
  }

  /**
   * The stack of the post of a request of this queue pair or SRQ, for a send of the ibv_wr_ interface that of
   * ibv_wr_complete. If the position of the request is unknown, of another post with the same wr_id, or of the last
   * ibv_wr_complete.
   */
  postStack({ context }: KnownObject, request: WorkRequest): Stack {
    return this.postStackIn(context, request)
  }

  /** As `postStack`. `context`: the number of the context. */
  postStackIn(
    context: number,
    { queue, number, wrId, postIndex }: Pick<WorkRequest, 'queue' | 'number' | 'wrId' | 'postIndex'>,
  ): Stack {
    const { sources } = this
    const stack = sources.postStack(context, queue, number, wrId, postIndex)
    return stack.length > 0 || queue !== PostQueue.SEND
      ? stack
      : sources.postStack(context, PostQueue.BATCH, number, wrId)
  }
}

/**
 * Makes a detector that reports each `event` as the finding `id`, about the object of the event unless `contentOf`
 * names others.
 */
export const reportsEach =
  <N extends PreloadEventName>(
    event: N,
    id: FindingId,
    as: Pick<Occurrence, 'action' | 'isPost'>,
    contentOf: (event: ProgramEvent<N>, owner: PreloadOwner<N>, objects: KnownObjects) => FindingContent | undefined,
  ) =>
  (services: DetectorServices): Detector => {
    const report = (told: ProgramEvent<N>, owner: PreloadOwner<N>): void => {
      const content = contentOf(told, owner, services.objects)
      if (content !== undefined) services.report(id, { ...told, ...as }, { objects: [owner], ...content })
    }
    return { on: { [event]: report } }
  }
