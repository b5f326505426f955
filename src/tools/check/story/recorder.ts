/*
 * Takes the stream of program events, and notes what stories tell (log.ts), as numbers. Events that are not about an
 * object are kept for their context.
 */
import type { Stack } from '../../../spec/check/finding.ts'
import type {
  CheckedCall,
  CheckedFailure,
  ContextEnd,
  Death,
  LibraryRefusal,
  ProgramEvent,
  RefusedPost,
} from '../../../spec/check/program-events.ts'
import type { RequestCompletion, WorkRequest } from '../../../spec/check/requests.ts'
import { isQueuePairClass, isSrqClass } from '../../../spec/classes/ids.ts'
import { CmEventType } from '../../../spec/enums.ts'
import { Errno } from '../../../spec/errno.ts'
import { changesNothing, roleOf } from '../../../spec/methods.ts'
import { PostQueue } from '../../../spec/session.ts'
import { WcStatus } from '../../../spec/work.ts'
import type { Detector, DetectorServices, Topic } from '../detector.ts'
import { type KnownObject, queueOf } from '../objects.ts'
import { NewEvent, ProcessLog, type Subject } from './log.ts'

/** Processes whose events are kept, the latest. */
const MAX_PROCESSES = 128
/** Objects that are found at once. */
const MAX_SUBJECTS = 2 ** 14
/** Connections of identifiers that are kept, the latest. */
const MAX_LINKS = 4096

/**
 * The kinds of noted events, with what their numbers say:
 * - POSTED: `index` postIndex or −1, `wrId`, `amount` bytes, `detail` opcode and the QPN that a datagram is for or 0,
 *   `peer` PostQueue
 * - COMPLETED: `index` of the queue, `wrId`, `amount` bytes, `detail` status and opcode of the request, `peer` the
 *   owner of the received message or 0, `peerWrId` its wr_id
 * - ENDED: `index`, `wrId`, `detail` opcode
 * - LOST: a receive without a completion: `wrId`
 * - POLLED_FAILURE: of a queue pair: `wrId`, `detail` opcode
 * - DROPPED, POLLED: `amount` how many
 * - CALLED, REFUSED: `detail` number of the method, `amount` state of a queue pair or −1; of REFUSED the errno: with
 *   EINTR a signal has ended the call, of which `detail` may be the function
 * - REFUSED_POST: `wrId`, `amount` errno, `detail` opcode, `peer` PostQueue
 * - READ_EVENT: `detail` type, `amount` status, `index` the handle of the identifier, `peer` of a CONNECT_REQUEST the
 *   identifier that has accepted, and has no ESTABLISHED, or 0
 * - RAISED_EVENT: `detail` type
 * - ENDED_PROGRAM: `detail` EndKind
 */
export const Kind = {
  POSTED: 0,
  COMPLETED: 1,
  ENDED: 2,
  LOST: 3,
  DROPPED: 4,
  NOT_READY: 5,
  POLLED: 6,
  CALLED: 7,
  REFUSED: 8,
  REFUSED_POST: 9,
  READ_EVENT: 10,
  RAISED_EVENT: 11,
  ENDED_PROGRAM: 12,
  POLLED_FAILURE: 13,
} as const

export const endKinds = ['close', 'exit', 'kill', 'died'] as const

const { SUCCESS } = WcStatus.values
const { CONNECT_REQUEST } = CmEventType.values
const { SEND } = PostQueue
/** Opcodes are below, and -1 is for receives. */
const STATUS = 2 ** 16

/** The two numbers of `detail` of COMPLETED, and of POSTED. */
const detailOf = (number: number, opcode: number): number => number * STATUS + opcode + 1
export const statusOf = (detail: number): number => Math.floor(detail / STATUS)
export const destinationOf = statusOf
export const opcodeOf = (detail: number): number => (detail % STATUS) - 1

/** Classes of which a story tells the calls beside refused ones, besides queue pairs and SRQs. */
const TOLD: ReadonlySet<string> = new Set(['cq', 'mr', 'mw', 'ah', 'cm_id'])
const isTold = (name: string): boolean => TOLD.has(name) || isQueuePairClass(name) || isSrqClass(name)
/** Calls that transfer something, and are told nevertheless. */
const TRANSFERS: ReadonlySet<string> = new Set(['cq.reqNotify', 'cm_id.notify'])
/** Whether a call changes nothing that a story tells. */
const isSilent = (name: string): boolean =>
  name === 'cm_id.setOption' || (changesNothing(roleOf(name)) && !TRANSFERS.has(name))

/** What a context's events without an object are about. */
export const contextSubject = (context: number): number => -1 - context

/** Whether a CONNECT_REQUEST was read after an identifier has accepted, before an event of it. */
export const OVERTAKEN: Topic<(id: KnownObject) => boolean> = { name: 'overtaken identifiers' }

export class StoryRecorder {
  readonly detector: Detector
  readonly #services: DetectorServices
  /** By pid; undefined: the process that runs the checker. */
  readonly #logs = new Map<number | undefined, ProcessLog>()
  /** Subjects of objects, for requests; and the last ones of a queue and of a CQ. */
  readonly #subjects = new Map<number, Subject>()
  #queue: Subject | undefined
  #cq: Subject | undefined
  readonly #event = new NewEvent()
  readonly #methods: string[] = []
  readonly #methodNumbers = new Map<string, number>()
  /** By channel: the identifier that has accepted a connection last, until an event of it is read. */
  readonly #accepted = new Map<number, KnownObject>()
  readonly #overtaken = new WeakSet<KnownObject>()
  /** Queue pairs of identifiers, and identifiers of queue pairs, by `CoreObject.id`. */
  readonly #linked = new Map<number, number>()

  constructor(services: DetectorServices) {
    this.#services = services
    services.tell(OVERTAKEN, id => this.#overtaken.has(id))
    this.detector = {
      on: {
        posted: request => this.#posted(request),
        ended: request => this.#ended(request),
        completed: (request, completion) => this.#completed(request, completion),
        receiveLost: request => this.#receiveLost(request),
        receiverNotReady: qp => this.#notReady(qp),
        polled: (cq, count) => this.#polled(cq, count),
        queueReset: owner => this.#reset(owner),
      },
    }
  }

  get logs(): Iterable<ProcessLog> {
    return this.#logs.values()
  }

  /** The name of a method by its number in `detail`: `class.method`. */
  methodOf(detail: number): string {
    return this.#methods[detail] ?? ''
  }

  /** The queue pair of an identifier, or the identifier of a queue pair, by `CoreObject.id`. */
  linkedTo(id: number): number | undefined {
    return this.#linked.get(id)
  }

  /** From which queue pair a queue has received last, and which queues have last received from it. */
  partnersOf(id: number): readonly number[] {
    const receivers = [...this.#subjects.values()].filter(({ partner }) => partner === id)
    return [this.#subjects.get(id)?.partner ?? 0, ...receivers.map(subject => subject.id)]
  }

  #logOf(program: KnownObject['program']): ProcessLog {
    const pid = program?.pid
    let log = this.#logs.get(pid)
    if (log === undefined) {
      log = new ProcessLog(program)
      this.#logs.set(pid, log)
      const [oldest] = this.#logs.keys()
      if (this.#logs.size > MAX_PROCESSES) this.#logs.delete(oldest)
    }
    return log
  }

  /** The subject of an object; undefined: the object is unknown. */
  #subjectOf(id: number): Subject | undefined {
    const last = this.#subjects.get(id)
    if (last !== undefined && !last.isForgotten) return last
    const known = this.#services.objects.find(id)
    if (known === undefined) return undefined
    const subject = this.#logOf(known.program).subject(id)
    if (this.#subjects.size === MAX_SUBJECTS) this.#subjects.clear()
    this.#subjects.set(id, subject)
    return subject
  }

  /** As `#subjectOf`, of the queue of a request: most often that of the last one. */
  #queueOf(id: number): Subject | undefined {
    const last = this.#queue
    if (last !== undefined && last.id === id && !last.isForgotten) return last
    this.#queue = this.#subjectOf(id)
    return this.#queue
  }

  #begin(kind: number, time = this.#services.sources.now()): NewEvent {
    return this.#event.begin(kind, time)
  }

  /** Notes an event that is no repeat of the last one; `numbers`: what is not 0 of it. */
  #note(subject: Subject, kind: number, numbers: Partial<NewEvent>, stack: Stack = []): void {
    const { log } = subject
    log.beginPart()
    log.note(subject, Object.assign(this.#begin(kind, numbers.time), { stack: log.stackNumber(stack), ...numbers }))
  }

  // ---- requests ----

  #posted(request: WorkRequest): void {
    const { owner, queue, postIndex = -1, wrId, opcode, length, time, destination, destQpn = 0 } = request
    const subject = this.#queueOf(owner)
    if (subject === undefined) return
    if (queue !== SEND) subject.receives++
    const event = this.#begin(Kind.POSTED, time)
    event.index = postIndex
    event.wrId = wrId
    event.amount = length
    event.detail = detailOf(destination === undefined ? 0 : destQpn, opcode)
    event.peer = queue
    subject.log.note(subject, event)
  }

  /** A signaled send has a completion too. */
  #ended({ owner, isSignaled, index, wrId, opcode }: WorkRequest): void {
    if (isSignaled) return
    const subject = this.#queueOf(owner)
    if (subject === undefined) return
    const event = this.#begin(Kind.ENDED)
    event.index = index
    event.wrId = wrId
    event.detail = opcode
    subject.log.note(subject, event)
  }

  #completed(request: WorkRequest, { status, bytes, message }: RequestCompletion): void {
    const subject = this.#queueOf(request.owner)
    if (subject === undefined) return
    if (request.queue !== SEND) subject.receives--
    const event = this.#begin(Kind.COMPLETED)
    event.index = request.index
    event.wrId = request.wrId
    event.amount = bytes
    event.detail = detailOf(status, request.opcode)
    if (message !== undefined) {
      event.peer = message.owner
      event.peerWrId = message.wrId
      if (request.queue !== SEND) subject.partner = message.owner
    }
    if (isFailure(event.detail)) subject.log.beginPart()
    subject.log.complete(subject, event)
  }

  #receiveLost({ owner, wrId }: WorkRequest): void {
    const subject = this.#subjectOf(owner)
    if (subject === undefined) return
    subject.receives--
    this.#note(subject, Kind.LOST, { wrId })
  }

  #notReady(qp: number): void {
    const subject = this.#subjectOf(qp)
    if (subject !== undefined) this.#note(subject, Kind.NOT_READY, {})
  }

  /** Told at each request: most often nothing was polled since. */
  #polled(cq: number, count: number): void {
    let subject = this.#cq
    if (subject === undefined || subject.id !== cq || subject.isForgotten) {
      subject = this.#subjectOf(cq)
      this.#cq = subject
    }
    if (subject === undefined || subject.polled === count) return
    subject.log.poll(subject, Kind.POLLED, count - subject.polled)
    subject.polled = count
  }

  /** The program has polled the completion of a failed request of this queue pair. */
  failurePolled({ id }: KnownObject, { wrId, opcode }: WorkRequest): void {
    const subject = this.#subjectOf(id)
    if (subject !== undefined) this.#note(subject, Kind.POLLED_FAILURE, { wrId, detail: opcode })
  }

  #reset(owner: number): void {
    const subject = this.#subjectOf(owner)
    if (subject === undefined) return
    if (subject.receives > 0) this.#note(subject, Kind.DROPPED, { amount: subject.receives })
    subject.receives = 0
  }

  // ---- other events ----

  /** Takes an event of the stream, before the checker draws conclusions from it. */
  event(event: ProgramEvent): void {
    switch (event.event) {
      case 'called':
        this.#called(event)
        return
      case 'refusedPost':
        this.#refusedPost(event)
        return
      case 'refusedByLibrary':
        if (event.errno === Errno.EINTR) this.#interrupted(event)
        return
      case 'failed':
        this.#failed(event)
        return
      case 'contextEnds':
        this.#contextEnds(event)
        return
      case 'died':
        this.#died(event)
        return
      default:
    }
  }

  #methodNumber(name: string): number {
    let number = this.#methodNumbers.get(name)
    if (number === undefined) {
      number = this.#methods.push(name) - 1
      this.#methodNumbers.set(name, number)
    }
    return number
  }

  #called(call: CheckedCall): void {
    const { object, class: name, method, program, context, args, out, refused, why, time } = call
    if (why !== 'call') return
    const log = this.#logOf(program)
    if (refused !== undefined) {
      if (refused.errno === Errno.EAGAIN) return
      const subject = log.subject(object?.id ?? contextSubject(context))
      const detail = this.#methodNumber(`${name}.${method}`)
      this.#note(subject, Kind.REFUSED, { detail, amount: refused.errno, time }, call.stack)
      this.#byThread(log, call)
      return
    }
    if (object === undefined) return
    if (name === 'cm_channel' && method === 'getEvent') {
      this.#readEvent(call, out)
      return
    }
    const called = `${name}.${method}`
    if (!isTold(name) || isSilent(called) || (method === 'create' && name !== 'cm_id')) return
    const qp = name === 'cm_id' ? this.#link(call, object.id) : undefined
    // rdma_establish names no queue pair, and datagrams have no ESTABLISHED.
    const id = method === 'accept' && qp !== undefined && qp.class !== 'ud_qp' && this.#services.objects.find(object.id)
    if (id) this.#accepted.set(context, id)
    const { state } = args as { readonly state?: number }
    const detail = this.#methodNumber(called)
    this.#note(log.subject(object.id), Kind.CALLED, { detail, amount: state ?? -1, time }, call.stack)
    this.#byThread(log, call)
  }

  #interrupted({ program, context = -1, function: name, time, stack }: LibraryRefusal): void {
    const numbers = { detail: this.#methodNumber(name), amount: Errno.EINTR, time }
    this.#note(this.#logOf(program).subject(contextSubject(context)), Kind.REFUSED, numbers, stack)
  }

  #byThread(log: ProcessLog, { thread }: CheckedCall): void {
    if (thread !== undefined) log.byThread(thread)
  }

  /** A call that names the queue pair of an identifier. */
  #link({ args, program, queuePair }: CheckedCall, id: number): KnownObject | undefined {
    const { qpNum } = (args.parameters ?? {}) as { readonly qpNum?: number }
    const qpn = queuePair ?? qpNum
    const qp = qpn === undefined || qpn === 0 ? undefined : this.#services.objects.qpOfProgram(program, qpn)
    if (qp === undefined) return undefined
    for (const [from, to] of [
      [id, qp.id],
      [qp.id, id],
    ] as const) {
      this.#linked.set(from, to)
      const [oldest] = this.#linked.keys()
      if (this.#linked.size > MAX_LINKS) this.#linked.delete(oldest!)
    }
    return qp
  }

  #readEvent(call: CheckedCall, { type, status, object: handle }: CheckedCall['out']): void {
    const { context, program, time, stack } = call
    const id = typeof handle === 'number' ? this.#services.objects.byHandle(context, 'cm_id', handle) : undefined
    // The identifier of a CONNECT_REQUEST is not known before its first call.
    const subject = this.#logOf(program).subject(id?.id ?? contextSubject(context))
    const code = typeof status === 'number' ? status | 0 : 0
    const detail = typeof type === 'number' ? type : -1
    const accepted = this.#accepted.get(context)
    const overtaken = type === CONNECT_REQUEST ? accepted : undefined
    if (overtaken !== undefined) this.#overtaken.add(overtaken)
    else if (id === accepted) this.#accepted.delete(context)
    const peer = overtaken?.id ?? 0
    this.#note(subject, Kind.READ_EVENT, { detail, amount: code, time, index: Number(handle), peer }, stack)
    this.#byThread(subject.log, call)
  }

  #refusedPost(post: RefusedPost): void {
    const { program, context, wrId, error, queue, request, stack, time } = post
    const owner = queueOf(this.#services.objects, post)
    const subject = this.#logOf(program).subject(owner?.id ?? contextSubject(context))
    const detail = queue === SEND ? (request?.opcode ?? 0) : -1
    this.#note(subject, Kind.REFUSED_POST, { detail, amount: error, wrId, peer: queue, time }, stack)
  }

  #failed({ failure: { event, qpn, cause }, deviceNumber, context, program, time }: CheckedFailure): void {
    if (event === undefined) return
    const { cq } = cause.args
    const { objects } = this.#services
    const about =
      qpn === undefined
        ? typeof cq === 'number'
          ? objects.byHandle(context, 'cq', cq)
          : undefined
        : objects.qp(deviceNumber, qpn)
    const subject = this.#logOf(program).subject(about?.id ?? contextSubject(context))
    this.#note(subject, Kind.RAISED_EVENT, { detail: event, time })
  }

  /** Told again for a context that has ended. */
  #contextEnds({ context, how }: ContextEnd): void {
    const [object] = this.#services.objects.existingIn(context)
    if (object === undefined) return
    const subject = this.#logOf(object.program).subject(contextSubject(context))
    if (!subject.hasEnded) this.#note(subject, Kind.ENDED_PROGRAM, { detail: endKinds.indexOf(how) })
    subject.hasEnded = true
  }

  #died({ program, stack, time }: Death): void {
    const log = this.#logOf(program)
    const detail = endKinds.indexOf('died')
    this.#note(log.subject(contextSubject(-1)), Kind.ENDED_PROGRAM, { detail, time }, stack)
  }
}

/** Whether a request has failed by itself. `detail`: of COMPLETED. */
export const isFailure = (detail: number): boolean =>
  statusOf(detail) !== SUCCESS && statusOf(detail) !== WcStatus.values.WR_FLUSH_ERR
