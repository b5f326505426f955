/*
 * The interface of the checker's detectors. A detector receives calls and requests, and reports one kind of mistake
 * through `DetectorServices`. Its memory must be bounded by the existing requests and objects, or by constants.
 */
import type { AdapterName } from '../../spec/check/adapters.ts'
import type { Moment, Program, Stack } from '../../spec/check/finding.ts'
import type { FindingId } from '../../spec/check/findings.ts'
import type { NoteOmission } from '../../spec/check/omissions.ts'
import type { BufferCheck, RequestWatcher, WorkRequest } from '../../spec/check/requests.ts'
import { PostQueue } from '../../spec/session.ts'
import type { DeviceWithGid } from './connection.ts'
import type { CheckedCall, ContextEnd, Misuse } from './events.ts'
import { type KnownObject, type KnownObjects, moment } from './objects.ts'
import type { RaceSources } from './races/sources.ts'
import type { FindingContent, FindingReporter, Occurrence } from './reporting.ts'

/** Facts from the daemon or library that serves the calls. Contexts and devices are numbers. */
export interface CheckerSources {
  /** Microseconds. */
  now(): number
  deviceName(device: number): string
  /**
   * The stack of the post at `index` of the queue, or of a post with this wr_id; empty: unknown. `queue`: PostQueue.
   * For BATCH: the stack of the last ibv_wr_complete, with any wr_id. `number`: the QPN, or the handle of the SRQ.
   */
  postStack(context: number, queue: number, number: number, wrId: bigint, index?: number): Stack
  /**
   * A hash of the bytes that an outstanding send reads; undefined: unreadable now. `isWhole` false: of a long message,
   * only samples.
   */
  digest?(device: number, request: WorkRequest, isWhole: boolean): number | undefined
  /** The hash of a send's buffer at its post; undefined: none was logged (`HashLog` in spec/session.ts). */
  postHash?(context: number, request: WorkRequest): { readonly hash: number; readonly isWhole: boolean } | undefined
  /** The stack of the call that has unmapped memory of this range of a program; undefined: unknown. */
  unmapStack?(program: Program, start: number, end: number): Stack | undefined
  /** Makes the driver report all receives that a context has posted, and all completions that it has polled. */
  scanContext?(device: number, context: number): void
  /**
   * Executes what sends of a context can be executed now, and reports polls. By `KnownObject.id`: how many sends of its
   * queue pairs are not complete then; undefined: unknown. `isDead`: its program has ended, nothing can be executed.
   */
  settleContext?(device: number, context: number, isDead: boolean): ReadonlyMap<number, number> | undefined
  /**
   * Whether a child of fork gets a copy of the page of this address; undefined: unknown. Absent: programs run without
   * the preload library, so `Checker.misused` is never called.
   */
  isCopiedByFork?(program: Program, address: number): boolean | undefined
  /** Whether what programs wait for is found too, such as `endless-rnr`. Absent: it is not. */
  readonly findsWaits?: boolean
  /** Absent: `sampled`. */
  readonly buffers?: BufferCheck
  /** The adapters of `--like`. */
  readonly adapters?: readonly AdapterName[]
  /**
   * False: programs are observed on adapters of the machine, which report no fetches and no packets. Findings that need
   * a device of ours are not made. Absent: true.
   */
  readonly hasDevice?: boolean
  /** Whether packets reach only devices of this process. Absent: unknown. */
  readonly isClosed?: boolean
  /** Whether a queue pair of any device of this process is in a multicast group; undefined: unknown. */
  hasMember?(group: Uint8Array): boolean | undefined
  /** Whether programs that are not checked use the device, so that it may have unknown queue pairs. Absent: never. */
  hasUnchecked?(device: number): boolean
  /**
   * The last fault rule that lost, damaged or delayed a packet to one of these queue pairs since `time`, in
   * microseconds; undefined: none.
   */
  lossTo?(qpns: readonly number[], time: number): string | undefined
  /** The send or receive of a queue pair that its device knows by this number; undefined: unknown. */
  requestOf?(device: number, qpn: number, isReceive: boolean, number: bigint): WorkRequest | undefined
  /** How many asynchronous events of a context its program has not read; undefined: unknown. */
  unreadEvents?(context: number): number | undefined
  /** RLIMIT_MEMLOCK of a process in bytes; infinite if it has no limit. */
  lockLimit?(program: Program): number
  /** Absent: the checker does not search for races. */
  readonly races?: RaceSources
}

/** For a checker that only gets calls and failures. */
export const noSources: CheckerSources = { now: () => 0, deviceName: () => '', postStack: () => [] }

/** The events that a detector receives. Events of requests are only about objects that the checker knows. */
export interface Detector extends Partial<RequestWatcher> {
  /**
   * A call on an object begins. If the object is a CQ, its earlier polls were reported before. If it is a region, the
   * earlier receives and polls of its context were reported before.
   */
  calling?(call: BeginningCall, object: KnownObject): void
  /** A program has unmapped memory of a registered region. */
  unmapped?(region: KnownObject): void
  /** A call on an object has ended; the call may have destroyed the object. */
  called?(call: CheckedCall, object: KnownObject): void
  /** A program has misused memory of a request of this queue (`Misuse`). */
  misused?(misuse: Misuse, owner: KnownObject): void
  /** The queue pairs and all else of a context end, `pendingSends` as in `ContextEnd`. */
  contextEnds?(end: ContextEnd): void
  /** A process that has not called ibv_fork_init is about to fork. */
  forked?(pid: number, stack: Stack): void
}

/** The fields of `CheckedCall` that are known when a call begins. */
export interface BeginningCall {
  readonly class: string
  readonly method: string
  readonly program: Program | undefined
  readonly args: Readonly<Record<string, unknown>>
  readonly stack: Stack
  /** If a queue pair is destroyed, reset or moved to ERR: how many of its sends are not complete. Absent: unknown. */
  readonly pendingSends?: number
  /** If a queue pair is destroyed: how many of its own receives no message has taken. Absent: unknown. */
  readonly pendingReceives?: number
}

export class DetectorServices {
  readonly objects: KnownObjects
  readonly deviceWithGid: DeviceWithGid
  readonly sources: CheckerSources
  readonly omit: NoteOmission
  readonly #reporter: FindingReporter

  constructor(objects: KnownObjects, reporter: FindingReporter, deviceWithGid: DeviceWithGid, sources: CheckerSources) {
    this.objects = objects
    this.deviceWithGid = deviceWithGid
    this.sources = sources
    this.omit = reporter.omit
    this.#reporter = reporter
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

  /** An occurrence now, with the stack of the post of a request of `owner`. */
  occurrenceAtPost(owner: KnownObject, request: WorkRequest): Occurrence {
    return this.occurrenceAt(owner, this.postStack(owner, request), 'posted')
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

/** Passes the events of requests of known objects to the detectors. */
export const watcherFor = (objects: KnownObjects, detectors: readonly Detector[]): RequestWatcher => {
  const receiversOf = <K extends keyof RequestWatcher>(event: K): readonly RequestWatcher[K][] =>
    detectors.flatMap(detector => {
      const receive = detector[event]?.bind(detector) as RequestWatcher[K] | undefined
      return receive === undefined ? [] : [receive]
    })
  const posted = receiversOf('posted')
  const ended = receiversOf('ended')
  const completed = receiversOf('completed')
  const receiveLost = receiversOf('receiveLost')
  const receiverNotReady = receiversOf('receiverNotReady')
  const polled = receiversOf('polled')
  const queueReset = receiversOf('queueReset')
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
    receiveLost(request) {
      if (isKnown(request.owner)) for (const receive of receiveLost) receive(request)
    },
    receiverNotReady(qp) {
      if (isKnown(qp)) for (const receive of receiverNotReady) receive(qp)
    },
    polled(cq, count) {
      if (isKnown(cq)) for (const receive of polled) receive(cq, count)
    },
    queueReset(owner) {
      if (isKnown(owner)) for (const receive of queueReset) receive(owner)
    },
  }
}
