/*
 * Where the time of sends goes: events of a session in, the phases of each send out. Also sums by queue pair: at each
 * moment the time is that of the oldest send that the device has not completed; without one, `program` if a completion
 * was not polled.
 *
 * What the events do not say: when the program called ibv_post_send (a request begins when the device sees it), and
 * exactly when it polled: the device notices polls at the next request or completion of the completion queue, so that
 * the phase `program` also has what the program did until then.
 */

import { hexBytes } from '../../../base/text.ts'
import type { Stack } from '../../../spec/check/finding.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { Verdict, verdictOf } from '../../../spec/naks.ts'
import type { PacketsEvent, SessionEvent } from '../../../spec/session-events.ts'
import type { PacketFlow } from '../../../spec/wire/flow.ts'
import {
  headerAt,
  isReliableOpcode,
  OP_ACK,
  OP_ATOMIC,
  OP_END,
  OP_READ,
  OP_REQUEST,
  OP_START,
  OPERATION_MASK,
  opcodeFlags,
  sourceQpnAt,
  TRANSPORT_MASK,
  transportBits,
} from '../../../spec/wire/opcodes.ts'
import { countsAsRead, SendFlags, SendKind, sendOperations } from '../../../spec/work.ts'
import { BTH_BYTES, bthDestQp, bthOpcode, bthPsn, psnDifference } from '../../../transport/wire/bth.ts'
import { aethSyndrome, rethDmaLen } from '../../../transport/wire/extensions.ts'
import { flowHash } from '../../../transport/wire/flow.ts'
import { viewOf } from '../decode.ts'
import { type QueuePair, SessionObjects } from '../objects.ts'
import { lostOutcomes } from '../packets.ts'
import { Durations } from './durations.ts'
import { Fifo } from './fifo.ts'
import { interrupted, noTimes, type Phase, type PhaseTimes, type Span, type Stall } from './phases.ts'

/** A send and what it waited for. Times are microseconds of the recorder's clock. */
export interface RequestTimes {
  readonly request: WorkRequest
  /** Of the post; empty: unknown. */
  readonly stack: Stack
  readonly queue: QueueTimes
  readonly from: number
  readonly to: number
  /** Undefined: it succeeded without a completion, or has not ended. */
  readonly status: number | undefined
  /** Whether it was still outstanding at the end of the events, or when its queue was reset. */
  readonly isOpen: boolean
  readonly spans: readonly Span[]
}

/** What advice needs to know beside the times (advice.ts). Times are microseconds. */
interface Evidence {
  /** Sends that were outstanding without any other. */
  readonly alone: number
  /**
   * Time in which a send waited for a fence, a slot or the window. Earlier sends were outstanding, and in the sums it
   * is their time, since they are the oldest.
   */
  readonly fence: number
  readonly reads: number
  readonly window: number
  /** Fenced sends that waited, and of these the ones with data that an earlier READ or atomic wrote. */
  readonly fenced: number
  readonly fencedForData: number
  /** The device's time for sends that have no packets, or whose packets nobody acknowledges. */
  readonly ended: number
  /** Time after RNR NAKs in which the peer's receive was posted. */
  readonly receiveReady: number
  /** Time of losses that no NAK and no later answer told: until the timeout. */
  readonly untold: number
  /** From completions to the last look at which they certainly were not polled, and to the look at which they were. */
  readonly notPolled: number
  readonly polled: number
}

/** The sends of a queue pair. */
export interface QueueTimes {
  readonly qp: QueuePair
  readonly phases: Readonly<PhaseTimes>
  /** Microseconds in which no send was outstanding, between the first and the last. */
  readonly idle: number
  readonly bytes: number
  /**
   * Packets that were sent more than once, also those that were not lost; packets that were lost on the way, those of
   * answers too.
   */
  readonly repeated: number
  readonly lost: number
  /** Of the lost packets, those that were neither sent again nor acknowledged since. */
  readonly unrepaired: number
  /** RNR NAKs that it got. */
  readonly notReady: number
  /** Of its sends, from the device's first look to the poll. */
  readonly durations: Durations
  readonly evidence: Evidence
}

/** Packets that were lost, and of these sent again or no longer needed. */
export interface Losses {
  readonly lost: number
  readonly repaired: number
}

/** `33 packets lost and repaired`; `33 packets lost, 31 of them repaired`. */
export const lostText = ({ lost, repaired }: Losses, countText: (count: number) => string = String): string => {
  const text = `${countText(lost)} ${lost === 1 ? 'packet' : 'packets'} lost`
  if (repaired === 0) return text
  return repaired === lost ? `${text} and repaired` : `${text}, ${countText(repaired)} of them repaired`
}

const PSN_MASK = 0xff_ffff

/** Outstanding sends of all queue pairs; further ones are counted, and not looked at. */
const MAX_OPEN = 65_536
/** Stalls of a queue pair that are remembered. */
const MAX_STALLS = 64
/** Runs of packets of a queue pair whose times are remembered. */
const MAX_RUNS = 256
/** Sends that are looked at for the first packet of a message: local operations have none. */
const MAX_SCAN = 256
/** READs and atomics whose places in memory are remembered, for fences. */
const MAX_ANSWERED = 16
/** Sends that have ended and are kept before they are removed, beyond as many as are outstanding. */
const SLACK = 64

/** A send that is outstanding. Times are NaN until they are known. */
interface Open {
  readonly request: WorkRequest
  readonly stack: Stack
  readonly queue: Queue
  /** When the packets of earlier sends had been sent, its first packet, and its last. */
  turn: number
  first: number
  last: number
  /** What it waited for when its turn had come. */
  wait: Phase
  ended: number
  completed: number
  status: number | undefined
  /** Whether it has ended, or is left. */
  isOver: boolean
  /** Whether its packets are being sent, or those of later sends: it counts in `sentBytes` and `sentSlots`. */
  isSent: boolean
  /** Whether another send was outstanding too. */
  hasCompany: boolean
  /** Until its completion, once that is known. */
  spans: Span[] | undefined
}

/** Packets of requests that were sent together, for the first time. */
interface Run {
  readonly psn: number
  /** PSNs. */
  readonly count: number
  readonly time: number
  /** PSNs of answers with data that have not come: an acknowledgement of later requests does not stand for them. */
  unanswered: number
}

interface Queue extends QueueTimes {
  readonly phases: PhaseTimes
  readonly evidence: { -readonly [name in keyof Evidence]: number }
  idle: number
  bytes: number
  repeated: number
  lost: number
  unrepaired: number
  /** Of `unrepaired`, those that the transport will repair if it can. */
  pending: number
  notReady: number
  /** Sends in their order, those that have ended too, and how many have not. */
  sends: Open[]
  outstanding: number
  /** Indices in `sends`: all before have ended; all before are sent. */
  oldest: number
  next: number
  /** Of sends that are sent and have not ended: bytes, READs and atomics. */
  sentBytes: number
  sentSlots: number
  /** Sends whose completions were not polled. */
  unpolled: number
  /** The send whose packets are being sent. */
  current: Open | undefined
  /** When the last new packet was sent. */
  sentUntil: number
  /** When a send ended last, and when a READ or atomic. */
  endedAt: number
  answeredAt: number
  /** Up to which time the waits for fences, slots and the window count. */
  waitedUntil: number
  /** Up to which time the sums count; NaN: there was no send. */
  counted: number
  /** The newest PSN of requests. */
  highest: number | undefined
  readonly runs: Run[]
  readonly stalls: Stall[]
  /**
   * When an RNR NAK came after which nothing was sent yet, and when the peer has posted a receive since the last one.
   */
  notReadySince: number | undefined
  receivedAt: number | undefined
  /** When a NAK, or the answer of a later request, told that packets were lost. */
  toldAt: number
  /** READs and atomics that were answered last. */
  readonly answered: { readonly request: WorkRequest; readonly time: number }[]
  /** Of its completions; 0: unknown. */
  cq: number
  /** Bytes that may be unacknowledged. */
  window: number
}

const kindOf = ({ opcode }: WorkRequest): number => sendOperations[opcode]?.kind ?? SendKind.NONE
/** Whether a request takes one of max_rd_atomic slots. */
const takesSlot = ({ opcode }: WorkRequest): boolean => countsAsRead(opcode)

/** Whether a message of this request begins with a packet of this opcode. */
const beginsWith = ({ opcode }: WorkRequest, packet: number): boolean => {
  const operation = sendOperations[opcode]
  const code = packet & OPERATION_MASK
  return (
    operation !== undefined &&
    operation.kind !== SendKind.LOCAL &&
    (code === operation.first || code === operation.only)
  )
}

/** A key for packets to a queue pair on a path: rarely two paths have the same. */
const pathKey = (qpn: number, flow: PacketFlow, isBack = false): string => `${qpn} ${flowHash(flow, isBack)}`

/** PSNs of the longest READ: 2 GiB (IBA 9.7.3.1) would be more than half of all. */
const MAX_READ_PSNS = 2 ** 23 - 1

/** PSNs of `count` packets of requests: a READ has one for each packet of its answer (IBA 9.7.3). */
const psnsOf = (view: DataView, opcode: number, { qp }: Queue, count: number): number => {
  const at = headerAt.RETH[opcode]!
  // Several requests with ascending PSNs have one each.
  if (count > 1) return count
  if ((opcodeFlags[opcode]! & OP_READ) === 0 || qp.pathMtu === undefined || view.byteLength < at + 16) return count
  return Math.min(MAX_READ_PSNS, Math.max(1, Math.ceil(rethDmaLen(view, at) / qp.pathMtu)))
}

const addStall = ({ stalls }: Queue, { phase, from, to }: Stall): void => {
  const last = stalls[stalls.length - 1]
  const start = Math.max(from, last?.to ?? from)
  if (start >= to) return
  if (last?.phase === phase && last.to === start) {
    stalls[stalls.length - 1] = { phase, from: last.from, to }
    return
  }
  stalls.push({ phase, from: start, to })
  if (stalls.length > MAX_STALLS) stalls.shift()
}

/** Sends of a CQ whose completions were not polled when the device looked last. */
interface Unpolled {
  readonly sends: Fifo<{ readonly position: number; readonly send: Open }>
  looked: number
}

const overlaps = (a: WorkRequest, b: WorkRequest): boolean =>
  a.elements.some(one =>
    b.elements.some(
      other =>
        one.lkey === other.lkey &&
        one.address < other.address + other.length &&
        other.address < one.address + one.length,
    ),
  )

export class TimesOfRequests {
  readonly objects: SessionObjects
  readonly #ownsObjects: boolean
  /** Sends that were too many to follow. */
  omitted = 0
  readonly #finish: (times: RequestTimes) => void
  /** By the id of their queue pair. */
  readonly #queues = new Map<number, Queue>()
  /** By device and QPN. */
  readonly #byQpn = new Map<string, Queue>()
  /** By device and the peer's QPN: several peers may have the same. */
  readonly #byPeer = new Map<string, Set<Queue>>()
  /** The sender of requests, and of the requests that are answered, by `pathKey` of the packets. */
  readonly #ofRequests = new Map<string, Queue>()
  readonly #ofAnswers = new Map<string, Queue>()
  readonly #open = new Map<number, Open>()
  /** Sends whose completions were not polled, by CQ, in their order. */
  readonly #unpolled = new Map<number, Unpolled>()
  /** By the id of a peer, or of its shared receive queue: the queue pairs that got an RNR NAK. */
  readonly #notReady = new Map<number, Set<Queue>>()
  /** Queue pairs by number. */
  readonly #byNumber = new Map<number, Set<QueuePair>>()

  /**
   * `finish` gets each send when its completion was polled, or when it has ended without one. `objects`: the caller
   * adds the events of objects to them first; absent: this class has its own.
   */
  constructor(finish: (times: RequestTimes) => void = () => {}, objects?: SessionObjects) {
    this.#finish = finish
    this.#ownsObjects = objects === undefined
    this.objects = objects ?? new SessionObjects()
  }

  /** The queue pairs that have sent something. */
  get queues(): readonly QueueTimes[] {
    return [...this.#queues.values()].filter(({ durations }) => durations.count > 0)
  }

  /**
   * Packets that were lost, and of these repaired: of the sends of these queue pairs and their answers. Absent: of all.
   */
  lossesOf(ids: Iterable<number> = this.#queues.keys()): Losses {
    let [lost, unrepaired] = [0, 0]
    for (const id of ids) {
      lost += this.#queues.get(id)?.lost ?? 0
      unrepaired += this.#queues.get(id)?.unrepaired ?? 0
    }
    return { lost, repaired: lost - unrepaired }
  }

  /** Takes the next event. Events of checkpoints are those of objects that exist. */
  add(event: SessionEvent): void {
    switch (event.kind) {
      case 'device':
        if (this.#ownsObjects) this.objects.addDevice(event)
        return
      case 'object':
        this.#addObject(event)
        return
      case 'posted':
        if (event.request.opcode >= 0) this.#addPosted(event.request, event.stack, event.time)
        else this.#addReceive(event.request.owner, event.time)
        return
      case 'packets':
        if (event.bytes.length >= BTH_BYTES) this.#addPackets(event)
        return
      case 'ended':
        this.#ended(event.request, event.time)
        return
      case 'completed':
        this.#completed(event)
        this.#lookedAt(event.cq, event.time)
        return
      case 'polled': {
        this.#polled(event.cq, event.count, event.time)
        return
      }
      case 'queueReset': {
        const queue = this.#queues.get(event.owner)
        if (queue === undefined) return
        for (const send of queue.sends) if (!send.isOver) this.#close(send, event.time, true)
        this.#connectedAnew(queue)
        return
      }
      case 'counters': {
        const { window } = event.values
        const queue = window === undefined ? undefined : this.#queueOf(event.object)
        if (queue !== undefined && window !== undefined) queue.window = window
      }
    }
  }

  /** The events end at `time`: so do the sends that are outstanding. */
  end(time: number): void {
    for (const send of this.#open.values()) this.#close(send, time, Number.isNaN(send.ended))
    this.#unpolled.clear()
  }

  // ---- objects and requests ----

  #addObject(event: SessionEvent & { readonly kind: 'object' }): void {
    if (this.#ownsObjects) this.objects.add(event)
    // Completions of a CQ that is gone will not be polled.
    if (event.change === 'destroyed') this.#polled(event.object, Number.POSITIVE_INFINITY, event.time)
    const qp = this.objects.queuePairs.get(event.object)
    if (qp !== undefined) this.#byNumber.set(qp.qpn, (this.#byNumber.get(qp.qpn) ?? new Set()).add(qp))
    const queue = this.#queues.get(event.object)
    if (queue === undefined) return
    if (event.details.values?.destQpn !== undefined) this.#connected(queue)
  }

  #connected(queue: Queue): void {
    const { object, peerQpn } = queue.qp
    if (peerQpn === undefined) return
    const key = `${object.device} ${peerQpn}`
    const queues = this.#byPeer.get(key) ?? new Set()
    this.#byPeer.set(key, queues.add(queue))
    this.#connectedAnew(queue)
  }

  #connectedAnew(queue: Queue): void {
    queue.highest = undefined
    queue.runs.length = 0
    queue.pending = 0
    queue.notReadySince = undefined
    queue.current = undefined
  }

  #queueOf(owner: number): Queue | undefined {
    const known = this.#queues.get(owner)
    const qp = this.objects.queuePairs.get(owner)
    if (known !== undefined || qp === undefined) return known
    const queue: Queue = {
      qp,
      phases: noTimes(),
      idle: 0,
      bytes: 0,
      repeated: 0,
      lost: 0,
      unrepaired: 0,
      pending: 0,
      notReady: 0,
      durations: new Durations(),
      sends: [],
      outstanding: 0,
      oldest: 0,
      next: 0,
      sentBytes: 0,
      sentSlots: 0,
      unpolled: 0,
      current: undefined,
      sentUntil: 0,
      endedAt: Number.NEGATIVE_INFINITY,
      answeredAt: Number.NEGATIVE_INFINITY,
      waitedUntil: 0,
      counted: Number.NaN,
      highest: undefined,
      runs: [],
      stalls: [],
      notReadySince: undefined,
      receivedAt: undefined,
      toldAt: Number.NEGATIVE_INFINITY,
      answered: [],
      cq: 0,
      evidence: {
        alone: 0,
        fence: 0,
        reads: 0,
        window: 0,
        fenced: 0,
        fencedForData: 0,
        ended: 0,
        receiveReady: 0,
        untold: 0,
        notPolled: 0,
        polled: 0,
      },
      window: Number.POSITIVE_INFINITY,
    }
    this.#queues.set(owner, queue)
    this.#byQpn.set(`${qp.object.device} ${qp.qpn}`, queue)
    this.#connected(queue)
    return queue
  }

  #addPosted(request: WorkRequest, stack: Stack, time: number): void {
    // Only of a file with wrong numbers.
    const same = this.#open.get(request.id)
    if (same !== undefined) this.#close(same, time, true)
    const queue = this.#open.size < MAX_OPEN ? this.#queueOf(request.owner) : undefined
    if (queue === undefined) {
      this.omitted++
      return
    }
    const unknown = Number.NaN
    const send: Open = {
      request: { ...request, time },
      stack,
      queue,
      turn: unknown,
      first: unknown,
      last: unknown,
      wait: 'device',
      ended: unknown,
      completed: unknown,
      status: undefined,
      isOver: false,
      isSent: false,
      hasCompany: queue.outstanding > 0,
      spans: undefined,
    }
    if (queue.outstanding === 1) queue.sends[queue.oldest]!.hasCompany = true
    if (queue.cq !== 0) this.#lookedAt(queue.cq, time)
    queue.sends.push(send)
    queue.outstanding++
    if (Number.isNaN(queue.counted)) queue.counted = time
    queue.bytes += request.length
    this.#open.set(request.id, send)
  }

  /** The device has ended a send, or it is left. */
  #over(send: Open): void {
    const { queue } = send
    if (send.isOver) return
    send.isOver = true
    queue.outstanding--
    if (queue.current === send) queue.current = undefined
    if (send.isSent) this.#countSent(send, -1)
    while (queue.sends[queue.oldest]?.isOver) queue.oldest++
    queue.next = Math.max(queue.next, queue.oldest)
    // There may be very many queue pairs, most without outstanding sends.
    if (queue.outstanding > 0 && queue.sends.length <= 2 * queue.outstanding + SLACK) return
    const isLeft = ({ isOver }: Open): boolean => !isOver
    queue.next = queue.sends.slice(queue.oldest, queue.next).filter(isLeft).length
    queue.sends = queue.sends.slice(queue.oldest).filter(isLeft)
    queue.oldest = 0
  }

  #countSent({ queue, request }: Open, sign: 1 | -1): void {
    queue.sentBytes += sign * request.length
    if (takesSlot(request)) queue.sentSlots += sign
  }

  #ended(id: number, time: number): void {
    const send = this.#open.get(id)
    if (send === undefined || !Number.isNaN(send.ended)) return
    const { queue, request } = send
    send.ended = time
    queue.endedAt = time
    if (!request.isSignaled) repair(queue)
    this.#over(send)
    if (takesSlot(request)) {
      queue.answeredAt = time
      queue.answered.push({ request, time })
      if (queue.answered.length > MAX_ANSWERED) queue.answered.shift()
    }
    if (!request.isSignaled) this.#close(send, time)
  }

  #completed({ request, cq, cqPosition, status, time }: SessionEvent & { readonly kind: 'completed' }): void {
    const send = this.#open.get(request)
    if (send === undefined || !Number.isNaN(send.completed)) return
    send.status = status
    if (status === 0) repair(send.queue)
    // Unsignaled: it has failed.
    if (Number.isNaN(send.ended)) send.ended = time
    this.#over(send)
    send.completed = time
    this.#settle(send, time)
    if (cqPosition === 0) {
      this.#close(send, time)
      return
    }
    send.queue.unpolled++
    send.queue.cq = cq
    const unpolled = this.#unpolled.get(cq) ?? { sends: new Fifo(), looked: time }
    this.#unpolled.set(cq, unpolled)
    unpolled.sends.push({ position: cqPosition, send })
  }

  /** The device has looked at the polls of a CQ: those that it has not told are still to come. */
  #lookedAt(cq: number, time: number): void {
    const unpolled = this.#unpolled.get(cq)
    if (unpolled !== undefined) unpolled.looked = time
  }

  /** The program has polled `count` completions of a CQ. */
  #polled(cq: number, count: number, time: number): void {
    const unpolled = this.#unpolled.get(cq)
    if (unpolled === undefined) return
    const { sends, looked } = unpolled
    while (sends.first !== undefined && sends.first.position <= count) {
      const { send } = sends.shift()!
      const { evidence } = send.queue
      evidence.notPolled += Math.max(0, looked - send.completed)
      evidence.polled += Math.max(0, time - send.completed)
      this.#close(send, time)
    }
    if (sends.first === undefined) this.#unpolled.delete(cq)
  }

  /** Adds the time of a send until its completion to the sums. `to`: now. */
  #settle(send: Open, to: number): Span[] {
    if (send.spans !== undefined) return send.spans
    const { queue, request } = send
    const stalls = [...queue.stalls]
    if (queue.notReadySince !== undefined) stalls.push({ phase: 'receiver', from: queue.notReadySince, to })
    send.spans = interrupted(spansOf(send, to), stalls)
    const gap = request.time - queue.counted
    if (gap > 0) {
      // Polls are noticed at the latest when the next send is posted.
      if (queue.unpolled > 0) queue.phases.program += gap
      else queue.idle += gap
    }
    const isUnsent = Number.isNaN(send.first)
    for (const { phase, from, to: end } of send.spans) {
      const time = Math.max(0, end - Math.max(from, queue.counted))
      queue.phases[phase] += time
      if (phase === 'device' && isUnsent) queue.evidence.ended += time
      if (phase !== 'fence' && phase !== 'reads' && phase !== 'window') continue
      queue.evidence[phase] += Math.max(0, end - Math.max(from, queue.waitedUntil))
      queue.waitedUntil = Math.max(queue.waitedUntil, end)
    }
    queue.counted = Math.max(queue.counted, completionOf(send, to))
    return send.spans
  }

  #close(send: Open, to: number, isOpen = false): void {
    const { queue, request, stack, status } = send
    if (!this.#open.delete(request.id)) return
    this.#over(send)
    const spans = this.#settle(send, to)
    const from = completionOf(send, to)
    if (to > from) spans.push({ phase: 'program', from, to })
    if (!Number.isNaN(send.completed) && queue.unpolled > 0) queue.unpolled--
    // What follows is the time of the oldest outstanding send.
    const until = Math.min(to, queue.sends[queue.oldest]?.request.time ?? to)
    queue.phases.program += Math.max(0, until - Math.max(from, queue.counted))
    queue.counted = Math.max(queue.counted, until)
    queue.durations.add(to - request.time)
    if (!send.hasCompany) queue.evidence.alone++
    this.#finish({ request, stack, queue, from: request.time, to, status, isOpen, spans })
  }

  // ---- packets ----

  #addPackets(event: PacketsEvent & { readonly time: number }): void {
    const { bytes, device, direction, outcome, count, time, flow } = event
    const view = viewOf(bytes)
    const opcode = bthOpcode(view, 0)
    const flags = opcodeFlags[opcode]!
    const qpn = bthDestQp(view, 0)
    const key = pathKey(qpn, flow)
    const isLost = lostOutcomes.has(outcome)
    if ((flags & OP_REQUEST) === 0) {
      const requester = this.#ofAnswers.get(key)
      if (!isLost) {
        this.#addAnswer(view, flags, requester, count, time)
        return
      }
      const loser = requester ?? (direction === 'received' ? this.#byQpn.get(`${device} ${qpn}`) : undefined)
      if (loser !== undefined) addLosses(loser, opcode, count)
      return
    }
    // What happened on arrival to packets that were recorded when they were sent.
    if (direction === 'received') {
      const sender = isLost ? (this.#ofRequests.get(key) ?? this.#namedSender(view, opcode, device)) : undefined
      if (sender !== undefined) addLosses(sender, opcode, count)
      return
    }
    const queue = this.#senderOf(view, opcode, device, qpn, key, event)
    if (queue === undefined) return
    if (isLost) addLosses(queue, opcode, count)
    if (queue.notReadySince !== undefined) this.#readyAgain(queue, queue.notReadySince, time)
    const hasAnswer = (flags & (OP_READ | OP_ATOMIC)) !== 0
    if (
      isReliableOpcode(opcode) &&
      this.#isRepeated(queue, bthPsn(view, 0), psnsOf(view, opcode, queue, count), hasAnswer, time)
    )
      return
    // Of packets that are messages each, all begin one.
    const starts = (flags & OP_START) === 0 ? 0 : (flags & OP_END) === 0 ? 1 : count
    for (let i = 0; i < starts; i++) {
      this.#start(queue, opcode, time)
      // A file of others may have any count.
      if (queue.current === undefined) break
    }
    queue.sentUntil = time
    if (queue.current === undefined) return
    queue.current.last = time
    if ((flags & OP_END) !== 0) queue.current = undefined
  }

  #senderOf(
    view: DataView,
    opcode: number,
    device: number,
    qpn: number,
    key: string,
    { flow }: PacketsEvent,
  ): Queue | undefined {
    // A datagram, and a packet of SRD, names its sender.
    if (sourceQpnAt(opcode) !== 0) return this.#namedSender(view, opcode, device)
    const known = this.#ofRequests.get(key)
    if (known !== undefined && known.qp.peerQpn === qpn && known.qp.object.destroyed === undefined) return known
    const queues = [...(this.#byPeer.get(`${device} ${qpn}`) ?? [])].filter(
      ({ qp }) => qp.peerQpn === qpn && qp.object.destroyed === undefined,
    )
    const to = queues.length > 1 ? hexBytes(flow.destination) : ''
    const queue = queues.find(({ qp }) => qp.peerGid === to) ?? queues[0]
    if (queue === undefined) return undefined
    this.#ofRequests.set(key, queue)
    this.#ofAnswers.set(pathKey(queue.qp.qpn, flow, true), queue)
    return queue
  }

  /** `device`: of the sender, or of the receiver, which may be another one. */
  #namedSender(view: DataView, opcode: number, device: number): Queue | undefined {
    const at = sourceQpnAt(opcode)
    if (at === 0 || view.byteLength < at + 4) return undefined
    const qpn = view.getUint32(at) & PSN_MASK
    const known = this.#byQpn.get(`${device} ${qpn}`)
    if (known !== undefined) return known
    const [qp, ...others] = this.#byNumber.get(qpn) ?? []
    return qp === undefined || others.length > 0 ? undefined : this.#queues.get(qp.object.id)
  }

  /**
   * Notes packets of requests with `count` PSNs. Returns whether they were sent before: then the send was interrupted.
   */
  #isRepeated(queue: Queue, psn: number, count: number, hasAnswer: boolean, time: number): boolean {
    const { highest, runs, stalls } = queue
    const last = (psn + count - 1) & PSN_MASK
    if (highest === undefined || psnDifference(psn, highest) > 0) {
      queue.highest = last
      runs.push({ psn, count, time, unanswered: hasAnswer ? count : 0 })
      if (runs.length > MAX_RUNS) runs.shift()
      return false
    }
    queue.repeated += Math.min(count, psnDifference(highest, psn) + 1)
    const isOf = (run: { readonly psn: number; readonly count: number }): boolean =>
      psnDifference(psn, run.psn) >= 0 && psnDifference(psn, run.psn) < run.count
    // After an RNR NAK, that was the reason until now.
    const from = Math.max(runs.find(isOf)?.time ?? time, stalls[stalls.length - 1]?.to ?? 0)
    addStall(queue, { phase: 'loss', from, to: time })
    if (queue.toldAt < from) queue.evidence.untold += Math.max(0, time - from)
    if (psnDifference(last, highest) > 0) queue.highest = last
    return true
  }

  /** The first packet of a message was sent. */
  #start(queue: Queue, opcode: number, time: number): void {
    const { sends, qp, window, answeredAt, sentUntil } = queue
    while (sends[queue.next]?.isOver) queue.next++
    const end = Math.min(sends.length, queue.next + MAX_SCAN)
    let at = queue.next
    while (at < end && (sends[at]!.isOver || !beginsWith(sends[at]!.request, opcode))) at++
    const send = at < end ? sends[at] : undefined
    queue.current = send
    if (send === undefined) return
    const { request } = send
    const sent = (one: Open): void => {
      one.isSent = true
      this.#countSent(one, 1)
    }
    for (; queue.next < at; queue.next++) if (!sends[queue.next]!.isOver) sent(sends[queue.next]!)
    const { sentBytes: bytes, sentSlots: slots } = queue
    sent(send)
    queue.next++
    send.first = time
    send.turn = Math.max(request.time, sentUntil)
    const hasAnswered = answeredAt >= send.turn
    if (hasAnswered && (request.flags & SendFlags.values.FENCE) !== 0) {
      send.wait = 'fence'
      const { evidence, answered } = queue
      evidence.fenced++
      if (answered.some(one => one.time >= request.time && overlaps(one.request, request))) evidence.fencedForData++
    } else if (hasAnswered && takesSlot(request) && slots + 1 >= (qp.maxRdAtomic ?? Number.POSITIVE_INFINITY))
      send.wait = 'reads'
    else if (bytes > 0 && bytes + request.length > window) send.wait = 'window'
  }

  /** Acknowledgements, NAKs, and data of READs. `queue`: the requester. */
  #addAnswer(view: DataView, flags: number, queue: Queue | undefined, count: number, time: number): void {
    if (queue === undefined) return
    const psn = bthPsn(view, 0)
    const last = (psn + count - 1) & PSN_MASK
    const { runs } = queue
    if ((flags & (OP_READ | OP_ATOMIC)) !== 0) {
      const answered = runs.find(
        run =>
          run.unanswered > 0 && psnDifference(psn, run.psn) >= 0 && psnDifference(psn, run.psn + run.count - 1) <= 0,
      )
      if (answered !== undefined) answered.unanswered -= count
      const first = runs.find(run => run.unanswered > 0)
      if (first !== undefined && psnDifference(psn, first.psn + first.count - 1) > 0) queue.toldAt = time
    }
    // What is acknowledged is not sent again. The packet that a NAK names is.
    const isOver = (run: Run): boolean => run.unanswered <= 0 && psnDifference(psn, run.psn + run.count - 1) > 0
    while (runs[0] !== undefined && isOver(runs[0])) runs.shift()
    // The responses of a READ take as many PSNs as they are.
    if ((flags & OP_READ) !== 0 && queue.highest !== undefined && psnDifference(last, queue.highest) > 0)
      queue.highest = last
    const at = headerAt.AETH[bthOpcode(view, 0)]!
    if ((flags & OP_ACK) === 0 || view.byteLength < at + 4) return
    const verdict = verdictOf[aethSyndrome(view, at)]
    if (verdict === Verdict.SEQUENCE || verdict === Verdict.REFUSAL) queue.toldAt = time
    if (verdict !== Verdict.RNR) return
    queue.notReady++
    queue.receivedAt = undefined
    // It is still not ready, so that was the reason all the time; there may be very many NAKs.
    const { stalls, endedAt } = queue
    const before = stalls[stalls.length - 1]
    if (queue.notReadySince === undefined && before?.phase === 'receiver' && endedAt < before.to) {
      stalls.pop()
      queue.notReadySince = before.from
    }
    if (queue.notReadySince === undefined)
      for (const id of this.#receiversOf(queue))
        this.#notReady.set(id, (this.#notReady.get(id) ?? new Set()).add(queue))
    queue.notReadySince ??= time
  }

  // ---- receives ----

  /** The ids of the peer of a queue pair, if it is in the session, and of what it uses: a shared receive queue. */
  #receiversOf({ qp }: Queue): number[] {
    for (const { object, peerQpn } of this.#byNumber.get(qp.peerQpn ?? -1) ?? [])
      if (peerQpn === qp.qpn && object.id !== qp.object.id && object.destroyed === undefined)
        return [object.id, ...object.uses]
    return []
  }

  #addReceive(owner: number, time: number): void {
    for (const queue of this.#notReady.get(owner) ?? []) queue.receivedAt ??= time
  }

  /** The queue pair sends again after RNR NAKs. */
  #readyAgain(queue: Queue, since: number, time: number): void {
    addStall(queue, { phase: 'receiver', from: since, to: time })
    if (queue.receivedAt !== undefined) queue.evidence.receiveReady += time - queue.receivedAt
    queue.receivedAt = undefined
    queue.notReadySince = undefined
    for (const id of this.#receiversOf(queue)) {
      const queues = this.#notReady.get(id)
      queues?.delete(queue)
      if (queues?.size === 0) this.#notReady.delete(id)
    }
  }
}

/** Whether the transport sends again what is lost: all but those of UC and UD do. */
const isRepaired = (opcode: number): boolean => {
  const service = opcode & TRANSPORT_MASK
  return service !== transportBits.UC && service !== transportBits.UD
}

/** `count`: packets. */
const addLosses = (queue: Queue, opcode: number, count: number): void => {
  queue.lost += count
  // Of sends that have all ended well, nothing is needed any more.
  if (isRepaired(opcode) && queue.outstanding === 0) return
  queue.unrepaired += count
  if (isRepaired(opcode)) queue.pending += count
}

/** A send has ended well, and no later one does before it: what it lost is repaired. */
const repair = (queue: Queue): void => {
  queue.unrepaired -= queue.pending
  queue.pending = 0
}

/** When the program could poll the completion of a send, at most `to`. */
const completionOf = ({ ended, completed }: Open, to: number): number =>
  Number.isNaN(completed) ? (Number.isNaN(ended) ? to : ended) : completed

/** The phases of a send until its completion, at most `to`, without stalls. */
const spansOf = ({ request, queue, turn, first, last, wait, ended, completed }: Open, to: number): Span[] => {
  const { type } = queue.qp
  const end = Number.isNaN(ended) ? to : ended
  const spans: Span[] = []
  if (Number.isNaN(first)) {
    // Sends of UC and UD end before their last packet is recorded; other sends without packets are behind earlier ones.
    const isDevice = kindOf(request) === SendKind.LOCAL || ((type === 'UC' || type === 'UD') && !Number.isNaN(ended))
    spans.push({ phase: isDevice ? 'device' : 'turn', from: request.time, to: end })
  } else {
    // A READ's only packet is its first.
    const sent = Math.min(end, Number.isNaN(last) ? first : last)
    spans.push({ phase: 'turn', from: request.time, to: turn })
    spans.push({ phase: wait, from: turn, to: first })
    spans.push({ phase: 'sending', from: first, to: sent })
    spans.push({ phase: 'answer', from: sent, to: end })
  }
  if (!Number.isNaN(completed)) spans.push({ phase: 'completion', from: end, to: completed })
  return spans
}
