/*
 * Findings about send queues:
 * - more sends than max_send_wr that are unsignaled in a row, or whose completions are not polled;
 * - bits of send_flags that are not defined;
 * - sends without a fence that need the end of an earlier READ (unfenced.ts);
 * - sends whose fate the program does not know when it destroys or resets their queue pair, moves it to ERR, closes the
 *   device, or ends. What is outstanding then is lost. What is complete is not lost, but the program has not polled it.
 */

import { counted } from '../../../base/text.ts'
import type { Moment } from '../../../spec/check/finding.ts'
import type { BeginningCall, CheckedCall, ContextEnd } from '../../../spec/check/program-events.ts'
import type { RequestCompletion, WorkRequest } from '../../../spec/check/requests.ts'
import { QpState } from '../../../spec/enums.ts'
import { PostQueue } from '../../../spec/session.ts'
import { DEFINED_SEND_FLAGS, SendFlags, takesReceive, WcStatus, WrOpcode } from '../../../spec/work.ts'
import { isRead, requestText } from '../buffers.ts'
import type { DetectorServices } from '../detector.ts'
import { hex, type KnownObject, typeOf, unreleasedIn } from '../objects.ts'
import { MAX_NAMED, type Occurrence } from '../reporting.ts'
import { shared } from '../shared.ts'
import { POSTED_RECEIVES } from './receives.ts'
import { Unfenced } from './unfenced.ts'
import { type UnpolledCompletion, type UnpolledCompletions, unpolledCompletions } from './unpolled.ts'

const { WR_FLUSH_ERR } = WcStatus.values
const { ERR } = QpState.values
const { FENCE } = SendFlags.values
const { RDMA_WRITE, RDMA_WRITE_WITH_IMM } = WrOpcode.values

/** Maximum entries of `unpolledReads`. More than any max_dest_rd_atomic, which has 8 bits. */
const MAX_COUNTED_READS = 256

interface SendQueue {
  /** Number of unsignaled sends since the last signaled one. */
  unsignaled: number
  /** Number of sends whose slots are free: the last with a polled completion, and all before it. */
  freed: number
  /** READs and atomics that the program has not polled, oldest first. */
  readonly unpolledReads: WorkRequest[]
  /**
   * `WorkRequest.index` of the last fenced send: earlier READs and atomics are complete when it and later ones begin.
   */
  fence: number
  /** Number of sends that take a receive of the peer, and of those that are outstanding. */
  messages: number
  outstandingMessages: number
  /** The first of the WRITEs with immediate, how many they are, and how many the other WRITEs. */
  firstImmediate: WorkRequest | undefined
  immediates: number
  writes: number
  /** Sends that the device has fetched and that have not ended, oldest first. */
  readonly outstanding: WorkRequest[]
  /** The last send that has ended, and how many have. */
  lastEnded: WorkRequest | undefined
  ended: number
  /**
   * How many sends had ended when the last message of the peer was received: the peer may have said that it has them.
   */
  answered: number
  /** How many sends the peer has received at least, by its receives. */
  delivered: number
  /** The call that moved the queue pair to ERR, and the sends that it flushed. */
  errCall: { readonly call: CheckedCall; readonly lost: LostSends } | undefined
  /** The end of the program or of its device has been reported. */
  isOver: boolean
  /** More sends than max_send_wr, until it is known whether the program relies on refused posts. */
  excess: { readonly text: string; readonly occurrence: Occurrence } | undefined
  /** A post was refused since: the program makes room when that happens. */
  makesRoom: boolean
}

/** Sends that are not complete when their queue pair ends. */
interface LostSends {
  readonly count: number
  /** A failure has flushed them. */
  readonly hasFailed: boolean
  /** `WorkRequest.index` after the last one: later sends are posted to a queue pair in ERR, and lose nothing. */
  readonly end: number
  /** The oldest ones, and for each one line. */
  readonly requests: readonly WorkRequest[]
  readonly lines: readonly string[]
  /** Their posts; if there are none, that of the last send that has ended. */
  readonly moments: readonly Moment[]
}

/** Where the data of an outstanding send is, or the data that it requests. */
const fateOf = (qp: KnownObject, request: WorkRequest, isDelivered: boolean): string => {
  if (isDelivered) return 'the peer has received it, its answer has not come'
  const type = typeOf(qp)
  if (type === 'UC' || type === 'UD') return 'it was not sent, or not whole'
  if (isRead(request)) return 'its data has not come'
  return takesReceive(request.opcode) ? 'the peer has not received it' : 'the peer may have it in part'
}

export class SendQueues {
  readonly #services: DetectorServices
  readonly #unpolled: UnpolledCompletions
  readonly #unfenced: Unfenced
  /** By `KnownObject.id` of the queue pair: the sends that the current call may end. */
  readonly #ending = new Map<number, { readonly queue: SendQueue; readonly lost: LostSends }>()
  /** By `KnownObject.id` of the queue pair. */
  readonly #queues = new Map<number, SendQueue>()

  constructor(services: DetectorServices) {
    this.#services = services
    this.#unpolled = unpolledCompletions(services)
    this.#unfenced = new Unfenced(services)
  }

  #of(qp: number): SendQueue {
    let queue = this.#queues.get(qp)
    if (queue === undefined) {
      const counts = {
        unsignaled: 0,
        freed: 0,
        messages: 0,
        outstandingMessages: 0,
        immediates: 0,
        writes: 0,
        ended: 0,
        answered: 0,
        delivered: 0,
        fence: 0,
      }
      const none = {
        firstImmediate: undefined,
        lastEnded: undefined,
        errCall: undefined,
        excess: undefined,
        makesRoom: false,
      }
      queue = { ...counts, ...none, unpolledReads: [], outstanding: [], isOver: false }
      this.#queues.set(qp, queue)
    }
    return queue
  }

  posted(request: WorkRequest): void {
    const queue = this.#of(request.owner)
    queue.outstanding.push(request)
    if (takesReceive(request.opcode)) {
      queue.messages++
      queue.outstandingMessages++
    }
    if (request.opcode === RDMA_WRITE) queue.writes++
    else if (request.opcode === RDMA_WRITE_WITH_IMM) {
      queue.immediates++
      queue.firstImmediate ??= request
    }
    queue.unsignaled = request.isSignaled ? 0 : queue.unsignaled + 1
    const qp = this.#services.objects.find(request.owner)
    if (qp === undefined) return
    this.#checkFence(qp, request, queue)
    if (isRead(request)) this.#readPosted(qp, request, queue)
    this.#checkSlots(qp, request, queue)
    const undefinedFlags = request.flags & ~DEFINED_SEND_FLAGS
    if (undefinedFlags === 0) return
    const text = `${qp.name} ${requestText(request)} has send_flags ${hex(request.flags >>> 0)}, in which ${hex(undefinedFlags >>> 0)} is not defined`
    this.#services.report('undefined-flags', this.#services.occurrenceAtPost(qp, request), { text, objects: [qp] })
  }

  #checkFence(qp: KnownObject, request: WorkRequest, queue: SendQueue): void {
    if ((request.flags & FENCE) !== 0) queue.fence = request.index
    const { unpolledReads, outstanding, fence } = queue
    if (unpolledReads.length === 0 || fence === request.index || !this.#unfenced.concerns(request)) return
    if (qp.hasMessages || qp.failure !== undefined) return
    // Of the TypeScript library it is unknown whether a READ that has ended was polled.
    const reads = unpolledReads.filter(read => read.index >= fence && (!qp.isOfLibrary || outstanding.includes(read)))
    this.#unfenced.posted(qp, request, reads)
  }

  #readPosted(qp: KnownObject, request: WorkRequest, { unpolledReads }: SendQueue): void {
    if (unpolledReads.length < MAX_COUNTED_READS) unpolledReads.push(request)
    qp.mostReads = Math.max(qp.mostReads, unpolledReads.length - unreleasedIn(qp))
  }

  /** Reports, once per row and per excess, the first send for which an adapter would have no slot. */
  #checkSlots(qp: KnownObject, request: WorkRequest, queue: SendQueue): void {
    const { unsignaled, freed } = queue
    const size = qp.limits.maxSendWr ?? qp.requestedSends
    if (size === 0) return
    const unfreed = request.index + 1 - freed - unreleasedIn(qp)
    if (unsignaled === size + 1) {
      const text = `${qp.name} has had ${counted(unsignaled, 'unsignaled send')} in a row, and max_send_wr is ${size}`
      this.#services.report('never-signaled', this.#services.occurrenceAtPost(qp, request), { text, objects: [qp] })
    } else if (unfreed === size + 1 && unsignaled <= size) {
      const text = `${qp.name} has ${counted(unfreed, 'send')} posted of which no completion was polled, and max_send_wr is ${size}`
      if (!queue.makesRoom) queue.excess ??= { text, occurrence: this.#services.occurrenceAtPost(qp, request) }
    }
  }

  /** What the program does next tells whether it relies on refused posts. */
  #reportExcess(id: number): void {
    const queue = this.#queues.get(id)
    const qp = queue?.excess && this.#services.objects.find(id)
    if (queue?.excess === undefined || qp === undefined) return
    const { text, occurrence } = queue.excess
    queue.excess = undefined
    this.#services.report('sends-unpolled', occurrence, { text, objects: [qp] })
  }

  /** A post was refused because the queue is full. */
  refused(id: number): void {
    const queue = this.#of(id)
    queue.excess = undefined
    queue.makesRoom = true
  }

  ended(request: WorkRequest): void {
    const queue = this.#of(request.owner)
    if (takesReceive(request.opcode)) queue.outstandingMessages--
    if (queue.outstanding[0] === request) queue.outstanding.shift()
    queue.lastEnded = request
    queue.ended = request.index + 1
  }

  completed(request: WorkRequest): void {
    // An unsignaled send that failed or was flushed: its completion frees its slot.
    if (!request.isSignaled) this.#of(request.owner).unsignaled = 0
  }

  /** The program has polled the completion of a send, so it knows that earlier sends of the queue are complete. */
  polled({ owner, index }: WorkRequest): void {
    const queue = this.#queues.get(owner)
    if (queue === undefined) return
    if (queue.excess !== undefined) this.#reportExcess(owner)
    queue.freed = Math.max(queue.freed, index + 1)
    const { unpolledReads } = queue
    while (unpolledReads.length > 0 && unpolledReads[0]!.index <= index) unpolledReads.shift()
  }

  /** A receive has completed, not flushed. */
  received({ qp, message }: RequestCompletion): void {
    const receiver = this.#queues.get(qp)
    if (receiver !== undefined) receiver.answered = receiver.ended
    const sender = message && this.#queues.get(message.owner)
    if (sender !== undefined) sender.delivered = Math.max(sender.delivered, message!.index + 1)
  }

  /** A call on a queue pair begins. */
  calling({ pendingSends }: BeginningCall, qp: KnownObject): void {
    this.#reportExcess(qp.id)
    if (pendingSends === undefined) return
    const queue = this.#of(qp.id)
    this.#ending.set(qp.id, { queue, lost: this.#lost(qp, queue, pendingSends) })
  }

  /** A call on a queue pair has ended. */
  called(call: CheckedCall, qp: KnownObject): void {
    const ending = this.#ending.get(qp.id)
    if (ending === undefined) return
    this.#ending.delete(qp.id)
    const { queue, lost } = ending
    if (call.refused !== undefined || queue.isOver) return
    if (call.method === 'modify' && call.args.state === ERR) queue.errCall ??= { call, lost }
    else {
      const text = `${qp.name} was ${call.method === 'destroy' ? 'destroyed' : 'moved to RESET'}`
      this.#reportEnd(qp, queue, lost, { text, call })
    }
  }

  /** The queue pairs of a context end with it. */
  contextEnds({ context, how, pendingSends }: ContextEnd): void {
    for (const qp of this.#services.objects.existingIn(context)) {
      const queue = qp.isQp ? this.#queues.get(qp.id) : undefined
      const pending = pendingSends?.get(qp.id) ?? 0
      if (queue?.excess !== undefined) this.#reportExcess(qp.id)
      if (!qp.isQp || queue?.isOver || (queue === undefined && pending === 0)) continue
      const ending = this.#of(qp.id)
      ending.isOver = true
      this.#reportEnd(qp, ending, this.#lost(qp, ending, pending), {
        text: `${{ close: 'the device was closed', exit: 'the program ended', kill: 'a signal ended the program' }[how]}, and ${qp.name} with it,`,
        isExpected: how === 'kill',
      })
    }
  }

  #lost(qp: KnownObject, { outstanding, ended, delivered, lastEnded }: SendQueue, count: number): LostSends {
    const requests = outstanding.slice(0, Math.min(count, MAX_NAMED))
    const lines = requests.map(request => {
      const size = request.length === 0 ? '' : `, ${counted(request.length, 'byte')}`
      return `${requestText(request)}${size}: ${fateOf(qp, request, request.index < delivered)}`
    })
    const posts = requests.length > 0 ? requests : [lastEnded ?? []].flat()
    const moments = posts.map(request => this.#services.postMoment(request))
    return { count, hasFailed: qp.failure !== undefined, end: ended + count, requests, lines, moments }
  }

  /**
   * A queue pair ends: reports the sends that are lost, else, as a note, that the program has not polled the completion
   * of the last send, and has not heard from the peer since.
   */
  #reportEnd(
    qp: KnownObject,
    queue: SendQueue,
    { count, hasFailed, requests, lines, moments }: LostSends,
    {
      text: what,
      call,
      isExpected,
    }: { readonly text: string; readonly call?: CheckedCall; readonly isExpected?: boolean },
  ): void {
    const { ended, freed, answered, lastEnded, errCall } = queue
    // The failure, or the move to ERR, has flushed the sends.
    if (hasFailed || errCall !== undefined || qp.hasMessages) return
    const services = this.#services
    const [first = lastEnded] = requests
    const occurrence: Occurrence | undefined =
      call ?? (first && { ...services.occurrenceAtPost(qp, first), program: qp.program })
    if (count > 0) {
      const names = lines.length === 0 ? '' : `: ${lines.join('; ')}`
      const more = count > requests.length && requests.length > 0 ? ` and ${count - requests.length} more` : ''
      services.report('sends-lost', occurrence ?? services.occurrenceAt(qp, qp.creation.stack, qp.creation.action), {
        text: `${what} with ${counted(count, 'send')} outstanding${names}${more}`,
        ...(isExpected && { severity: 'note' }),
        details: this.opcodeLines(qp, queue),
        moments: call === undefined ? moments.slice(1) : moments,
        objects: [qp],
      })
    } else if (!isExpected && !qp.isOfLibrary && ended > Math.max(freed, answered) && lastEnded && occurrence) {
      const how = typeOf(qp) === 'UC' || typeOf(qp) === 'UD' ? 'it was sent' : 'the peer has it'
      services.report('sends-lost', occurrence, {
        text: `${what} before the program has polled a completion that tells that ${requestText(lastEnded)} is complete; ${how}`,
        severity: 'note',
        moments: call === undefined ? [] : moments,
        objects: [qp],
      })
    }
  }

  /**
   * A line if messages lack as many receives as WRITEs with immediate have taken, and no WRITE was without: perhaps
   * their opcode was taken from those of completions.
   */
  opcodeLines(qp: KnownObject, { firstImmediate, immediates, messages, writes } = this.#of(qp.id)): string[] {
    const peer = this.#services.peerOf(qp)
    const posted = peer?.uses.has('srq') === false ? this.#services.ask(POSTED_RECEIVES)?.(peer) : undefined
    if (firstImmediate === undefined || writes > 0 || posted === undefined) return []
    const others = messages - immediates
    return others > 0 && posted >= others && posted < messages
      ? [
          `${requestText(firstImmediate)} has taken a receive: IBV_WC_RDMA_WRITE, of completions, has the number of IBV_WR_RDMA_WRITE_WITH_IMM; a WRITE is IBV_WR_RDMA_WRITE`,
        ]
      : []
  }

  /** Sends that the device has fetched and that have not ended, oldest first. */
  outstandingOf(qp: number): readonly WorkRequest[] {
    return this.#queues.get(qp)?.outstanding ?? []
  }

  /**
   * The last send that has ended, if the program has polled no completion that tells it. Of the TypeScript library it
   * is unknown whether it has.
   */
  lastUnknown({ id, isOfLibrary }: KnownObject): WorkRequest | undefined {
    const { lastEnded, freed = 0 } = this.#queues.get(id) ?? {}
    return lastEnded !== undefined && lastEnded.index >= freed && !isOfLibrary ? lastEnded : undefined
  }

  /** The oldest outstanding send with this wr_id, or the last that has ended. */
  lastOf(qp: number, wrId: bigint | undefined): WorkRequest | undefined {
    const { outstanding = [], lastEnded } = this.#queues.get(qp) ?? {}
    return [...outstanding, ...(lastEnded ? [lastEnded] : [])].find(one => one.wrId === wrId)
  }

  /** The oldest outstanding send that takes a receive of the peer. */
  oldestMessage(qp: number): WorkRequest | undefined {
    return this.#queues.get(qp)?.outstanding.find(({ opcode }) => takesReceive(opcode))
  }

  /** The number of sends so far that take a receive of the peer. */
  messagesOf(qp: number): number {
    return this.#queues.get(qp)?.messages ?? 0
  }

  /** The number of outstanding sends that take a receive of the peer. */
  outstandingMessages(qp: number): number {
    return this.#of(qp).outstandingMessages
  }

  /**
   * A queue pair was reset or destroyed: reports sends that its move to ERR flushed. As a note if the program has
   * polled their completions, or they had none: then it may know.
   */
  reset(qp: KnownObject): void {
    this.#reportExcess(qp.id)
    this.#unfenced.reset(qp.id)
    const queue = this.#of(qp.id)
    this.#queues.delete(qp.id)
    const { errCall } = queue
    if (errCall === undefined || errCall.lost.count === 0 || qp.hasMessages) return
    const { call, lost } = errCall
    const isFlushed = ({ request, completion }: UnpolledCompletion): boolean =>
      request.owner === qp.id &&
      request.queue === PostQueue.SEND &&
      completion.status === WR_FLUSH_ERR &&
      request.index < lost.end
    const isUnpolled = [...this.#unpolled.cqs].some(id => {
      const cq = this.#services.objects.find(id)
      return cq !== undefined && this.#unpolled.of(cq).some(isFlushed)
    })
    const first = lost.lines.length === 0 ? '' : `: ${lost.lines.join('; ')}`
    const text = `${qp.name} was moved to ERR with ${counted(lost.count, 'send')} outstanding, whose messages may be lost${first}`
    this.#services.report('sends-lost', call, {
      text,
      ...(!isUnpolled && { severity: 'note' }),
      moments: lost.moments,
      objects: [qp],
    })
  }
}

export const sendQueues = shared({ name: 'send queues' }, services => new SendQueues(services))
