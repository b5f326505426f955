/*
 * Topics of the checker: each is a file of its own, gets calls and requests, and reports findings through the `World`
 * that all share. A topic keeps its own facts about a request or object, and drops them with `forgotten`, `ended` or
 * the object's destruction: memory is bounded by the requests and objects that are alive.
 */
import type { AdapterName } from '../spec/check/adapters.ts'
import type { FindingId, Moment, Program, Stack } from '../spec/check/findings.ts'
import type { NoteOmission } from '../spec/check/omissions.ts'
import type { BufferCheck, RequestWatcher, WorkRequest } from '../spec/check/requests.ts'
import { PostQueue } from '../spec/session.ts'
import type { DeviceWithGid } from './connection.ts'
import type { CheckedCall, Misuse } from './events.ts'
import { type KnownObject, type KnownObjects, moment } from './objects.ts'
import type { RaceSources } from './races/sources.ts'
import type { Draft, Place, Reporting } from './reporting.ts'

/** Facts that only the server of the calls knows; contexts and devices by their numbers. */
export interface TopicSources {
  /** Microseconds. */
  now(): number
  deviceName(device: number): string
  /** The stack of the post of a request, by its PostQueue, the number of the queue, and its wr_id. */
  postStack(context: number, queue: number, number: number, wrId: bigint): Stack
  /**
   * A hash of the bytes that an outstanding send reads, all or samples; undefined: they cannot be read now.
   */
  digest?(device: number, request: WorkRequest, isWhole: boolean): number | undefined
  /** Reports the receives that were posted to a context, and the completions that were polled. */
  look?(device: number, context: number): void
  /**
   * Whether a child of fork gets a copy of this memory; undefined: it is not known. Absent: no program reports the
   * memory of its requests (`Checker.misused`), since none has the preload library.
   */
  isCopiedByFork?(program: Program, address: number): boolean | undefined
  /** Default: sampled. */
  readonly buffers?: BufferCheck
  /** Adapters that programs are compared with. */
  readonly like?: readonly AdapterName[]
  /** Bytes that a process may lock (RLIMIT_MEMLOCK). */
  lockLimit?(program: Program): number
  /** Absent: the checker does not search for races. */
  readonly races?: RaceSources
}

export const noSources: TopicSources = { now: () => 0, deviceName: () => '', postStack: () => [] }

/** The events that a topic receives; requests are those of known objects only. */
export interface Topic extends Partial<RequestWatcher> {
  /**
   * A call of the program begins; its object, if it is known, still exists. All earlier polls and posts of the program
   * were reported before.
   */
  calling?(call: BeginningCall, object: KnownObject): void
  /** The program has unmapped memory of a region that is registered. */
  unmapped?(region: KnownObject): void
  /** A call has ended. `object`: it is gone if the call destroyed it. */
  called?(call: CheckedCall, object: KnownObject): void
  /** The memory of a request of this queue was used wrongly. */
  misused?(misuse: Misuse, owner: KnownObject): void
  /** A process is about to fork, without ibv_fork_init. */
  forked?(pid: number, stack: Stack): void
}

/** A call that begins. */
export interface BeginningCall {
  readonly class: string
  readonly method: string
  readonly program: Program | undefined
  readonly args: Readonly<Record<string, unknown>>
  readonly stack: Stack
}

export class World {
  readonly objects: KnownObjects
  readonly deviceWith: DeviceWithGid
  readonly sources: TopicSources
  readonly omit: NoteOmission
  readonly #reporting: Reporting

  constructor(objects: KnownObjects, reporting: Reporting, deviceWith: DeviceWithGid, sources: TopicSources) {
    this.objects = objects
    this.deviceWith = deviceWith
    this.sources = sources
    this.omit = reporting.omit
    this.#reporting = reporting
  }

  find(id: FindingId, place: Place, draft: Draft): void {
    this.#reporting.find(id, place, draft)
  }

  /** Now, at an object. */
  placeOf({ device, program }: KnownObject, stack: Stack, what?: string): Place {
    const { sources } = this
    return { time: sources.now(), device: sources.deviceName(device), program, stack, ...(what && { what }) }
  }

  /** Now, at the post of a request of `owner`. */
  placeOfPost(owner: KnownObject, request: WorkRequest): Place {
    return this.placeOf(owner, this.postStack(owner, request), 'posted')
  }

  /** The post of a request, without its stack if its queue is gone. */
  postMoment(request: WorkRequest, what = 'posted'): Moment {
    const owner = this.objects.find(request.owner)
    return moment(what, request.time, owner ? this.postStack(owner, request) : [])
  }

  /**
   * The stack of the post of a request of `owner`, its queue pair or shared queue. It must be read soon: posts with the
   * same wr_id overwrite it.
   */
  postStack({ context }: KnownObject, { queue, number, wrId }: WorkRequest): Stack {
    const { sources } = this
    const stack = sources.postStack(context, queue, number, wrId)
    return stack.length > 0 || queue !== PostQueue.SEND
      ? stack
      : sources.postStack(context, PostQueue.BATCH, number, wrId)
  }
}

/** Passes requests of known objects to the topics. */
export const requestsTo = (objects: KnownObjects, all: readonly Topic[]): RequestWatcher => {
  const having = <K extends keyof RequestWatcher>(name: K): readonly RequestWatcher[K][] =>
    all.flatMap(topic => {
      const receive = topic[name]?.bind(topic) as RequestWatcher[K] | undefined
      return receive === undefined ? [] : [receive]
    })
  const [posted, ended, completed] = [having('posted'), having('ended'), having('completed')]
  const [starved, polled, forgotten] = [having('starved'), having('polled'), having('forgotten')]
  const isKnown = (id: number): boolean => objects.find(id) !== undefined
  return {
    posted(request) {
      if (isKnown(request.owner)) for (const receive of posted) receive(request)
    },
    ended(request) {
      if (isKnown(request.owner)) for (const receive of ended) receive(request)
    },
    completed(request, completion) {
      if (isKnown(request.owner)) for (const receive of completed) receive(request, completion)
    },
    starved(qp) {
      if (isKnown(qp)) for (const receive of starved) receive(qp)
    },
    polled(cq, count) {
      if (isKnown(cq)) for (const receive of polled) receive(cq, count)
    },
    forgotten(owner) {
      if (isKnown(owner)) for (const receive of forgotten) receive(owner)
    },
  }
}
