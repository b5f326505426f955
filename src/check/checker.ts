/*
 * The engine of `userdma check`: calls and failures come in, findings go out. It does no I/O, asks no clock and knows
 * neither core nor daemon; memory is bounded by the objects that are alive.
 *
 * A finding with the same id, place and sentence shape as an earlier one is only counted.
 */
import { QP_CLASSES } from '../spec/classes/qp.ts'
import { QpState } from '../spec/enums.ts'
import { Errno, errnoName } from '../spec/errno.ts'
import { type Failure, failureText } from '../spec/failures.ts'
import {
  type Finding,
  type FindingId,
  type FoundObject,
  findingOfCause,
  findings,
  type Program,
  type Severity,
  type Stack,
} from '../spec/findings.ts'
import { PostQueue } from '../spec/session.ts'
import { areConnected, type DeviceWithGid, isPastRtr, misfits, psnsFit, readsFit, sideBySide } from './connection.ts'
import { KnownObject, KnownObjects, moment, type ObjectName, type QpValues, stateOf } from './objects.ts'
import { type RefusedPost, refusalOf } from './refused-post.ts'

/** A call that has ended. Arguments that are objects have `ObjectName`s. */
export interface CheckedCall {
  readonly time: number
  /** Its name, and its number, which stays if it is renamed. */
  readonly device: string
  readonly deviceNumber: number
  /** The number of the context: each counts handles of its own. */
  readonly context: number
  readonly program: Program | undefined
  readonly class: string
  readonly method: string
  /** The object of the call, of a creation the new one; undefined if the call was refused before it was found. */
  readonly object: ObjectName | undefined
  readonly args: Readonly<Record<string, unknown>>
  readonly out: Readonly<Record<string, unknown>>
  /** Why it was refused. */
  readonly refused?: { readonly errno: number; readonly reason: string }
  /** `call`: the program's own; otherwise its device was closed, or removed. */
  readonly why: 'call' | 'undo' | 'close' | 'remove'
  readonly stack: Stack
}

/** A failure (spec/failures.ts), with what is known of its request. */
export interface CheckedFailure {
  readonly time: number
  /** As in `CheckedCall`. */
  readonly deviceNumber: number
  readonly context: number
  readonly program: Program | undefined
  readonly failure: Failure
  /** The number of the peer's device, if it is here. */
  readonly peerDevice: number | undefined
  /** Where the failed request was posted: a PostQueue, and the number of the queue. */
  postStack(queue: number, number: number): Stack
}

/** A call that was refused before it was understood, with Linux's name of it. */
export interface RefusedAttempt {
  readonly time: number
  readonly device: string
  readonly program: Program | undefined
  readonly attempt: string
  readonly errno: number
  readonly reason: string
  readonly stack: Stack
}

/** Distinct findings that are remembered; occurrences of further ones are dropped, and counted in `dropped`. */
const MAX_FINDINGS = 1000
/** Objects that a finding names, beside the first. */
const MAX_NAMED = 4

/** Objects that programs leak; descriptors are closed by the system. */
const isLeakable = (name: string): boolean =>
  ['pd', 'cq', 'mr', 'mw', 'ah', 'srq', 'xrc_srq', 'xrcd', ...QP_CLASSES].includes(name)

/** Of a refusal for the arguments; others are about limits, and what a device lacks. */
const isForArguments = (errno: number): boolean => errno === Errno.EINVAL || errno === Errno.ENODATA

/** Where the request of a failure was posted. */
const postStackOf = ({ failure, postStack }: CheckedFailure, own: KnownObject | undefined): Stack => {
  if (own?.qpn === undefined) return []
  const srq = own.uses.get('srq')
  const places: readonly (readonly [number, number])[] =
    failure.what === 'send'
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

/** What is done to an object of a class. */
const words = (name: string): { readonly created: string; readonly destroyed: string } =>
  name === 'mr' ? { created: 'registered', destroyed: 'deregistered' } : { created: 'created', destroyed: 'destroyed' }

/** Where and when something was found. */
interface Place {
  readonly time: number
  readonly device: string
  readonly program: Program | undefined
  readonly stack: Stack
  /** What the program did there. */
  readonly what?: string
}

interface Draft {
  readonly text: string
  /** If it is not that of the table. */
  readonly severity?: Severity
  readonly details?: readonly string[]
  readonly objects?: readonly (KnownObject | undefined)[]
}

/** Findings about the attributes of both ends. */
const aboutBothEnds: ReadonlySet<FindingId> = new Set([
  'rd-atomic-exceeds',
  'no-receive-posted',
  'path-mtu-mismatch',
  'invalid-request',
  'psn-mismatch',
])

/** How far an access goes beyond its region. */
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

/** Numbers differ between two occurrences at one place. */
const shapeOf = (text: string): string => text.replace(/0x[0-9a-f]+|\d+/g, '#')

export class Checker {
  /** Occurrences of findings beyond the limit. */
  dropped = 0
  readonly #objects = new KnownObjects()
  readonly #deviceWith: DeviceWithGid
  readonly #report: (finding: Finding) => void
  /** Numbers of findings by what makes them distinct, and how often each was found. */
  readonly #numbers = new Map<string, number>()
  readonly #counts: number[] = []

  constructor(deviceWith: DeviceWithGid, report: (finding: Finding) => void) {
    this.#deviceWith = deviceWith
    this.#report = report
  }

  /** How often each finding was found, by its number − 1. */
  get counts(): readonly number[] {
    return this.#counts
  }

  // ---- calls ----

  called(call: CheckedCall): void {
    if (call.refused !== undefined) this.#refused(call, call.refused)
    else if (call.method === 'create') this.#created(call)
    else if (call.method === 'modify') this.#modified(call)
    else if (call.method === 'destroy') this.#destroyed(call)
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
      this.#find('destroy-busy', call, { text, objects: [known, ...users] })
    } else if (isForArguments(errno) && isLeakable(call.class))
      this.#find('refused-call', call, { text: `${errnoName(errno)}: ${reason}`, objects: [known] })
  }

  /** A call whose arguments cannot be decoded. */
  refusedAttempt({ attempt, errno, reason, ...place }: RefusedAttempt): void {
    if (isForArguments(errno)) this.#find('refused-call', place, { text: `${attempt}: ${errnoName(errno)}: ${reason}` })
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
    let most = 0
    for (const user of cq.users) {
      if (user.uses.get('sendCq') === cq) most += user.sends
      if (user.uses.get('recvCq') === cq && !user.uses.has('srq')) most += user.receives
    }
    if (cq.size === undefined || most <= cq.size) return
    const text = `${cq.name} has ${cq.size} entries, and ${most} requests can complete into it`
    this.#find('cq-too-small', call, { text, objects: [cq, ...cq.users] })
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
      this.#find('infinite-timeout', call, { text: `${known.name} has timeout 0`, objects: [known] })
    if (state === QpState.values.RTR && this.#peerOf(known) === known)
      this.#find('connected-to-itself', call, { text: `${known.name} is connected to itself`, objects: [known] })
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
      this.#find(
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
      this.#find(
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
    this.#find(
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

  /** A post that was refused in the program itself. */
  refusedPost(post: RefusedPost): void {
    const { deviceNumber, context, queue, number } = post
    const own =
      queue === PostQueue.SHARED
        ? (this.#objects.byHandle(context, 'srq', number) ?? this.#objects.byHandle(context, 'xrc_srq', number))
        : this.#objects.qp(deviceNumber, number)
    const { id, text } = refusalOf(post, own)
    // The call says so, unlike a completion in error.
    const severity = findings[id].severity === 'note' ? 'note' : 'warning'
    this.#find(id, { ...post, what: 'posted' }, { text, severity, objects: [own] })
  }

  // ---- failures ----

  failed(failed: CheckedFailure): void {
    const { time, deviceNumber, failure, peerDevice } = failed
    const { device, qpn, cause, peer: named, what } = failure
    const own = qpn === undefined ? undefined : this.#objects.qp(deviceNumber, qpn)
    if (own !== undefined && what !== 'drop' && what !== 'flush') own.failure ??= failure
    const told = findingOfCause(cause.id)
    if (told === undefined || what === 'flush') return
    // An event of a queue pair repeats what its CQ reports, or a request of its peer if that is here.
    const isTold = cause.id === 'COMPLETION_LOST' || (own !== undefined && this.#peerDeviceOf(own) !== undefined)
    if (what === 'event' && isTold) return
    const peer = named !== undefined && peerDevice !== undefined ? this.#objects.qp(peerDevice, named.qpn) : undefined
    // The device itself changes states too.
    if (peer !== undefined && typeof named?.state === 'number') peer.qp.state = named.state
    for (const end of [own, peer]) if (end !== undefined) end.isReported = true
    // With too low a PSN, the first packets of a message are taken for duplicates.
    const isDuplicate = cause.id === 'OUT_OF_PLACE' && own !== undefined && peer !== undefined && !psnsFit(own, peer)
    const id = isDuplicate ? 'psn-mismatch' : told
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
      this.#find(id, where, {
        text: failureText(failure),
        details: [
          ...boundsText(failure),
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
      this.#find('no-peer-qp', where, { text, objects })
      return
    }
    if (own === undefined || peer === undefined) {
      this.#find(id, where, { text, objects })
      return
    }
    const details = sideBySide(own, peer)
    const [reason] = misfits(own, peer, this.#deviceWith)
    const root = reason === 'peer-in-error' ? peer.failure : undefined
    const rootId = root && findingOfCause(root.cause.id)
    if (root !== undefined && rootId !== undefined)
      this.#find(rootId, where, { text: `${text}: the peer failed first: ${failureText(root)}`, details, objects })
    else if (reason !== undefined)
      this.#find(reason, where, { text: `${text}: ${findings[reason].title}`, details, objects })
    else this.#find(id, where, { text, details, objects })
  }

  // ---- findings ----

  #find(id: FindingId, { time, device, program, stack, what = 'called' }: Place, draft: Draft): void {
    const { text, details = [] } = draft
    const severity = draft.severity ?? findings[id].severity
    // Without the process: what a thousand children do at one place is one finding.
    const key = [id, program?.command, shapeOf(text), ...stack].join('\n')
    const known = this.#numbers.get(key)
    if (known !== undefined) {
      this.#counts[known - 1]!++
      return
    }
    if (this.#counts.length === MAX_FINDINGS) {
      this.dropped++
      return
    }
    const number = this.#counts.push(1)
    this.#numbers.set(key, number)
    const objects = [...new Set(draft.objects ?? [])].filter(object => object !== undefined)
    this.#report({
      number,
      id,
      severity,
      text,
      details,
      ...(program && { program }),
      device,
      time,
      moments: [moment(what, time, stack)],
      objects: objects
        .slice(0, MAX_NAMED + 1)
        .map((object): FoundObject => ({ name: object.nameWithProgram, history: object.history })),
    })
  }
}
