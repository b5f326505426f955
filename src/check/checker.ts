/*
 * The engine of `userdma check`: calls, failures and requests come in, findings go out. It does no I/O, asks no clock
 * and knows neither core nor daemon; memory is bounded by the objects that are alive.
 */

import { type Failure, failureText } from '../spec/check/failures.ts'
import { type Finding, type FindingId, findingOfCause, findings, type Stack } from '../spec/check/findings.ts'
import type { NoteOmission, Omission } from '../spec/check/omissions.ts'
import type { RequestWatcher } from '../spec/check/requests.ts'
import { QP_CLASSES } from '../spec/classes/qp/qp.ts'
import { QpState } from '../spec/enums.ts'
import { Errno, errnoName } from '../spec/errno.ts'
import { EventKind, MisuseKind, PostQueue } from '../spec/session.ts'
import { createAdapters } from './adapters.ts'
import { createBuffers } from './buffers.ts'
import { areConnected, type DeviceWithGid, isPastRtr, misfitOf, misfits, readsFit, sideBySide } from './connection.ts'
import { createDatagrams } from './datagrams.ts'
import type { CheckedCall, CheckedFailure, Misuse, RefusedAttempt } from './events.ts'
import { createLifetimes } from './lifetimes.ts'
import { KnownObject, KnownObjects, moment, type QpValues, stateOf } from './objects.ts'
import { createQueues, type QueueTopic } from './queues.ts'
import { createRaceTopic, type RaceTopic } from './races/topic.ts'
import { type RefusedPost, refusalOf } from './refused-post.ts'
import { MAX_NAMED, type Place, Reporting } from './reporting.ts'
import { type BeginningCall, noSources, requestsTo, type Topic, type TopicSources, World } from './topic.ts'

/** Objects that programs leak; descriptors are closed by the system. */
const isLeakable = (name: string): boolean =>
  ['pd', 'cq', 'mr', 'mw', 'ah', 'srq', 'xrc_srq', 'xrcd', ...QP_CLASSES].includes(name)

/**
 * Whether a call was refused because of its arguments; others are refused because of limits, or of missing features.
 */
const isForArguments = (errno: number): boolean => errno === Errno.EINVAL || errno === Errno.ENODATA

/** The stack of the post of a failed request. */
const postStackOf = ({ failure, postStack }: CheckedFailure, own: KnownObject | undefined): Stack => {
  if (own?.qpn === undefined) return []
  const srq = own.uses.get('srq')
  const places: readonly (readonly [number, number])[] =
    failure.what === 'send' || failure.cause.id === 'DATAGRAM_TOO_LONG'
      ? [
          [PostQueue.SEND, own.qpn],
          [PostQueue.BATCH, own.qpn],
        ]
      : failure.what === 'receive' || (failure.what === 'drop' && failure.wrId !== undefined)
        ? [srq === undefined ? [PostQueue.RECEIVE, own.qpn] : [PostQueue.SHARED, srq.handle]]
        : []
  for (const [queue, number] of places) {
    const stack = postStack(queue, number)
    if (stack.length > 0) return stack
  }
  return []
}

/** Verbs for the creation and destruction of an object of a class. */
const words = (name: string): { readonly created: string; readonly destroyed: string } =>
  name === 'mr' ? { created: 'registered', destroyed: 'deregistered' } : { created: 'created', destroyed: 'destroyed' }

/** A queue, by a PostQueue or EventKind. */
type QueueName = Pick<RefusedPost, 'deviceNumber' | 'context' | 'queue' | 'number'>

/** Findings about the attributes of both ends. */
const aboutBothEnds: ReadonlySet<FindingId> = new Set([
  'rd-atomic-exceeds',
  'no-receive-posted',
  'path-mtu-mismatch',
  'invalid-request',
  'psn-mismatch',
])

/** The bytes by which an access exceeds its region. */
const boundsText = ({ cause: { args } }: Failure): string[] => {
  const { from, to, start, end } = args
  if (typeof from !== 'bigint' || typeof to !== 'bigint' || typeof start !== 'bigint' || typeof end !== 'bigint')
    return []
  const parts = [
    ...(from < start ? [`begins ${start - from} bytes before the region`] : []),
    ...(to > end ? [`ends ${to - end} bytes behind the region`] : []),
  ]
  return parts.length === 0
    ? []
    : [`the access of ${to - from} bytes ${parts.join(' and ')}, which has ${end - start} bytes`]
}

/** Topics with files of their own. */
const topics: readonly ((world: World) => Topic)[] = [createBuffers, createDatagrams, createAdapters]

export class Checker {
  /** Receives the events of requests. */
  readonly requests: RequestWatcher
  /** Calls so far. */
  calls = 0
  readonly races: RaceTopic | undefined
  readonly omit: NoteOmission
  readonly #objects: KnownObjects
  readonly #deviceWith: DeviceWithGid
  readonly #reporting: Reporting
  readonly #queues: QueueTopic
  readonly #topics: readonly Topic[]
  readonly #sources: TopicSources

  constructor(deviceWith: DeviceWithGid, report: (finding: Finding) => void, sources: TopicSources = noSources) {
    this.#deviceWith = deviceWith
    this.#sources = sources
    this.#reporting = new Reporting(report)
    this.omit = this.#reporting.omit
    this.#objects = new KnownObjects(this.omit)
    const world = new World(this.#objects, this.#reporting, deviceWith, sources)
    this.#queues = createQueues(world)
    this.races = sources.races && createRaceTopic(world, sources.races)
    const { isCopiedByFork } = sources
    this.#topics = [
      this.#queues,
      ...topics.map(create => create(world)),
      ...(isCopiedByFork ? [createLifetimes(world, isCopiedByFork)] : []),
      ...(this.races ? [this.races] : []),
    ]
    this.requests = requestsTo(this.#objects, this.#topics)
  }

  /** How often each finding was found, by its number − 1. */
  get counts(): readonly number[] {
    return this.#reporting.counts
  }

  /** What was left out so far. */
  get omissions(): readonly Omission[] {
    this.races?.join()
    return [...this.#reporting.omitted].map(([id, count]) => ({ id, count }))
  }

  // ---- calls ----

  /** A call of a program begins: the object with this id. */
  calling(call: BeginningCall, id: number): void {
    const known = this.#objects.find(id)
    if (known !== undefined) for (const topic of this.#topics) topic.calling?.(call, known)
  }

  /** A process is about to fork, without ibv_fork_init. */
  forked(pid: number, stack: Stack): void {
    for (const topic of this.#topics) topic.forked?.(pid, stack)
  }

  /** Memory of the region with this id was unmapped. */
  unmapped(id: number): void {
    const region = this.#objects.find(id)
    if (region !== undefined) for (const topic of this.#topics) topic.unmapped?.(region)
  }

  called(call: CheckedCall): void {
    const before = call.object && this.#objects.find(call.object.id)
    this.calls++
    if (call.refused !== undefined) this.#refused(call, call.refused)
    else if (call.method === 'create') this.#created(call)
    else if (call.method === 'modify') this.#modified(call)
    else if (call.method === 'destroy') this.#destroyed(call)
    const known = before ?? (call.object && this.#objects.find(call.object.id))
    if (known !== undefined) for (const topic of this.#topics) topic.called?.(call, known)
  }

  #refused(call: CheckedCall, { errno, reason }: { readonly errno: number; readonly reason: string }): void {
    const { object, method, why } = call
    if (why !== 'call') return
    const known = object && this.#objects.find(object.id)
    if (method === 'destroy' && errno === Errno.EBUSY) {
      const users = [...(known?.users ?? [])]
      const named = users.slice(0, MAX_NAMED).map(({ name }) => name)
      const more = users.length > MAX_NAMED ? ` and ${users.length - MAX_NAMED} more` : ''
      const use = users.length === 0 ? 'in use' : `used by ${named.join(', ')}${more}`
      const text = `${known?.name ?? call.class} cannot be ${words(call.class).destroyed}, it is ${use} (EBUSY)`
      this.#reporting.find('destroy-busy', call, { text, objects: [known, ...users] })
    } else if (isForArguments(errno) && isLeakable(call.class))
      this.#reporting.find('refused-call', call, { text: `${errnoName(errno)}: ${reason}`, objects: [known] })
  }

  /** A call whose arguments cannot be decoded. */
  refusedAttempt({ attempt, errno, reason, ...place }: RefusedAttempt): void {
    if (isForArguments(errno))
      this.#reporting.find('refused-call', place, { text: `${attempt}: ${errnoName(errno)}: ${reason}` })
  }

  #created(call: CheckedCall): void {
    const { object, args } = call
    if (object === undefined) return
    const made = moment(words(call.class).created, call.time, call.stack)
    const known = new KnownObject(object, call, made, this.#objects.usedBy(args))
    this.#objects.add(known)
    if (!known.isQp) return
    this.#setValues(known, args)
    for (const cq of new Set([known.uses.get('sendCq'), known.uses.get('recvCq')]))
      if (cq !== undefined) this.#checkSize(cq, call)
  }

  #checkSize(cq: KnownObject, call: CheckedCall): void {
    let requests = 0
    for (const user of cq.users) {
      if (user.uses.get('sendCq') === cq) requests += user.sends
      if (user.uses.get('recvCq') === cq && !user.uses.has('srq')) requests += user.receives
    }
    if (cq.size === undefined || requests <= cq.size) return
    const text = `${cq.name} has ${cq.size} entries, and ${requests} requests can complete into it`
    this.#reporting.find('cq-too-small', call, { text, objects: [cq, ...cq.users] })
  }

  #setValues(known: KnownObject, args: Readonly<Record<string, unknown>>): void {
    const { state } = args as QpValues
    if (state === QpState.values.RESET) known.reset()
    Object.assign(known.qp, args)
  }

  #modified(call: CheckedCall): void {
    const known = call.object && this.#objects.find(call.object.id)
    if (known === undefined) return
    if (!known.isQp) {
      known.resized(call.args, call.out)
      known.changed(moment('modified', call.time, call.stack))
      return
    }
    const { state } = call.args as QpValues
    this.#setValues(known, call.args)
    const what = state === undefined ? 'modified' : `modified to ${stateOf(known)}`
    known.changed(moment(what, call.time, call.stack))
    if (state === QpState.values.RTS && known.qp.timeout === 0)
      this.#reporting.find('infinite-timeout', call, { text: `${known.name} has timeout 0`, objects: [known] })
    if (state === QpState.values.RTR && this.#peerOf(known) === known)
      this.#reporting.find('connected-to-itself', call, {
        text: `${known.name} is connected to itself`,
        objects: [known],
      })
  }

  #destroyed(call: CheckedCall): void {
    const known = call.object && this.#objects.find(call.object.id)
    if (known === undefined) return
    if (known.isQp) this.#checkConnection(known, call)
    const what = {
      call: words(call.class).destroyed,
      undo: 'rolled back',
      close: 'closed with its device',
      remove: 'removed with its device',
    }[call.why]
    this.#objects.remove(known, moment(what, call.time, call.stack))
    if (call.why === 'close' && isLeakable(known.class))
      this.#reporting.find(
        'leak',
        { ...call, stack: known.made.stack, what: known.made.what },
        { text: `${known.name} was never ${words(call.class).destroyed}` },
      )
  }

  /** A connection ends: attributes that did not fit were never reported if no request failed. */
  #checkConnection(own: KnownObject, call: CheckedCall): void {
    const peer = this.#peerOf(own)
    if (own.isReported) return
    if (peer === undefined && isPastRtr(own) && this.#peerDeviceOf(own) !== undefined && this.#objects.isComplete)
      this.#reporting.find(
        'no-peer-qp',
        { ...call, program: own.program, what: 'disconnected' },
        {
          severity: 'warning',
          text: `${own.nameWithProgram} was connected to QP 0x${own.qp.destQpn?.toString(16)}, which never existed`,
          objects: [own],
        },
      )
    if (peer === undefined || peer === own || peer.gone !== undefined) return
    if (!areConnected(own, peer, this.#deviceWith)) return
    const id = misfits(own, peer, this.#deviceWith)[0] ?? (readsFit(own, peer) ? undefined : 'rd-atomic-exceeds')
    if (id === undefined) return
    this.#reporting.find(
      id,
      { ...call, program: own.program, what: 'disconnected' },
      {
        severity: 'warning',
        text: `${own.nameWithProgram} was connected to ${peer.nameWithProgram}: ${findings[id].title}`,
        details: sideBySide(own, peer),
        objects: [own, peer],
      },
    )
  }

  /** The device of the peer, if it is here. */
  #peerDeviceOf({ qp: { address } }: KnownObject): number | undefined {
    return address && this.#deviceWith(address.dgid)
  }

  #peerOf(own: KnownObject): KnownObject | undefined {
    const device = this.#peerDeviceOf(own)
    const { destQpn } = own.qp
    return device === undefined || destQpn === undefined ? undefined : this.#objects.qp(device, destQpn)
  }

  /** The queue pair, shared queue or CQ of a PostQueue or EventKind. */
  #queueOf({ deviceNumber, context, queue, number }: QueueName): KnownObject | undefined {
    if (queue === EventKind.POLL) return this.#objects.byHandle(context, 'cq', number)
    return queue === PostQueue.SHARED
      ? (this.#objects.byHandle(context, 'srq', number) ?? this.#objects.byHandle(context, 'xrc_srq', number))
      : this.#objects.qp(deviceNumber, number)
  }

  /** What the program's library has seen of memory and queues. */
  misused(misuse: Misuse): void {
    const own = this.#queueOf(misuse)
    const { deviceNumber, context, kind, queue, program } = misuse
    if (own === undefined || own.gone !== undefined) return
    if (kind === MisuseKind.INHERITED) {
      const text = `process ${program?.pid} ${queue === EventKind.POLL ? 'polls' : 'posts to'} ${own.nameWithProgram}, whose context it inherited by fork`
      this.#reporting.find('context-inherited', { ...misuse, what: 'used' }, { text, objects: [own] })
      return
    }
    this.#sources.look?.(deviceNumber, context)
    for (const topic of this.#topics) topic.misused?.(misuse, own)
  }

  /** A post that was refused in the program itself. */
  refusedPost(post: RefusedPost): void {
    const own = this.#queueOf(post)
    const { id, text } = refusalOf(post, own)
    // The program learns of it from the call's result, unlike of a completion in error.
    const severity = findings[id].severity === 'note' ? 'note' : 'warning'
    this.#reporting.find(id, { ...post, what: 'posted' }, { text, severity, objects: [own] })
  }

  // ---- failures ----

  failed(failed: CheckedFailure): void {
    const { time, deviceNumber, failure, peerDevice } = failed
    const { device, qpn, cause, peer: named, what } = failure
    const own = qpn === undefined ? undefined : this.#objects.qp(deviceNumber, qpn)
    if (own !== undefined && what !== 'drop' && what !== 'flush') own.failure ??= failure
    const usual = findingOfCause(cause.id)
    if (usual === undefined || what === 'flush') return
    // The sender's request has its own finding, if the sender is here.
    if (cause.id === 'QKEY_DIFFERS' && this.#objects.hasQpn(Number(cause.args.source))) return
    // An event of a queue pair repeats what its CQ reports, or a request of its peer if that is here.
    const isRepeated = cause.id === 'COMPLETION_LOST' || (own !== undefined && this.#peerDeviceOf(own) !== undefined)
    if (what === 'event' && isRepeated) return
    const refusing =
      named !== undefined && peerDevice !== undefined ? this.#objects.qp(peerDevice, named.qpn) : undefined
    // A response that does not fit was no failure of the peer, and names none.
    const peer = cause.id === 'BAD_RESPONSE' && own !== undefined ? this.#peerOf(own) : refusing
    // The device itself changes states too.
    if (peer !== undefined && typeof named?.state === 'number') peer.qp.state = named.state
    for (const end of [own, peer]) if (end !== undefined) end.isReported = true
    const misfit = own !== undefined && peer !== undefined ? misfitOf(cause.id, own, peer) : undefined
    const id = misfit ?? usual
    const where = {
      time,
      device,
      program: failed.program ?? own?.program,
      stack: postStackOf(failed, own),
      what: what === 'send' ? 'posted' : 'posted the receive',
    }
    if (id === 'no-answer') this.#findUnanswered(id, where, failure, own, peer)
    else {
      const key = cause.args.key
      const keyDevice = failure.ofPeer === true ? peerDevice : deviceNumber
      const region =
        typeof key === 'number' && keyDevice !== undefined ? this.#objects.region(keyDevice, key) : undefined
      this.#reporting.find(id, where, {
        text: failureText(failure),
        details: [
          ...boundsText(failure),
          ...(id === 'no-receive-posted' && own !== undefined && peer !== undefined
            ? this.#queues.receiveCounts(own, peer)
            : []),
          ...(own !== undefined && peer !== undefined && aboutBothEnds.has(id) ? sideBySide(own, peer) : []),
        ],
        objects: [own, peer, region, this.#namedBy(failed)],
      })
    }
  }

  /** The object that the arguments of a cause name, which has no queue pair. */
  #namedBy({ deviceNumber, context, failure: { cause } }: CheckedFailure): KnownObject | undefined {
    const { cq, object, number } = cause.args
    if (typeof cq === 'number') return this.#objects.byHandle(context, 'cq', cq)
    if (typeof object !== 'string' || typeof number !== 'number') return undefined
    return object === 'qp' ? this.#objects.qp(deviceNumber, number) : this.#objects.byHandle(context, object, number)
  }

  /** Retries ran out: the attributes of both ends, or the peer's own failure, say why if they are known. */
  #findUnanswered(
    id: FindingId,
    where: Place,
    failure: Failure,
    own: KnownObject | undefined,
    peer: KnownObject | undefined,
  ): void {
    const text = failureText(failure)
    const objects = [own, peer]
    if (failure.peer?.state === 'none') {
      this.#reporting.find('no-peer-qp', where, { text, objects })
      return
    }
    if (own === undefined || peer === undefined) {
      this.#reporting.find(id, where, { text, objects })
      return
    }
    const details = sideBySide(own, peer)
    const [reason] = misfits(own, peer, this.#deviceWith)
    const root = reason === 'peer-in-error' ? peer.failure : undefined
    const rootId = root && findingOfCause(root.cause.id)
    if (root !== undefined && rootId !== undefined)
      this.#reporting.find(rootId, where, {
        text: `${text}: the peer failed first: ${failureText(root)}`,
        details,
        objects,
      })
    else if (reason !== undefined)
      this.#reporting.find(reason, where, { text: `${text}: ${findings[reason].title}`, details, objects })
    else this.#reporting.find(id, where, { text, details, objects })
  }
}
