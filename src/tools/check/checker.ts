/*
 * The engine of `userdma check`: calls, requests and failures of programs go in, findings come out. This file finds
 * mistakes in single calls, failed requests and connections. Detectors (detector.ts) find other mistakes. The engine
 * does no I/O, reads no clock and knows neither core nor daemon. Its memory is bounded.
 */

import { OrderMistake } from '../../spec/call-mistakes.ts'
import { adapters } from '../../spec/check/adapters.ts'
import type { Stack } from '../../spec/check/finding.ts'
import { findings } from '../../spec/check/findings.ts'
import type { NoteOmission, Omission } from '../../spec/check/omissions.ts'
import type { PeerFacts, PeerQuestion } from '../../spec/check/peer-facts.ts'
import type {
  BeginningCall,
  CheckedCall,
  CheckedFailure,
  CheckedWait,
  ContextEnd,
  Death,
  LibraryRefusal,
  Misorder,
  MistakenBatch,
  ProgramEvent,
  ProgramEventName,
  RefusedAttempt,
  RefusedPost,
  UseOfGone,
} from '../../spec/check/program-events.ts'
import type { RequestWatcher } from '../../spec/check/requests.ts'
import type { Severity } from '../../spec/check/severity.ts'
import { isQueuePairClass, isSrqClass } from '../../spec/classes/ids.ts'
import { AsyncEventType, QpState } from '../../spec/enums.ts'
import { Errno, errnoName } from '../../spec/errno.ts'
import type { Relapse } from '../../spec/faults.ts'
import type { PreloadEventName } from '../../spec/preload-events.ts'
import type { Reason } from '../../spec/reason.ts'
import { ObjectKind, PostQueue } from '../../spec/session.ts'
import { addressText } from '../../transport/wire/address.ts'
import { createAdapterDetector } from './adapters.ts'
import { ADVICE_FOR_ROUTE, adviceForCm, adviceForUnsupported, cmFunctionIn } from './advice.ts'
import { createArrayDetector } from './array-too-short.ts'
import { batchText } from './batches.ts'
import { createBufferDetector } from './buffers.ts'
import { adviceForRefusal, cFunctionOf, inC } from './c-words.ts'
import { createCmAnswerDetector } from './cm-answers.ts'
import { createCmDisconnectDetector } from './cm-disconnects.ts'
import { createCmIdDetector } from './cm-ids.ts'
import { createCmPortDetector } from './cm-ports.ts'
import {
  areConnected,
  attributeTable,
  type DeviceWithGid,
  hasReachedRtr,
  mismatches,
  psnLines,
  rdAtomicExceeds,
} from './connection.ts'
import { createInheritanceDetector } from './context-inherited.ts'
import { createDatagramDetector } from './datagrams.ts'
import { createDescriptorDetector } from './descriptor-closed.ts'
import { type CheckerSources, type Detector, DetectorServices, noSources, watcherFor } from './detector.ts'
import { createAcknowledgementDetector } from './events-overacknowledged.ts'
import { FailureReports } from './failed.ts'
import { type RefusedCreation, reportDeath, reportGone } from './gone.ts'
import { IgnoredEvents } from './ignored-events.ts'
import { createIgnoredPosts, type IgnoredPosts } from './ignored-posts.ts'
import { createImmediateDetector } from './immediate-byte-order.ts'
import { createLearntDetector, type LearntDetector } from './lends/learnt.ts'
import { createLendDetector, type LendDetector, type LentRange } from './lends/lends.ts'
import { busyContent, refusedByLibrary } from './library-refusals.ts'
import { createLidPathDetector } from './lid-paths.ts'
import { createLifetimeDetector } from './lifetimes.ts'
import { createPostedAgainDetector } from './list-posted-again.ts'
import { noteLostByDestroy } from './lost-work.ts'
import { createMemoryGoneDetector, type MemoryGone } from './memory-gone.ts'
import { factsOf } from './net-peers.ts'
import { addressIn, hex, KnownObject, KnownObjects, moment, type QpAttributes, queueOf, stateOf } from './objects.ts'
import { orderFinding, orderText } from './orders.ts'
import { Outages } from './outages.ts'
import { createPeerDetector } from './peers.ts'
import { createHandlerDetector } from './poll-in-handler.ts'
import { createLatePollDetector } from './polled-after-destroy.ts'
import { createDeadPostDetector } from './posted-dead.ts'
import { preloadDispatch } from './preload-events.ts'
import { createPrivateFileDetector, type PrivateFiles } from './private-files.ts'
import { createQueueDetector, type QueueDetector } from './queues/queues.ts'
import { createRaceDetector, type RaceDetector } from './races/detector.ts'
import { refusalOf } from './refused-post.ts'
import { FindingReporter, POSTED, type ReportFinding } from './reporting.ts'
import { createRequestOrders, type RequestOrders } from './request-orders.ts'
import { createSharedElementsDetector } from './shared-elements.ts'
import { Stories } from './story/lines.ts'
import { StoryRecorder } from './story/recorder.ts'
import { createSwaps, type Swaps } from './swaps.ts'
import { createDeadlockDetector } from './waits/deadlock.ts'
import { type MemoryInSentence, memoryAt } from './waits/memory.ts'
import { createPeerGoneDetector } from './waits/peer-gone.ts'
import { createWaitReports } from './waits/report.ts'
import { createWho, type Who } from './who.ts'

/** Whether a class has objects of verbs that programs have to destroy. Not channels: exit closes them. */
const isVerbsClass = (name: string): boolean =>
  ['pd', 'cq', 'mr', 'mw', 'ah', 'xrcd'].includes(name) || isSrqClass(name) || isQueuePairClass(name)

/** Whether an errno may mean wrong arguments, not a limit, a missing right or an unsupported feature. */
const isArgumentError = (errno: number): boolean => errno === Errno.EINVAL || errno === Errno.ENODATA

/** Whether the system has no route to the address of a call. */
const isWithoutRoute = (errno: number): boolean => errno === Errno.ENETUNREACH || errno === Errno.EHOSTUNREACH

/** The severity of a refused call; undefined: no finding. Programs try features that a device may lack (EOPNOTSUPP). */
const severityOfRefusal = (class_: string, errno: number, { code }: Reason): Severity | undefined => {
  if (code === 'lock-limit') return 'warning'
  if (!isVerbsClass(class_)) return undefined
  if (errno === Errno.EOPNOTSUPP) return 'note'
  const isOfMemory = errno === Errno.EFAULT && class_ === 'mr'
  if (!isArgumentError(errno) && !isOfMemory && !isWithoutRoute(errno)) return undefined
  return code === 'unknown-limit' ? 'note' : 'warning'
}

/** Programs whose last refused creation is known. */
const MAX_REFUSED_CREATIONS = 1024

const participles = (name: string): { readonly created: string; readonly destroyed: string } =>
  name === 'mr' ? { created: 'registered', destroyed: 'deregistered' } : { created: 'created', destroyed: 'destroyed' }

const inCmWords = (cmFunction: string | undefined): string =>
  cmFunction === undefined ? '' : `${cmFunction} fails, in a call that librdmacm makes for it: `

/** Failures about which another host is asked whose stories are made before the answer; of later ones afterwards. */
const MAX_HELD_STORIES = 256

type Taker<K extends ProgramEventName> = (checker: Checker, event: ProgramEvent<K>) => void

/** What the checker does with each event, apart from those of preload libraries. */
const takers: { readonly [K in Exclude<ProgramEventName, PreloadEventName>]: Taker<K> } = {
  calling: (checker, call) => checker.calling(call),
  called: (checker, call) => checker.called(call),
  contextEnds: (checker, end) => checker.contextEnds(end),
  forked: (checker, { pid, stack }) => checker.forked(pid, stack),
  unmapped: (checker, { object }) => checker.unmapped(object),
  usedGone: (checker, use) => checker.usedGone(use),
  postsDirectly: (checker, { pid, name }) => checker.postsDirectly(pid, name),
  died: (checker, death) => checker.died(death),
  batchMistaken: (checker, batch) => checker.batchMistaken(batch),
  misordered: (checker, order) => checker.misordered(order),
  refusedPost: (checker, post) => checker.refusedPost(post),
  refusedByLibrary: (checker, refusal) => checker.refusedByLibrary(refusal),
  refusedAttempt: (checker, attempt) => checker.refusedAttempt(attempt),
  waits: (checker, wait) => checker.waits(wait),
  failed: (checker, failure) => checker.failed(failure),
  gids: ({ outages }, { device, gids }) => outages.gidsOf(device, gids),
  portEvent: (checker, { device, type, gids }) => checker.portEvent(device, type, gids),
  deviceEvent: ({ ignoredEvents }, { device, type }) => ignoredEvents.deviceEvent(device, type),
  deviceAdded({ outages, ignoredEvents }, { device }) {
    outages.forget(device)
    ignoredEvents.forget(device)
  },
  internal: (checker, event) => checker.markInternal(event.context, event.class, event.handle),
  messages: (checker, { context, handle }) => checker.markMessages(context, handle),
  exiting(checker) {
    checker.isExiting = true
  },
  benign: ({ races }, { session, pid, start, end }) => races?.allow(session, pid, start, end),
  lent: ({ lends }, event) => lends?.lent(event),
  takenBack: ({ lends }, event) => lends?.takenBack(event),
  unchecked: ({ lends }, event) => lends?.unchecked(event),
  named: ({ lends, who }, event) => {
    lends?.named(event)
    who?.named(event)
  },
  expectsFinished: ({ lends }, event) => lends?.expectsFinished(event),
  lendsEnd: ({ lends }, event) => lends?.lendsEnd(event),
  advertised: ({ learnt, lends }, event) => {
    if (!lends?.isDeclared(event.pid)) learnt?.advertised(event)
  },
  logged: ({ races }) => races?.join(),
  omitted: (checker, { id, count }) => checker.omit(id, count),
}

/** Detectors of every checker, except the detector of queues: the checker keeps a reference to it. */
const detectorFactories: readonly ((services: DetectorServices) => Detector)[] = [
  createBufferDetector,
  createDatagramDetector,
  createLidPathDetector,
  createAdapterDetector,
  createCmIdDetector,
  createCmPortDetector,
  createCmDisconnectDetector,
  createCmAnswerDetector,
  createPeerDetector,
  createInheritanceDetector,
  createArrayDetector,
  createDescriptorDetector,
  createAcknowledgementDetector,
  createDeadPostDetector,
  createSharedElementsDetector,
  createImmediateDetector,
  createPostedAgainDetector,
  createHandlerDetector,
  createLatePollDetector,
  createDeadlockDetector,
  createPeerGoneDetector,
]

export class Checker {
  readonly requests: RequestWatcher
  /** Number of calls so far. */
  calls = 0
  /** Undefined if `CheckerSources` has no `races`. */
  readonly races: RaceDetector | undefined
  /** Undefined without `--who`. */
  readonly who: Who | undefined
  /** Undefined without torment. */
  readonly orders: RequestOrders | undefined
  /** Undefined if the memory of keys is unknown, or with `--lent off`. */
  readonly lends: LendDetector | undefined
  /** Undefined if nobody tells of messages, or they are of no interest (`--lent`). */
  readonly learnt: LearntDetector | undefined
  readonly omit: NoteOmission
  readonly outages: Outages
  readonly swaps: Swaps
  /** A program waits for a completion, an event or a message that does not come. */
  readonly waits: (wait: CheckedWait) => void
  readonly ignoredEvents: IgnoredEvents
  /** Whether the program ends without having closed its devices: then open objects of the library are leaks too. */
  isExiting = false
  readonly #objects: KnownObjects
  readonly #deviceWithGid: DeviceWithGid
  readonly #reporter: FindingReporter
  readonly #services: DetectorServices
  readonly #story: StoryRecorder
  readonly #stories: Stories
  /** Failures about which another host was asked. */
  #held = 0
  readonly #queues: QueueDetector
  readonly #memoryGone: MemoryGone
  readonly #privateFiles: PrivateFiles | undefined
  readonly #takePreload: ReturnType<typeof preloadDispatch>
  readonly #failures: FailureReports
  readonly #ignoredPosts: IgnoredPosts
  readonly #detectors: readonly Detector[]
  /** By pid. */
  readonly #refusedCreations = new Map<number, RefusedCreation>()
  /** Pids of programs that have made and changed nothing since a refusal that was reported: they end because of it. */
  readonly #givenUp = new Set<number>()
  readonly #sources: CheckerSources

  /** `report` is called once for each distinct finding. */
  constructor(report: ReportFinding, sources: CheckerSources = noSources) {
    this.#deviceWithGid = gid => sources.deviceWithGid(gid)
    this.#sources = sources
    this.#reporter = new FindingReporter(report, sources.lacks, (...finding) => stories.of(...finding))
    this.omit = this.#reporter.omit
    this.#objects = new KnownObjects(this.omit)
    const services = new DetectorServices(this.#objects, this.#reporter, sources)
    this.#services = services
    this.#story = new StoryRecorder(services)
    const stories = new Stories(services, this.#story)
    this.#stories = stories
    this.#queues = createQueueDetector(services)
    this.#memoryGone = createMemoryGoneDetector(
      services,
      (pid, start, end) => this.learnt?.momentsOf(pid, start, end) ?? [],
    )
    this.#ignoredPosts = createIgnoredPosts(services)
    this.outages = new Outages(services)
    this.swaps = createSwaps(services)
    this.ignoredEvents = new IgnoredEvents(services, this.outages)
    const { isCopiedByFork, privateFile, memoryOf, logStack, readLog } = sources
    this.races = memoryOf && logStack && readLog && createRaceDetector(services, { memoryOf, logStack, readLog })
    this.who = sources.who && createWho(services, sources.who)
    this.orders = sources.tormentName && createRequestOrders(services, sources.tormentName)
    this.watchesAccesses = isCopiedByFork !== undefined && sources.lacks === undefined
    this.#privateFiles = privateFile && createPrivateFileDetector(services, privateFile)
    const { lent = 'learnt' } = sources
    this.lends = lent === 'off' ? undefined : memoryOf && createLendDetector(services, memoryOf)
    this.learnt = lent === 'learnt' ? createLearntDetector(services) : undefined
    this.#detectors = [
      // First: what others find has what happens now in its story.
      this.#story.detector,
      this.#queues,
      this.outages.detector,
      this.ignoredEvents.detector,
      this.#ignoredPosts,
      this.swaps,
      ...(this.watchesAccesses ? [this.#memoryGone] : []),
      ...(this.#privateFiles ? [this.#privateFiles] : []),
      ...(this.lends ? [this.lends] : []),
      ...(this.learnt ? [this.learnt] : []),
      ...detectorFactories.map(create => create(services)),
      ...(isCopiedByFork ? [createLifetimeDetector(services, isCopiedByFork)] : []),
      ...(this.races ? [this.races] : []),
      ...(this.who ? [this.who] : []),
      ...(this.orders ? [this.orders] : []),
    ]
    this.waits = createWaitReports(services, this.#detectors, this.#ignoredPosts)
    this.#failures = new FailureReports(services, this.#reporter, this.#queues, this.outages)
    const receivers = new Set([...this.#detectors, this.#memoryGone, this.#failures])
    this.#takePreload = preloadDispatch(this.#objects, receivers)
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

  /** Takes an event of the stream. */
  event<K extends ProgramEventName>(event: ProgramEvent<K>): void {
    this.#story.event(event as ProgramEvent)
    const take = takers[event.event as keyof typeof takers] as Taker<K> | undefined
    if (take !== undefined) take(this, event)
    else this.#takePreload(event as ProgramEvent<PreloadEventName>)
  }

  // ---- calls ----

  calling(call: BeginningCall): void {
    const known = this.#objects.find(call.object)
    if (known === undefined) return
    noteLostByDestroy(call, known)
    for (const detector of this.#detectors) detector.calling?.(call, known)
  }

  /** The objects of a context are about to end. May be repeated: only the first counts. */
  contextEnds(end: ContextEnd): void {
    this.outages.contextEnds(end.context, end.how)
    this.ignoredEvents.contextEnds(end.context, end.how)
    if (end.pendingSends !== undefined) for (const detector of this.#detectors) detector.contextEnds?.(end)
  }

  /** A port of a device has raised an event; `gids`: its table now. */
  portEvent(device: number, type: number, gids: readonly (Uint8Array | undefined)[]): void {
    this.outages.portEvent(device, type, gids)
    if (type === AsyncEventType.values.PORT_ACTIVE) this.#queues.relapses.portActive(device)
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
    else if (call.method === 'attachMcast') before?.groups.add(addressText(call.args.gid as Uint8Array))
    else if (call.method === 'detachMcast') before?.groups.delete(addressText(call.args.gid as Uint8Array))
    else if (call.class === 'cm_id' && call.method === 'bind') before?.addChange(moment('bound', call.time, call.stack))
    const known = before ?? (call.object && this.#objects.find(call.object.id))
    for (const detector of this.#detectors)
      if (known === undefined) detector.asked?.(call)
      else detector.called?.(call, known)
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

  #refused(call: CheckedCall, { errno, reason }: NonNullable<CheckedCall['refused']>): void {
    const { object, method, why } = call
    if (why !== 'call') return
    const known = object && this.#objects.find(object.id)
    if (method === 'destroy' && errno === Errno.EBUSY) {
      if (this.ignoredEvents.isGone(call.context)) return
      this.#reporter.report('destroy-busy', call, busyContent(call.class, participles(call.class).destroyed, known))
      return
    }
    const pid = call.program?.pid
    const noun = isQueuePairClass(call.class) ? 'qp' : call.class
    if (method === 'create' && pid !== undefined && this.#refusedCreations.size < MAX_REFUSED_CREATIONS)
      this.#refusedCreations.set(pid, {
        ...{ class: noun, time: call.time, stack: call.stack },
        text: `${errnoName(errno)}: ${call.isLibrary === true ? reason.text() : inC(reason)}`,
      })
    const severity = severityOfRefusal(call.class, errno, reason)
    if (severity === undefined) return
    const isMade = method === 'create' || method === 'modify'
    if (isMade && severity !== 'note' && pid !== undefined) {
      const [oldest] = this.#givenUp
      if (oldest !== undefined && this.#givenUp.size === MAX_REFUSED_CREATIONS) this.#givenUp.delete(oldest)
      this.#givenUp.add(pid)
    }
    const sentence = call.isLibrary === true || call.program === undefined ? reason.text() : inC(reason)
    const cmFunction = call.isLibrary === true ? undefined : cmFunctionIn(call.stack)
    const advice =
      (reason.code === 'lock-limit' ? undefined : adviceForCm(cmFunction)) ??
      adviceForRefusal(reason) ??
      (isWithoutRoute(errno) ? ADVICE_FOR_ROUTE : undefined) ??
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
      cFunctionOf(reason) === undefined
        ? `${attempt}: ${errnoName(errno)}: ${sentence}`
        : `${errnoName(errno)}: ${inCmWords(cmFunction)}${sentence}`
    this.#reporter.report('refused-call', occurrence, {
      text,
      advice: adviceForCm(cmFunction) ?? adviceForRefusal(reason),
    })
  }

  #created(call: CheckedCall): void {
    const { object, args } = call
    if (object === undefined) return
    const creation = moment(participles(call.class).created, call.time, call.stack)
    const known = new KnownObject(object, call, creation, this.#objects.usedBy(args))
    this.#objects.add(known)
    const pid = call.program?.pid ?? -1
    this.#givenUp.delete(pid)
    if (this.#refusedCreations.get(pid)?.class === (known.isQp ? 'qp' : known.class)) this.#refusedCreations.delete(pid)
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
    const address = addressIn(args)
    if (address !== undefined) known.attributes.address = address
  }

  #modified(call: CheckedCall): void {
    this.#givenUp.delete(call.program?.pid ?? -1)
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
    known.addChange({ ...moment(action, call.time, call.stack), ...(state !== undefined && { state }) })
    if (state === QpState.values.RTS && known.attributes.timeout === 0)
      this.#reporter.report('infinite-timeout', call, { text: `${known.name} has timeout 0`, objects: [known] })
    if (state === QpState.values.RTR && this.#services.peerOf(known) === known)
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
    known.wasKilled = call.wasKilled === true
    this.#objects.remove(known, moment(action, call.time, call.stack))
    const isLeft = call.why === 'close' && !this.#services.closedContexts.has(call.context)
    if (isLeft && isVerbsClass(known.class) && !known.isInternal)
      this.#reporter.report(
        'leak',
        { ...call, stack: known.creation.stack, action: known.creation.action },
        {
          text: `${known.name} was never ${participles(call.class).destroyed}`,
          left: known.kind,
          // The library documents that a device's close closes its objects; what is left at an end by a refusal is its consequence.
          ...(((known.isOfLibrary && !this.isExiting) || this.#givenUp.has(known.program?.pid ?? -1)) && {
            severity: 'note' as const,
          }),
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
    const peer = this.#services.peerOf(qp)
    // An XRC target is checked when its last opener closes it.
    if (qp.isReported || this.#objects.openersOf(qp).size > 1) return
    const peerDevice = this.#services.peerDeviceOf(qp)
    const knowsAllPeers =
      peerDevice !== undefined && !this.#sources.hasUnchecked?.(peerDevice) && this.#objects.isComplete
    const { destQpn } = qp.attributes
    // An initiator or target of DC is connected to no queue pair.
    const { meant, ...wrong } = this.#services.wrongNumber(peerDevice, destQpn)
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
        details: [...psnLines(qp, peer), ...attributeTable(qp, peer)],
        objects: [qp, peer],
      },
    )
  }

  /** As of `LendDetector`. */
  rangeOf(device: number, key: number, address: number, length: number): LentRange | undefined {
    return this.lends?.rangeOf(device, key, address, length)
  }

  /** Whether any of these bytes of a process is lent to a peer now. */
  isLent(pid: number | undefined, start: number, end: number): boolean {
    return (
      this.lends?.isLent(pid, start, end) === true ||
      (this.lends?.isDeclared(pid) !== true && this.learnt?.isLent(pid, start, end) === true)
    )
  }

  /** Whether `accessed` is of use before a lend: only the preload library tells of memory that is given back. */
  readonly watchesAccesses: boolean
  /** A peer accesses registered memory; `hi`, `lo`: its address in requests. `access`: ibv_access_flags. `qpn`: the responder's. */
  accessed(device: number, rkey: number, hi: number, lo: number, length: number, access: number, qpn: number): void {
    this.#memoryGone.accessed(device, rkey, hi, lo, length, access, qpn)
    this.#privateFiles?.accessed(device, rkey, hi, lo, length, access, qpn)
    this.who?.accessed(device, rkey, hi, lo, length, access, qpn)
    this.lends?.accessed(device, rkey, hi, lo, length, access, qpn)
    this.learnt?.accessed(device, rkey, hi, lo, length, access, qpn)
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
    reportDeath(this.#services, death, this.#refusedCreations.get(death.program?.pid ?? -1))
  }

  /** The preload library of a program reports a mistake in a batch of ibv_wr_*. */
  batchMistaken(batch: MistakenBatch): void {
    const qp = queueOf(this.#objects, { ...batch, queue: PostQueue.SEND })
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
    const target = queueOf(this.#objects, post)
    if (target !== undefined && this.#detectors.some(({ refusedPost }) => refusedPost?.(post, target))) return
    const { id, text, advice, severity: least } = refusalOf(post, target)
    // Not `error`: the program gets the errno and can handle it.
    const severity = post.severity ?? least ?? (findings[id].severity === 'note' ? 'note' : 'warning')
    const names = id === 'queue-full' && post.queue === PostQueue.SEND ? (this.#sources.adapters ?? []) : []
    const details = names.flatMap(name => {
      const source: string | undefined = adapters[name].freesAtPoll
      return source === undefined ? [] : [`${name} frees slots only when completions are polled; source: ${source}`]
    })
    this.#reporter.report(id, { ...post, ...POSTED }, { text, details, advice, severity, objects: [target] })
    if (target !== undefined && post.request !== undefined) this.#ignoredPosts.refused(post, id, text, target)
    if (target !== undefined && id === 'queue-full' && post.queue === PostQueue.SEND) this.#queues.isFull(target.id)
  }

  /** As `memoryAt` of waits/memory.ts. */
  memoryAt(contexts: readonly number[], address: number): MemoryInSentence | undefined {
    return memoryAt(this.#services, contexts, address, this.#memoryGone.latest())
  }

  /** The `KnownObject.number` of a CQ. */
  cqNumber(context: number, handle: number): string {
    return this.#objects.byHandle(context, 'cq', handle)?.number ?? String(handle)
  }

  // ---- failures ----

  /** A request failed, or a device reported another failure (spec/check/failures.ts). */
  failed(failed: CheckedFailure): void {
    if (failed.failure.cause.id === 'SRQ_LIMIT') this.#queues.limitReached(failed)
    const { net } = this.#services
    const question = net.questionAbout(failed)
    const isAsked =
      question !== undefined &&
      this.#sources.askPeer?.(question, (host, facts) => {
        if (host === undefined || facts === undefined) this.#failures.failed(held)
        else {
          net.add(question, host, facts)
          this.#failures.failed(net.explained(held, question))
        }
      })
    const held = isAsked
      ? this.#failures.held(failed, this.#held++ < MAX_HELD_STORIES ? this.#stories : undefined)
      : failed
    if (!isAsked) this.#failures.failed(failed)
  }

  // ---- other hosts of a net ----

  /** What this host tells of a queue pair of its own, as it was at `time`. `state`: now. */
  peerFacts(device: number, qpn: number, time: number, state: number | undefined): Omit<PeerFacts, 'device' | 'clock'> {
    // Marked is what has ended the connection.
    return factsOf(this.#objects, { device, qpn, time, state }, qp =>
      this.#stories.of('peer-not-ready', { ...this.#services.occurrenceAt(qp, []), time }, [qp, qp]),
    )
  }

  /** What is asked of other hosts about a context that waits. */
  peerQuestions(context: number): readonly PeerQuestion[] {
    return this.#services.net.questionsOf(context, this.#sources.now(), gid => this.#deviceWithGid(gid) !== undefined)
  }

  addPeer(question: PeerQuestion, host: string, facts: PeerFacts): void {
    this.#services.net.add(question, host, facts)
  }

  /** The other end of a connection on another host, if it was asked for. */
  peerInNet(gid: Uint8Array, qpn: number): KnownObject | undefined {
    const device = this.#services.net.deviceWithGid(gid)
    return device === undefined ? undefined : this.#objects.qp(device, qpn)
  }
}
