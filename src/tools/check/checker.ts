/*
 * The engine of `userdma check`: calls, requests and failures of programs go in, findings come out. This file finds
 * mistakes in single calls, failed requests and connections. Detectors (detector.ts) find other mistakes. The engine
 * does no I/O, reads no clock and knows neither core nor daemon. Its memory is bounded.
 */

import { adapters } from '../../spec/check/adapters.ts'
import { causeText } from '../../spec/check/causes.ts'
import { type Failure, failureText } from '../../spec/check/failures.ts'
import type { Stack } from '../../spec/check/finding.ts'
import { type FindingId, findingOfCause, findings } from '../../spec/check/findings.ts'
import type { NoteOmission, Omission } from '../../spec/check/omissions.ts'
import type { RequestWatcher } from '../../spec/check/requests.ts'
import type { Severity } from '../../spec/check/severity.ts'
import { QP_CLASSES } from '../../spec/classes/qp/qp.ts'
import { QpState } from '../../spec/enums.ts'
import { Errno, errnoName } from '../../spec/errno.ts'
import type { Relapse } from '../../spec/faults.ts'
import { swap32 } from '../../spec/memory.ts'
import { DeadPart, EventKind, GiveBack, MisuseKind, ObjectKind, OrderMistake, PostQueue } from '../../spec/session.ts'
import { counted } from '../../spec/text.ts'
import { accessRangeLines, basedLines } from './access-range.ts'
import { createAdapterDetector } from './adapters.ts'
import {
  ADVICE_FOR_SOLICITED,
  adviceForCm,
  adviceForCmAttributes,
  adviceForFailure,
  adviceForUnsupported,
  CUT_NUMBER,
  cmFunctionIn,
  isNotYetBound,
} from './advice.ts'
import { batchText, type MistakenBatch } from './batches.ts'
import { createBufferDetector } from './buffers.ts'
import { adviceForRefusal, inC } from './c-words.ts'
import { createCmDisconnectDetector } from './cm-disconnects.ts'
import { createCmIdDetector } from './cm-ids.ts'
import { createCmPortDetector } from './cm-ports.ts'
import {
  areConnected,
  attributeTable,
  type DeviceWithGid,
  hasReachedRtr,
  mismatchBehind,
  mismatches,
  rdAtomicExceeds,
  swappedPsnLines,
} from './connection.ts'
import { createDatagramDetector } from './datagrams.ts'
import {
  type BeginningCall,
  type CheckerSources,
  type Detector,
  DetectorServices,
  noSources,
  watcherFor,
} from './detector.ts'
import type {
  CheckedCall,
  CheckedFailure,
  CheckedWait,
  ContextEnd,
  Death,
  LibraryRefusal,
  Misuse,
  RefusedAttempt,
  UseOfGone,
} from './events.ts'
import { reportDeath, reportGone } from './gone.ts'
import { IgnoredEvents } from './ignored-events.ts'
import { createIgnoredPosts, type IgnoredPosts } from './ignored-posts.ts'
import { busyContent, refusedByLibrary } from './library-refusals.ts'
import { createLifetimeDetector } from './lifetimes.ts'
import { lostIn, noteDropped, noteLostByDestroy } from './lost-work.ts'
import { createMemoryGoneDetector, type MemoryGone } from './memory-gone.ts'
import { explainNumber, type WrongNumber } from './numbers.ts'
import { hex, KnownObject, KnownObjects, moment, type QpAttributes, stateOf } from './objects.ts'
import { type Misorder, orderFinding, orderText } from './orders.ts'
import { before, type Outage, Outages } from './outages.ts'
import { createPeerDetector } from './peers.ts'
import { immediateOf, sharedElementsOf } from './posted-lists.ts'
import { createQueueDetector, type QueueDetector } from './queues/queues.ts'
import { createRaceDetector, type RaceDetector } from './races/detector.ts'
import { type RefusedPost, refusalOf } from './refused-post.ts'
import { type FindingContent, FindingReporter, type Occurrence, type ReportFinding } from './reporting.ts'

/** Whether a class has objects of verbs that programs have to destroy. Not channels: exit closes them. */
const isVerbsClass = (name: string): boolean =>
  ['pd', 'cq', 'mr', 'mw', 'ah', 'srq', 'xrc_srq', 'xrcd', ...QP_CLASSES].includes(name)

/** Whether an errno may mean wrong arguments, not a limit, a missing right or an unsupported feature. */
const isArgumentError = (errno: number): boolean => errno === Errno.EINVAL || errno === Errno.ENODATA

/** The severity of a refused call; undefined: no finding. Programs try features that a device may lack (EOPNOTSUPP). */
const severityOfRefusal = (class_: string, errno: number, isTrial: boolean): Severity | undefined => {
  if (!isVerbsClass(class_)) return undefined
  if (errno === Errno.EOPNOTSUPP) return 'note'
  const isOfMemory = errno === Errno.EFAULT && class_ === 'mr'
  return isArgumentError(errno) || isOfMemory ? (isTrial ? 'note' : 'warning') : undefined
}

/** What the program did with the failed request; `noticed`: the failure is not about a request. */
const failedActionOf = ({ kind, cause, wrId }: Failure): 'posted' | 'posted the receive' | 'noticed' => {
  if (kind === 'send' || cause.id === 'DATAGRAM_TOO_LONG') return 'posted'
  return kind === 'receive' || (kind === 'drop' && wrId !== undefined) ? 'posted the receive' : 'noticed'
}

/** The stack of the post of the failed request; empty: there is no request, or its stack is unknown. */
const postStackOf = ({ failure, postStack }: CheckedFailure, qp: KnownObject | undefined): Stack => {
  const action = failedActionOf(failure)
  if (qp?.qpn === undefined || action === 'noticed') return []
  if (action === 'posted') {
    const stack = postStack(PostQueue.SEND, qp.qpn)
    // Sends of the ibv_wr_ interface are logged as BATCH.
    return stack.length > 0 ? stack : postStack(PostQueue.BATCH, qp.qpn)
  }
  const srq = qp.uses.get('srq')
  return srq === undefined ? postStack(PostQueue.RECEIVE, qp.qpn) : postStack(PostQueue.SHARED, srq.handle)
}

const participles = (name: string): { readonly created: string; readonly destroyed: string } =>
  name === 'mr' ? { created: 'registered', destroyed: 'deregistered' } : { created: 'created', destroyed: 'destroyed' }

/**
 * Names a queue of a queue pair, an SRQ or a CQ. `queue`: a PostQueue, or EventKind.POLL for a CQ. `number`: the number
 * of the queue pair, or the handle of the SRQ or CQ.
 */
type QueueName = Pick<RefusedPost, 'deviceNumber' | 'context' | 'queue' | 'number'>

/** Which queue pair a dest_qp_num named, where it was destroyed, and what took its place; empty: no known one. */
const whichWas = (
  objects: KnownObjects,
  qp: KnownObject | undefined,
  peer: KnownObject | undefined,
  time: number,
): Pick<FindingContent, 'details' | 'moments'> => {
  const { destruction, program } = peer ?? {}
  if (peer === undefined || destruction === undefined) return {}
  const whose =
    program !== undefined && program.pid === qp?.program?.pid ? "this process's queue pair" : peer.nameWithProgram
  const successor = objects
    .queuePairsOf(peer.context)
    .find(one => one.destruction === undefined && one !== qp && one.creation.time >= destruction.time)
  const since = successor === undefined ? '' : `; its successor may be ${successor.name}, created since`
  return {
    details: [
      `dest_qp_num ${hex(peer.qpn ?? 0)} was ${whose}, ${destruction.action} ${before(destruction.time, time)}${since}`,
    ],
    moments: [
      moment(`the queue pair ${hex(peer.qpn ?? 0)} was ${destruction.action}`, destruction.time, destruction.stack),
    ],
  }
}

/** Findings that show `attributeTable`. `#reportUnanswered` always shows it. */
const showsBothEnds: ReadonlySet<FindingId> = new Set([
  'rd-atomic-exceeds',
  'no-receive-posted',
  'path-mtu-mismatch',
  'invalid-request',
  'psn-mismatch',
])

const inCmWords = (cmFunction: string | undefined): string =>
  cmFunction === undefined ? '' : `${cmFunction} fails, in a call that librdmacm makes for it: `

/** How a peer looks that has given up its connection. */
const GIVEN_UP: ReadonlySet<FindingId> = new Set(['no-peer-qp', 'peer-in-error', 'peer-not-ready'])

/** Of the key of a memory window that no bind has given it yet. */
const NOT_YET = 'is not bound yet: before the bind with it is complete, the key of this memory window is'

/** The part of a request, by DeadPart. */
const deadParts: Readonly<Record<number, string>> = {
  [DeadPart.LIST]: 'the struct',
  [DeadPart.ELEMENTS]: 'the list of elements',
  [DeadPart.BUFFER]: 'the buffer',
}

/** Detectors of every checker, except the detector of queues: the checker keeps a reference to it. */
const detectorFactories: readonly ((services: DetectorServices) => Detector)[] = [
  createBufferDetector,
  createDatagramDetector,
  createAdapterDetector,
  createCmIdDetector,
  createCmPortDetector,
  createCmDisconnectDetector,
  createPeerDetector,
]

export class Checker {
  readonly requests: RequestWatcher
  /** Number of calls so far. */
  calls = 0
  /** Undefined if `CheckerSources` has no `races`. */
  readonly races: RaceDetector | undefined
  readonly omit: NoteOmission
  readonly outages: Outages
  readonly ignoredEvents: IgnoredEvents
  /** Whether the program ends without having closed its devices: then open objects of the library are leaks too. */
  isExiting = false
  readonly #objects: KnownObjects
  readonly #deviceWithGid: DeviceWithGid
  readonly #reporter: FindingReporter
  readonly #services: DetectorServices
  readonly #queues: QueueDetector
  readonly #memoryGone: MemoryGone
  readonly #ignoredPosts: IgnoredPosts
  readonly #detectors: readonly Detector[]
  readonly #sources: CheckerSources
  /** Contexts whose programs have closed their descriptors: their objects are no leaks. */
  readonly #closedContexts = new Set<number>()

  /** `report` is called once for each distinct finding. */
  constructor(deviceWithGid: DeviceWithGid, report: ReportFinding, sources: CheckerSources = noSources) {
    this.#deviceWithGid = deviceWithGid
    this.#sources = sources
    this.#reporter = new FindingReporter(report, sources.hasDevice !== false)
    this.omit = this.#reporter.omit
    this.#objects = new KnownObjects(this.omit)
    const services = new DetectorServices(this.#objects, this.#reporter, deviceWithGid, sources)
    this.#services = services
    this.#queues = createQueueDetector(services)
    this.#memoryGone = createMemoryGoneDetector(services)
    this.#ignoredPosts = createIgnoredPosts(services)
    this.outages = new Outages(services)
    this.ignoredEvents = new IgnoredEvents(services, this.outages)
    this.races = sources.races && createRaceDetector(services, sources.races)
    const { isCopiedByFork } = sources
    this.watchesAccesses = isCopiedByFork !== undefined && sources.hasDevice !== false
    this.#detectors = [
      this.#queues,
      this.outages.detector,
      this.ignoredEvents.detector,
      this.#ignoredPosts,
      ...(this.watchesAccesses ? [this.#memoryGone] : []),
      ...detectorFactories.map(create => create(services)),
      ...(isCopiedByFork ? [createLifetimeDetector(services, isCopiedByFork)] : []),
      ...(this.races ? [this.races] : []),
    ]
    this.requests = watcherFor(this.#objects, this.#detectors)
  }

  /** Occurrences of each finding, by its number − 1. */
  get counts(): readonly number[] {
    return this.#reporter.counts
  }

  /** Programs that go on with failing completions. */
  get relapses(): readonly Relapse[] {
    return this.#queues.relapses.all
  }

  /** As `FindingReporter.beginFresh`. */
  beginFresh(): number {
    return this.#reporter.beginFresh()
  }

  /** Reports what has waited for more to be known. */
  settle(): void {
    this.races?.join()
    this.outages.settleAll()
  }

  /** What was left out so far, and how often. */
  get omissions(): readonly Omission[] {
    this.races?.join()
    return [...this.#reporter.omitted].map(([id, count]) => ({ id, count }))
  }

  // ---- calls ----

  /** A call on the object with this id begins. */
  calling(call: BeginningCall, id: number): void {
    const known = this.#objects.find(id)
    if (known === undefined) return
    noteLostByDestroy(call, known)
    for (const detector of this.#detectors) detector.calling?.(call, known)
  }

  /** The objects of a context are about to end. May be repeated: only the first counts. */
  contextEnds(device: number, context: number, how: ContextEnd['how']): void {
    this.outages.contextEnds(context, how)
    this.ignoredEvents.contextEnds(context, how)
    const pendingSends = this.#sources.settleContext?.(device, context, how === 'kill')
    if (pendingSends === undefined) return
    const end = { context, how, pendingSends }
    for (const detector of this.#detectors) detector.contextEnds?.(end)
  }

  /** A process that has not called ibv_fork_init is about to fork. */
  forked(pid: number, stack: Stack): void {
    for (const detector of this.#detectors) detector.forked?.(pid, stack)
  }

  /** A program has unmapped memory of the region with this id. */
  unmapped(id: number): void {
    const region = this.#objects.find(id)
    const { program, start, size } = region ?? {}
    const stack =
      program && start !== undefined && size !== undefined
        ? this.#sources.unmapStack?.(program, start, start + size)
        : undefined
    if (stack !== undefined) region?.addChange(moment('unmapped', this.#sources.now(), stack))
    if (region !== undefined) for (const detector of this.#detectors) detector.unmapped?.(region)
  }

  /** A call has ended. */
  called(call: CheckedCall): void {
    const before = call.object && (this.#objects.find(call.object.id) ?? this.#requestOf(call))
    this.calls++
    this.ignoredEvents.called(call)
    if (call.refused !== undefined) this.#refused(call, call.refused)
    else if (call.method === 'create') this.#created(call)
    else if (call.method === 'modify') this.#modified(call)
    else if (call.method === 'destroy') this.#destroyed(call)
    const known = before ?? (call.object && this.#objects.find(call.object.id))
    if (known !== undefined) for (const detector of this.#detectors) detector.called?.(call, known)
  }

  /** Adds the identifier of a call that no call has created: rdma_cm creates one for each request of a peer. */
  #requestOf(call: CheckedCall): KnownObject | undefined {
    const { object, method, time } = call
    if (object?.class.name !== 'cm_id' || method === 'create') return undefined
    const creation = moment('created for a request of the peer', time, [])
    const known = new KnownObject(object, { ...call, args: {}, out: {} }, creation, new Map())
    this.#objects.add(known)
    return known
  }

  #refused(call: CheckedCall, { errno, reason, isTrial = false }: NonNullable<CheckedCall['refused']>): void {
    const { object, method, why } = call
    if (why !== 'call') return
    const known = object && this.#objects.find(object.id)
    if (method === 'destroy' && errno === Errno.EBUSY) {
      if (this.ignoredEvents.isGone(call.context)) return
      this.#reporter.report('destroy-busy', call, busyContent(call.class, participles(call.class).destroyed, known))
      return
    }
    const severity = severityOfRefusal(call.class, errno, isTrial)
    if (severity === undefined) return
    const isMade = method === 'create' || method === 'modify'
    const sentence = call.isLibrary === true || call.program === undefined ? reason : inC(reason)
    const cmFunction = call.isLibrary === true ? undefined : cmFunctionIn(call.stack)
    const advice =
      adviceForCm(cmFunction) ??
      adviceForRefusal(sentence) ??
      (isMade ? adviceForUnsupported(call.class, errno) : undefined)
    const text = `${errnoName(errno)}: ${inCmWords(cmFunction)}${sentence}`
    const { address } = call.args as QpAttributes
    const left = errno === Errno.ENODATA && address && this.outages.whoLeft(call.deviceNumber, address.sgidIndex)
    if (left && this.ignoredEvents.refusedIndex(call, known, left)) return
    const details = left ? [left] : []
    this.#reporter.report('refused-call', call, { text, advice, severity, details, objects: [known] })
  }

  /** The program's library has refused a call without a call of the device. */
  refusedByLibrary(refusal: LibraryRefusal): void {
    // What uses the object can't be destroyed any more.
    if (refusal.errno === Errno.EBUSY && this.ignoredEvents.isGone(refusal.context ?? -1)) return
    refusedByLibrary(refusal, this.#objects, this.#reporter, (device, index) => this.outages.whoLeft(device, index))
  }

  /** Linux's call was refused before it became a call of a method, since it has none or could not be decoded. */
  refusedAttempt(refused: RefusedAttempt): void {
    const { attempt, errno, reason, ...occurrence } = refused
    if (errno === Errno.EIO) this.ignoredEvents.deviceGone(refused)
    if (!isArgumentError(errno)) return
    const sentence = inC(reason)
    // The sentence names the function, or the call as it was attempted.
    const cmFunction = cmFunctionIn(occurrence.stack)
    const text =
      sentence === reason
        ? `${attempt}: ${errnoName(errno)}: ${reason}`
        : `${errnoName(errno)}: ${inCmWords(cmFunction)}${sentence}`
    this.#reporter.report('refused-call', occurrence, {
      text,
      advice: adviceForCm(cmFunction) ?? adviceForRefusal(sentence),
    })
  }

  #created(call: CheckedCall): void {
    const { object, args } = call
    if (object === undefined) return
    const creation = moment(participles(call.class).created, call.time, call.stack)
    const known = new KnownObject(object, call, creation, this.#objects.usedBy(args))
    this.#objects.add(known)
    if (!known.isQp) return
    this.#setAttributes(known, args)
    for (const cq of new Set([known.uses.get('sendCq'), known.uses.get('recvCq')]))
      if (cq !== undefined) this.#checkCqSize(cq, call)
  }

  /** Reports a CQ that has fewer entries than its queue pairs can have requests. */
  #checkCqSize(cq: KnownObject, call: CheckedCall): void {
    let requests = 0
    for (const user of cq.users) {
      if (user.uses.get('sendCq') === cq) requests += user.requestedSends
      if (user.uses.get('recvCq') === cq && !user.uses.has('srq')) requests += user.requestedReceives
    }
    if (cq.isCounting || cq.size === undefined || requests <= cq.size) return
    const text = `${cq.name} has ${cq.size} entries, and ${requests} requests can complete into it`
    this.#reporter.report('cq-too-small', call, { text, objects: [cq, ...cq.users] })
  }

  #setAttributes(known: KnownObject, args: Readonly<Record<string, unknown>>): void {
    const { state } = args as QpAttributes
    if (state === QpState.values.RESET) for (const opener of this.#objects.openersOf(known)) opener.reset()
    // An attribute that is undefined is not changed.
    const isSet = ([, value]: [string, unknown]): boolean => value !== undefined
    Object.assign(known.attributes, Object.fromEntries(Object.entries(args).filter(isSet)))
  }

  #modified(call: CheckedCall): void {
    const known = call.object && this.#objects.find(call.object.id)
    if (known === undefined) return
    if (!known.isQp) {
      known.modified(call.args, call.out)
      known.addChange(moment('modified', call.time, call.stack))
      return
    }
    const { state } = call.args as QpAttributes
    this.#setAttributes(known, call.args)
    const action = state === undefined ? 'modified' : `modified to ${stateOf(known)}`
    known.addChange(moment(action, call.time, call.stack))
    if (state === QpState.values.RTS && known.attributes.timeout === 0)
      this.#reporter.report('infinite-timeout', call, { text: `${known.name} has timeout 0`, objects: [known] })
    if (state === QpState.values.RTR && this.#peerOf(known) === known)
      this.#reporter.report('connected-to-itself', call, {
        text: `${known.name} is connected to itself`,
        objects: [known],
      })
  }

  #destroyed(call: CheckedCall): void {
    const known = call.object && this.#objects.find(call.object.id)
    if (known === undefined) return
    if (known.isQp) this.#checkConnection(known, call)
    const action = {
      call: participles(call.class).destroyed,
      undo: 'rolled back',
      close: 'closed with its device',
      remove: 'removed with its device',
    }[call.why]
    this.#objects.remove(known, moment(action, call.time, call.stack))
    const isLeft = call.why === 'close' && !this.#closedContexts.has(call.context)
    if (isLeft && isVerbsClass(known.class) && !known.isInternal)
      this.#reporter.report(
        'leak',
        { ...call, stack: known.creation.stack, action: known.creation.action },
        {
          text: `${known.name} was never ${participles(call.class).destroyed}`,
          // The library documents that a device's close closes its objects.
          ...(known.isOfLibrary && !this.isExiting && { severity: 'note' as const }),
          ...(call.wasKilled && { wasKilled: true }),
        },
      )
  }

  /** The TypeScript library has created an object for itself: if it stays open, that is no leak of the program. */
  markInternal(context: number, className: string, handle: number): void {
    const known = this.#objects.byHandle(context, className, handle)
    if (known !== undefined) known.isInternal = true
  }

  /** The requests of an RC queue pair are frames of the library: when and whether they end is not up to the program. */
  markMessages(context: number, handle: number): void {
    const known = this.#objects.byHandle(context, 'rc_qp', handle)
    if (known !== undefined) known.hasMessages = true
  }

  /**
   * A queue pair is destroyed: reports that its peer never existed, or that their attributes do not fit. After a
   * reported failure it reports nothing: the mismatch may have caused the failure.
   */
  #checkConnection(qp: KnownObject, call: CheckedCall): void {
    const peer = this.#peerOf(qp)
    // An XRC target is checked when its last opener closes it.
    if (qp.isReported || this.#objects.openersOf(qp).size > 1) return
    const peerDevice = this.#peerDeviceOf(qp)
    const knowsAllPeers =
      peerDevice !== undefined && !this.#sources.hasUnchecked?.(peerDevice) && this.#objects.isComplete
    const { destQpn } = qp.attributes
    // An initiator or target of DC is connected to no queue pair.
    const { meant, ...wrong } = this.#wrongNumber(peerDevice, destQpn)
    if (peer === undefined && destQpn !== undefined && hasReachedRtr(qp) && knowsAllPeers)
      this.#reporter.report(
        'no-peer-qp',
        { ...call, program: qp.program, action: 'disconnected' },
        {
          severity: 'warning',
          text: `${qp.nameWithProgram} was connected to QP ${hex(destQpn)}, which never existed`,
          ...wrong,
          objects: [qp, meant],
        },
      )
    if (peer === undefined || peer === qp || peer.destruction !== undefined) return
    if (!areConnected(qp, peer, this.#deviceWithGid)) return
    const id =
      mismatches(qp, peer, this.#deviceWithGid)[0] ?? (rdAtomicExceeds(qp, peer) ? 'rd-atomic-exceeds' : undefined)
    if (id === undefined) return
    this.#reporter.report(
      id,
      { ...call, program: qp.program, action: 'disconnected' },
      {
        severity: 'warning',
        text: `${qp.nameWithProgram} was connected to ${peer.nameWithProgram}: ${findings[id].title}`,
        details: [...swappedPsnLines(qp, peer), ...attributeTable(qp, peer)],
        objects: [qp, peer],
      },
    )
  }

  /** The number of the peer's device; undefined: there is no peer, or its device is not of this process. */
  #peerDeviceOf({ attributes: { address } }: KnownObject): number | undefined {
    return address && this.#deviceWithGid(address.dgid)
  }

  /** What is known of the dest_qp_num of no queue pair; empty: nothing. */
  #wrongNumber(device: number | undefined, qpn: number | undefined): WrongNumber {
    if (device === undefined || qpn === undefined || this.#objects.qp(device, qpn) !== undefined) return {}
    return explainNumber(this.#objects, device, qpn)
  }

  #peerOf(qp: KnownObject): KnownObject | undefined {
    const device = this.#peerDeviceOf(qp)
    const { destQpn } = qp.attributes
    return device === undefined || destQpn === undefined ? undefined : this.#objects.qp(device, destQpn)
  }

  #queueOf({ deviceNumber, context, queue, number }: QueueName): KnownObject | undefined {
    if (queue === EventKind.POLL) return this.#objects.byHandle(context, 'cq', number)
    return queue === PostQueue.SHARED
      ? (this.#objects.byHandle(context, 'srq', number) ?? this.#objects.byHandle(context, 'xrc_srq', number))
      : this.#objects.qp(deviceNumber, number)
  }

  /** The preload library of a program reports wrong use of memory or a queue. */
  misused(misuse: Misuse): void {
    if (misuse.kind === MisuseKind.CLOSED) {
      this.#closed(misuse)
      return
    }
    if (misuse.kind === MisuseKind.INHERITED && misuse.index === 1) {
      this.#destroyedByChild(misuse)
      return
    }
    if (misuse.kind === MisuseKind.GAVE_BACK) {
      this.#gaveBack(misuse)
      return
    }
    const owner = this.#queueOf(misuse)
    const { deviceNumber, context, kind, queue, program } = misuse
    if (owner === undefined || owner.destruction !== undefined) return
    if (kind === MisuseKind.INHERITED) {
      const text = `process ${program?.pid ?? '?'} ${queue === EventKind.POLL ? 'polls' : 'posts to'} ${owner.nameWithProgram}, whose context it inherited by fork`
      this.#reporter.report('context-inherited', { ...misuse, action: 'used' }, { text, objects: [owner] })
      return
    }
    if (kind === MisuseKind.SHORT_ARRAY) {
      const { index: entries, more: room } = misuse
      this.#reporter.report('array-too-short', misuse, {
        text: `ibv_poll_cq on ${owner.name} with num_entries ${entries}: the array of struct ibv_wc at ${hex(misuse.address)} is on the stack, and has room for at most ${counted(room, 'completion')}; more were not polled`,
        objects: [owner],
      })
      return
    }
    if (kind === MisuseKind.DEAD_POST) {
      const part = deadParts[misuse.index] ?? 'the memory'
      const region = misuse.index === DeadPart.BUFFER ? this.#objects.regionAt(context, misuse.address) : undefined
      this.#reporter.report(
        'frame-returned',
        { ...misuse, action: 'posted' },
        {
          text: `${part} of ${queue === PostQueue.SEND ? 'the send' : 'the receive'} wr_id ${misuse.wrId} of ${owner.name} was in a stack frame that had returned when it was posted`,
          objects: [owner, region],
        },
      )
      return
    }
    if (kind === MisuseKind.SHARED_ELEMENTS || kind === MisuseKind.IMMEDIATE) {
      const { id, ...content } =
        kind === MisuseKind.IMMEDIATE ? immediateOf(misuse, owner) : sharedElementsOf(misuse, owner)
      this.#reporter.report(id, { ...misuse, action: 'posted' }, { ...content, objects: [owner] })
      return
    }
    if (kind === MisuseKind.ACKNOWLEDGED) {
      this.#overacknowledged(misuse, owner)
      return
    }
    // The detectors must see the posts and polls before the misuse.
    this.#sources.scanContext?.(deviceNumber, context)
    for (const detector of this.#detectors) detector.misused?.(misuse, owner)
  }

  /** The program closes the descriptor of a context: its objects end with it. */
  #closed(misuse: Misuse): void {
    const { context, index, program, device } = misuse
    this.#closedContexts.add(context)
    this.#reporter.report(
      'descriptor-closed',
      { ...misuse, action: 'closed' },
      {
        text: `process ${program?.pid ?? '?'} closes descriptor ${index}, that of its context of ${device}, by close: the device destroys all objects of the context, and later calls fail`,
      },
    )
  }

  #destroyedByChild(misuse: Misuse): void {
    const { number, deviceNumber, program } = misuse
    const owner = this.#objects.qp(deviceNumber, number)
    if (owner === undefined) return
    this.#reporter.report(
      'context-inherited',
      { ...misuse, action: 'destroyed' },
      {
        text: `process ${program?.pid ?? '?'}, a child, destroys ${owner.nameWithProgram}, whose context it inherited by fork: the parent loses it`,
        advice:
          'end the child by _exit, or exec, so that it does not run the clean-up of its parent (atexit, destructors)',
        objects: [owner],
      },
    )
  }

  /** Whether `accessed` is of use: only the preload library tells of memory that is given back. */
  readonly watchesAccesses: boolean
  /** A peer accesses registered memory; `hi`, `lo`: its address in requests. `access`: ibv_access_flags. `qpn`: the responder's. */
  accessed(device: number, rkey: number, hi: number, lo: number, length: number, access: number, qpn: number): void {
    this.#memoryGone.accessed(device, rkey, hi, lo, length, access, qpn)
  }

  #gaveBack({ context, deviceNumber, number, address, wrId, index, more, time, stack }: Misuse): void {
    const region = this.#objects.byHandle(context, 'mr', number)
    if (region?.start === undefined || region.iova === undefined || region.destruction !== undefined) return
    // The detector must see what was posted before the report, which comes late.
    this.#sources.scanContext?.(deviceNumber, context)
    if (index === GiveBack.REUSABLE) {
      this.#memoryGone.reusable(region, time)
      return
    }
    const offset = region.iova - region.start
    this.#memoryGone.gaveBack({
      region,
      how: index,
      start: address + offset,
      end: Number(wrId) + offset,
      isKept: more === 1,
      time,
      stack,
    })
  }

  #overacknowledged({ index: count, more: read, address, wrId, context, ...at }: Misuse, object: KnownObject): void {
    const other = wrId === 0n ? undefined : this.#objects.byHandle(context, 'cq', Number(wrId) - 1)
    const isOther = other !== undefined && other !== object && other.destruction === undefined
    const call = address === 1 ? 'ibv_ack_async_event' : 'ibv_ack_cq_events'
    const events = `${counted(count, 'event')} of ${object.name}`
    const rest = read === 0 ? 'none was' : `only ${read} of them ${read === 1 ? 'was' : 'were'}`
    const where = isOther ? `; the event that this thread has read last is of ${other.name}` : ''
    this.#reporter.report(
      'events-overacknowledged',
      { ...at, context },
      {
        text: `${call} acknowledges ${events}, and ${rest} read and not acknowledged yet${where}`,
        ...(isOther && { advice: 'acknowledge the event of the CQ that ibv_get_cq_event has returned' }),
        objects: [object, isOther ? other : undefined],
      },
    )
  }

  /** A program has used an object that it has destroyed. */
  usedGone(use: UseOfGone): void {
    reportGone(this.#services, use)
  }

  /** A program has taken memory of a queue by a provider's function, so its posts may not be seen. */
  postsDirectly(pid: number, name: string): void {
    this.#reporter.postsDirectly(pid, name)
  }

  /** A signal ends a program. */
  died(death: Death): void {
    reportDeath(this.#services, death)
  }

  /** The preload library of a program reports a mistake in a batch of ibv_wr_*. */
  batchMistaken(batch: MistakenBatch): void {
    const qp = this.#queueOf({ ...batch, queue: PostQueue.SEND })
    const content = qp && batchText(batch, qp)
    if (content !== undefined) this.#reporter.report('batch-misused', batch, { ...content, objects: [qp] })
  }

  /** The preload library of a program reports calls on a queue in a wrong order, or by threads that were excluded. */
  misordered(order: Misorder): void {
    const { object, context, deviceNumber, number, time, stack, since } = order
    const target =
      object === ObjectKind.CQ ? this.#objects.byHandle(context, 'cq', number) : this.#objects.qp(deviceNumber, number)
    if (order.mistake === OrderMistake.FURTHER_POLLER) {
      if (target === undefined) return
      const first = target.pollers.length === 0 ? [moment('polled by one thread', time, since)] : target.pollers
      target.pollers = [...first, moment('polled by another thread', time, stack)]
      return
    }
    const content = target && orderText(order, target)
    if (content !== undefined) this.#reporter.report(orderFinding(order), order, { ...content, objects: [target] })
  }

  /** The program's library has refused a post. */
  refusedPost(post: RefusedPost): void {
    const target = this.#queueOf(post)
    const { id, text, advice, severity: least } = refusalOf(post, target)
    // Not `error`: the program gets the errno and can handle it.
    const severity = post.severity ?? least ?? (findings[id].severity === 'note' ? 'note' : 'warning')
    const names = id === 'queue-full' && post.queue === PostQueue.SEND ? (this.#sources.adapters ?? []) : []
    const details = names.flatMap(name => {
      const source: string | undefined = adapters[name].freesAtPoll
      return source === undefined ? [] : [`${name} frees slots only when completions are polled; source: ${source}`]
    })
    this.#reporter.report(id, { ...post, action: 'posted' }, { text, details, advice, severity, objects: [target] })
    if (target !== undefined && post.request !== undefined) this.#ignoredPosts.refused(post, id, target)
  }

  // ---- waits ----

  /** The driver reports all receives and polls so far. */
  scan(): void {
    for (const { device, context } of this.#objects.contexts()) this.#sources.scanContext?.(device, context)
  }

  /** A program waits for a completion, an event or a message that does not come. */
  waits({ wait, ...at }: CheckedWait): void {
    const { deviceNumber, context } = at
    const {
      id,
      severity,
      text: inDeviceWords,
      qpns = [],
      peerDevice = deviceNumber,
      cq: handle,
      channel: channelHandle,
      cmId,
      request,
    } = wait
    const own =
      request && this.#sources.requestOf?.(deviceNumber, request.number, request.queue !== PostQueue.SEND, request.wrId)
    const text = own
      ? inDeviceWords.replace(/(?:wr_id|block|request) (\d+)/, (whole, number) =>
          BigInt(number) === request.wrId ? `wr_id ${own.wrId}` : whole,
        )
      : inDeviceWords
    const cq = handle === undefined ? undefined : this.#objects.byHandle(context, 'cq', handle)
    const channel =
      channelHandle === undefined ? undefined : this.#objects.byHandle(context, 'comp_channel', channelHandle)
    const withoutChannel =
      channel === undefined
        ? []
        : this.#objects.existingIn(context).filter(({ class: name, uses }) => name === 'cq' && !uses.has('channel'))
    const identifier = cmId === undefined ? undefined : this.#objects.byHandle(context, 'cm_id', cmId)
    const waited = cq ?? channel ?? identifier
    const named = qpns.map((qpn, i) => this.#objects.qp(i === 0 ? deviceNumber : peerDevice, qpn))
    // A peer that an error has kept from its connection, or from its end, is no mistake of its own.
    const isConsequence = id === 'peer-gone' && (this.#reporter.hasErrors || named.some(qp => qp?.isReported === true))
    const leastSeverity = isConsequence ? ('note' as const) : severity
    const arming = cq && this.#queues.reportsWait(cq)
    this.#ignoredPosts.waits(context)
    const posted = request && this.#services.postStackIn(request.context ?? context, own ?? request)
    const occurrence: Occurrence =
      posted === undefined || cq !== undefined
        ? {
            ...at,
            stack: arming ?? waited?.creation.stack ?? [],
            action: arming ? 'armed' : (waited?.creation.action ?? ''),
          }
        : { ...at, stack: posted, action: 'posted' }
    const lost = id === 'idle-queues' ? lostIn(this.#objects, context) : undefined
    this.#reporter.report(id, occurrence, {
      text,
      ...lost,
      ...(cq !== undefined &&
        posted !== undefined && {
          moments: [moment('posted by the sender', at.time, posted)],
          advice: ADVICE_FOR_SOLICITED,
        }),
      ...(leastSeverity && { severity: leastSeverity }),
      // After an error the queues stand still: that explains nothing.
      ...(!(this.#reporter.hasErrors && (isConsequence || id === 'idle-queues')) && { isWait: true as const }),
      ...(channel && { advice: 'pass the channel to ibv_create_cq, and arm the CQ (ibv_req_notify_cq)' }),
      objects: [...named, waited, ...withoutChannel],
    })
  }

  // ---- failures ----

  /** A request failed, or a device reported another failure (spec/check/failures.ts). */
  failed(failed: CheckedFailure): void {
    const { time, deviceNumber, context, failure, peerDevice } = failed
    const { device, qpn, cause, kind } = failure
    const qp = qpn === undefined ? undefined : this.#objects.qp(deviceNumber, qpn)
    const idOfCause = findingOfCause(cause.id)
    // Events such as COMM_EST are no failures: their causes have no finding.
    if (idOfCause === undefined || kind === 'flush') return
    if (qp !== undefined && kind === 'drop') noteDropped(qp, failure, causeText(cause))
    else if (qp !== undefined) qp.failure ??= failure
    // datagrams.ts has reported the mismatch, unless the sender is unknown or sends to a multicast group.
    if (cause.id === 'QKEY_DIFFERS' && this.#objects.hasSentWrongQkey(Number(cause.args.sourceQpn))) return
    // An event repeats the failure of the CQ, or the failed request of a peer in this process.
    const isRepeated = cause.id === 'COMPLETION_LOST' || (qp !== undefined && this.#peerDeviceOf(qp) !== undefined)
    if (kind === 'event' && isRepeated) return
    const peer = this.#peerOfFailure(failed, qp)
    // A device moves queue pairs to ERR and SQE without a call.
    if (peer !== undefined && typeof failure.peer?.state === 'number') peer.attributes.state = failure.peer.state
    for (const end of [qp, peer]) if (end !== undefined) end.isReported = true
    const mismatch = qp !== undefined && peer !== undefined ? mismatchBehind(cause.id, qp, peer) : undefined
    const isAhead = cause.id === 'RKEY_OLD' && isNotYetBound(cause.args)
    const id = mismatch ?? (isAhead ? 'window-not-bound' : idOfCause)
    const occurrence: Occurrence = {
      time,
      device,
      context,
      program: failed.program ?? qp?.program,
      stack: postStackOf(failed, qp),
      action: failedActionOf(failure),
    }
    if (id === 'no-answer') {
      const outage = this.outages.behind(time, deviceNumber, qp, peerDevice, failure.peer)
      if (outage === undefined || !this.#isOutage(outage, failure, qp, peer))
        this.#reportUnanswered(occurrence, failure, qp, peer)
      else {
        const details = qp === undefined || peer === undefined ? [] : attributeTable(qp, peer)
        this.outages.unanswered(occurrence, { text: failureText(failure), details, objects: [qp, peer] }, outage)
      }
    } else {
      const key = cause.args.key
      const keyDevice = failure.isCauseAtPeer === true ? peerDevice : deviceNumber
      const regionWith = (number: unknown): KnownObject | undefined =>
        typeof number === 'number' && keyDevice !== undefined ? this.#objects.region(keyDevice, number) : undefined
      const region = regionWith(key)
      const swapped = typeof key === 'number' && region === undefined ? swap32(key) : undefined
      const meant = regionWith(swapped)
      const cut =
        typeof key === 'number' && keyDevice !== undefined && region === undefined && meant === undefined
          ? this.#objects.regionWithLowBits(keyDevice, key)
          : undefined
      const address = cause.id === 'LKEY_UNKNOWN' ? cause.args.accessStart : undefined
      const atAddress =
        typeof address === 'bigint' && meant === undefined
          ? this.#objects.regionAt(context, Number(address))
          : undefined
      this.#reporter.report(id, occurrence, {
        text: isAhead
          ? failureText(failure).replace('is stale: the key of this memory window is now', NOT_YET)
          : failureText(failure),
        advice: cut === undefined ? (adviceForFailure(failure, qp) ?? adviceForCmAttributes(id, qp)) : CUT_NUMBER,
        details: [
          ...(atAddress === undefined || typeof address !== 'bigint'
            ? []
            : [`the address ${hex(address)} is in ${atAddress.name}, whose lkey is ${hex(atAddress.lkey ?? 0)}`]),
          ...(swapped !== undefined && meant !== undefined
            ? [`in the other byte order the key is ${hex(swapped)}, of ${meant.name}`]
            : []),
          ...(cut === undefined
            ? []
            : [`${hex(Number(key))} is the lower 16 bits of ${hex(cut.rkey ?? 0)}, of ${cut.name}`]),
          ...accessRangeLines(failure),
          ...basedLines(failure, region),
          ...(id === 'no-receive-posted' && qp !== undefined && peer !== undefined
            ? this.#queues.receiveCounts(qp, peer)
            : []),
          ...(qp !== undefined && peer !== undefined && showsBothEnds.has(id)
            ? [...swappedPsnLines(qp, peer), ...attributeTable(qp, peer)]
            : []),
        ],
        objects: [
          qp,
          peer,
          region ?? meant ?? cut ?? atAddress,
          this.#objectOfCause(failed),
          id === 'no-receive-posted' ? peer?.uses.get('srq') : undefined,
        ],
      })
    }
  }

  #peerOfFailure({ failure, peerDevice }: CheckedFailure, qp: KnownObject | undefined): KnownObject | undefined {
    // The requester finds BAD_RESPONSE and names no peer.
    if (failure.cause.id === 'BAD_RESPONSE' && qp !== undefined) return this.#peerOf(qp)
    if (failure.peer === undefined || peerDevice === undefined) return undefined
    return this.#objects.qp(peerDevice, failure.peer.qpn)
  }

  /** The object that the arguments of a cause name; undefined: none, or an unknown object. */
  #objectOfCause({ deviceNumber, context, failure: { cause } }: CheckedFailure): KnownObject | undefined {
    const { cq, object, number } = cause.args
    if (typeof cq === 'number') return this.#objects.byHandle(context, 'cq', cq)
    if (typeof object !== 'string' || typeof number !== 'number') return undefined
    if (object === 'qp') return this.#objects.qp(deviceNumber, number)
    return this.#objects.byHandle(context, object === 'id' ? 'cm_id' : object, number)
  }

  /** Whether an outage is the reason, and no mismatch of the ends: those that follow from the outage do not count. */
  #isOutage(
    { since, isRule }: Outage,
    { peer: named }: Failure,
    qp: KnownObject | undefined,
    peer: KnownObject | undefined,
  ): boolean {
    if (qp === undefined || peer === undefined) return named?.state !== 'none'
    // While an address is away, no device has it.
    const areEachOthers = qp.attributes.destQpn === peer.qpn && peer.attributes.destQpn === qp.qpn
    const reason = mismatches(qp, peer, this.#deviceWithGid).find(
      one => one !== 'peer-connected-elsewhere' || !areEachOthers,
    )
    if (reason === undefined || !GIVEN_UP.has(reason)) return reason === undefined
    const changed = peer.destruction ?? peer.changes.at(-1)
    return (
      (peer.failure !== undefined && findingOfCause(peer.failure.cause.id) === 'no-answer') ||
      (!isRule && changed !== undefined && changed.time >= since)
    )
  }

  /**
   * Retries ran out. The finding is `no-peer-qp` if the peer's device has no such queue pair, else the first mismatch,
   * else `no-answer`. If the first mismatch is `peer-in-error`, the finding is the peer's own first failure, if known.
   */
  #reportUnanswered(
    occurrence: Occurrence,
    failure: Failure,
    qp: KnownObject | undefined,
    peer: KnownObject | undefined,
  ): void {
    const text = failureText(failure)
    const objects = [qp, peer]
    if (failure.peer?.state === 'none') {
      const peerDevice = qp && this.#peerDeviceOf(qp)
      const { meant, ...wrong } = this.#wrongNumber(peerDevice, failure.peer.qpn)
      this.#reporter.report('no-peer-qp', occurrence, {
        text,
        ...whichWas(this.#objects, qp, peer, occurrence.time),
        ...wrong,
        objects: [...objects, meant],
      })
      return
    }
    if (qp === undefined || peer === undefined) {
      this.#reporter.report('no-answer', occurrence, { text, objects })
      return
    }
    const details = [...swappedPsnLines(qp, peer), ...attributeTable(qp, peer)]
    const [reason] = mismatches(qp, peer, this.#deviceWithGid)
    const root = reason === 'peer-in-error' ? peer.failure : undefined
    const rootId = root && findingOfCause(root.cause.id)
    if (root !== undefined && rootId !== undefined)
      this.#reporter.report(rootId, occurrence, {
        text: `${text}: the peer failed first: ${failureText(root)}`,
        details,
        objects,
      })
    else if (reason !== undefined)
      this.#reporter.report(reason, occurrence, { text: `${text}: ${findings[reason].title}`, details, objects })
    else this.#reporter.report('no-answer', occurrence, { text, details, objects })
  }
}
