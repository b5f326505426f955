/*
 * Where the time of sends goes: events of a session in, the phases of each send out. Also sums by queue pair: at each
 * moment the time is that of the oldest send that the device has not completed; without one, `program` if a completion
 * was not polled.
 *
 * What the events do not say: when the program called ibv_post_send (a request begins when the device sees it), and
 * exactly when it polled: the device notices polls at the next request or completion of the completion queue, so that
 * the phase `program` also has what the program did until then.
 */

import type { Stack } from '../../../spec/check/finding.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { SYNDROME_KIND_MASK, syndromeKind } from '../../../spec/wire/headers.ts'
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
} from '../../../spec/wire/opcodes.ts'
import { KindFlags, SendFlags, SendKind, sendOperations } from '../../../spec/work.ts'
import { BTH_BYTES, bthDestQp, bthOpcode, bthPsn, psnDifference } from '../../../transport/wire/bth.ts'
import { aethSyndrome, rethDmaLen } from '../../../transport/wire/extensions.ts'
import { flowHash, type PacketFlow } from '../../../transport/wire/flow.ts'
import { viewOf } from '../decode.ts'
import type { PacketsEvent, SessionEvent } from '../events.ts'
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

/** The sends of a queue pair. */
export interface QueueTimes {
  readonly qp: QueuePair
  readonly phases: Readonly<PhaseTimes>
  /** Microseconds in which no send was outstanding, between the first and the last. */
  readonly idle: number
  readonly bytes: number
  /**
   * Packets that were sent more than once, also those that were not lost; packets that were lost on the way, those of answers
   * too.
   */
  readonly repeated: number
  readonly lost: number
  /** RNR NAKs that it got. */
  readonly notReady: number
  /** Of its sends, from the device's first look to the poll. */
  readonly durations: Durations
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
  idle: number
  bytes: number
  repeated: number
  lost: number
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
  /** Up to which time the sums count; NaN: there was no send. */
  counted: number
  /** The newest PSN of requests. */
  highest: number | undefined
  readonly runs: Run[]
  readonly stalls: Stall[]
  /** When an RNR NAK came after which nothing was sent yet. */
  notReadySince: number | undefined
  /** Bytes that may be unacknowledged. */
  window: number
}

const kindOf = ({ opcode }: WorkRequest): number => sendOperations[opcode]?.kind ?? SendKind.NONE
/** Whether a request takes one of max_rd_atomic slots. */
const takesSlot = (request: WorkRequest): boolean => (kindOf(request) & KindFlags.RESPONSE) !== 0

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

const hexOf = (bytes: Uint8Array): string => Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join('')

/** PSNs of the longest READ: 2 GiB (IBA 9.7.3.1) would be more than half of all. */
const MAX_READ_PSNS = 2 ** 23 - 1

/** PSNs of `count` packets of requests: a READ has one for each packet of its answer (IBA 9.7.3). */
const psnsOf = (view: DataView, opcode: number, { qp }: Queue, count: number): number => {
  const at = headerAt.RETH[opcode]!
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
  readonly #unpolled = new Map<number, Fifo<{ readonly position: number; readonly send: Open }>>()

  /**
   * `finish` gets each send when its completion was polled, or when it has ended without one. `objects`: the caller adds
   * the events of objects to them first; absent: this class has its own.
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
        return
      case 'packets':
        if (event.bytes.length >= BTH_BYTES) this.#addPackets(event)
        return
      case 'ended':
        this.#ended(event.request, event.time)
        return
      case 'completed':
        this.#completed(event)
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
      counted: Number.NaN,
      highest: undefined,
      runs: [],
      stalls: [],
      notReadySince: undefined,
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
      spans: undefined,
    }
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
    this.#over(send)
    if (takesSlot(request)) queue.answeredAt = time
    if (!request.isSignaled) this.#close(send, time)
  }

  #completed({ request, cq, cqPosition, status, time }: SessionEvent & { readonly kind: 'completed' }): void {
    const send = this.#open.get(request)
    if (send === undefined || !Number.isNaN(send.completed)) return
    send.status = status
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
    const unpolled = this.#unpolled.get(cq) ?? new Fifo()
    this.#unpolled.set(cq, unpolled)
    unpolled.push({ position: cqPosition, send })
  }

  /** The program has polled `count` completions of a CQ. */
  #polled(cq: number, count: number, time: number): void {
    const unpolled = this.#unpolled.get(cq)
    if (unpolled === undefined) return
    while (unpolled.first !== undefined && unpolled.first.position <= count) this.#close(unpolled.shift()!.send, time)
    if (unpolled.first === undefined) this.#unpolled.delete(cq)
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
    for (const { phase, from, to: end } of send.spans)
      queue.phases[phase] += Math.max(0, end - Math.max(from, queue.counted))
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
      if (!isLost) this.#addAnswer(view, flags, requester, count, time)
      else if (requester !== undefined) requester.lost += count
      return
    }
    // What happened on arrival to packets that were recorded when they were sent.
    if (direction === 'received') {
      const sender = this.#ofRequests.get(key)
      if (isLost && sender !== undefined) sender.lost += count
      return
    }
    const queue = this.#senderOf(view, opcode, device, qpn, key, event)
    if (queue === undefined) return
    if (isLost) queue.lost += count
    if (queue.notReadySince !== undefined) addStall(queue, { phase: 'receiver', from: queue.notReadySince, to: time })
    queue.notReadySince = undefined
    const hasAnswer = (flags & (OP_READ | OP_ATOMIC)) !== 0
    if (
      isReliableOpcode(opcode) &&
      this.#isRepeated(queue, bthPsn(view, 0), psnsOf(view, opcode, queue, count), hasAnswer, time)
    )
      return
    if ((flags & OP_START) !== 0) this.#start(queue, opcode, time)
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
    const at = sourceQpnAt(opcode)
    // A datagram, and a packet of SRD, names its sender.
    if (at !== 0)
      return view.byteLength < at + 4 ? undefined : this.#byQpn.get(`${device} ${view.getUint32(at) & PSN_MASK}`)
    const known = this.#ofRequests.get(key)
    if (known !== undefined && known.qp.peerQpn === qpn && known.qp.object.destroyed === undefined) return known
    const queues = [...(this.#byPeer.get(`${device} ${qpn}`) ?? [])].filter(
      ({ qp }) => qp.peerQpn === qpn && qp.object.destroyed === undefined,
    )
    const to = queues.length > 1 ? hexOf(flow.destination) : ''
    const queue = queues.find(({ qp }) => qp.peerGid === to) ?? queues[0]
    if (queue === undefined) return undefined
    this.#ofRequests.set(key, queue)
    this.#ofAnswers.set(pathKey(queue.qp.qpn, flow, true), queue)
    return queue
  }

  /** Notes packets of requests with `count` PSNs. Returns whether they were sent before: then the send was interrupted. */
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
    if (hasAnswered && (request.flags & SendFlags.values.FENCE) !== 0) send.wait = 'fence'
    else if (hasAnswered && takesSlot(request) && slots + 1 >= (qp.maxRdAtomic ?? Number.POSITIVE_INFINITY))
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
    }
    // What is acknowledged is not sent again. The packet that a NAK names is.
    const isOver = (run: Run): boolean => run.unanswered <= 0 && psnDifference(psn, run.psn + run.count - 1) > 0
    while (runs[0] !== undefined && isOver(runs[0])) runs.shift()
    // The responses of a READ take as many PSNs as they are.
    if ((flags & OP_READ) !== 0 && queue.highest !== undefined && psnDifference(last, queue.highest) > 0)
      queue.highest = last
    const at = headerAt.AETH[bthOpcode(view, 0)]!
    if ((flags & OP_ACK) === 0 || view.byteLength < at + 4) return
    if ((aethSyndrome(view, at) & SYNDROME_KIND_MASK) !== syndromeKind.RNR_NAK) return
    queue.notReady++
    // It is still not ready, so that was the reason all the time; there may be very many NAKs.
    const { stalls, endedAt } = queue
    const before = stalls[stalls.length - 1]
    if (queue.notReadySince === undefined && before?.phase === 'receiver' && endedAt < before.to) {
      stalls.pop()
      queue.notReadySince = before.from
    }
    queue.notReadySince ??= time
  }
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
