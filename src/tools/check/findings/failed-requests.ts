/*
 * Failed requests and other failures of devices (spec/check/failures.ts): the finding that a cause is, or that the
 * attributes of both ends and the outages of ports explain.
 */
import { counted } from '../../../base/text.ts'
import { type CauseName, causes, causeText, requestName } from '../../../spec/check/causes.ts'
import { type Failure, failureText } from '../../../spec/check/failures.ts'
import type { Stack } from '../../../spec/check/finding.ts'
import { type FindingId, findingOfCause, findings } from '../../../spec/check/findings.ts'
import type { ProgramProbes } from '../../../spec/check/probes.ts'
import type { CheckedFailure, ProgramEvent } from '../../../spec/check/program-events.ts'
import { QpState } from '../../../spec/enums.ts'
import { PostQueue } from '../../../spec/session.ts'
import { isAtomic, WrOpcode } from '../../../spec/work.ts'
import { psnDifference } from '../../../transport/wire/bth.ts'
import { accessRangeLines, basedLines } from '../access-range.ts'
import {
  ADVICE_FOR_ADDRESS,
  ADVICE_FOR_UNSET,
  adviceForCmAttributes,
  adviceForFailure,
  adviceForNoAnswer,
  isNotYetBound,
} from '../advice.ts'
import { attributeTable, classLines, mismatchBehind, mismatches, psnLines, resetAlone } from '../connection.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { noteDropped } from '../lost-work.ts'
import { nearAccess, nearKey, nearly } from '../nearly.ts'
import { hex, type KnownObject, type KnownObjects, typeOf } from '../objects.ts'
import { QUEUES, type Queues } from '../queues/queues.ts'
import { type FindingContent, type Occurrence, POSTED } from '../reporting.ts'
import { STORIES } from '../story/lines.ts'
import { PARTITIONS } from './datagrams.ts'
import { ackTimeoutOf, before, OUTAGES, type Outage, type Outages } from './outages.ts'

const { RTR } = QpState.values

/** Whether the failed request is a send or a receive; undefined: the failure is not about a request. */
const failedKindOf = ({ kind, cause, wrId }: Failure): 'send' | 'receive' | undefined => {
  if (kind === 'send' || kind === 'unexecuted' || cause.id === 'DATAGRAM_TOO_LONG') return 'send'
  return kind === 'receive' || (kind === 'drop' && wrId !== undefined) ? 'receive' : undefined
}

/** What the program did with the failed request. */
const FAILED_ACTIONS = { send: POSTED, receive: { ...POSTED, action: 'posted the receive' } } as const

/** The stack of the post of the failed request; empty: there is no request, or its stack is unknown. */
const postStackOf = (
  { failure, context, request }: CheckedFailure,
  qp: KnownObject | undefined,
  { postStack: find }: ProgramProbes,
): Stack => {
  const postStack = (queue: number, number: number): Stack =>
    request === undefined || queue === PostQueue.BATCH
      ? find(context, queue, number, failure.wrId ?? 0n)
      : find(context, request.queue, request.number, failure.wrId ?? 0n, request.postIndex)
  const kind = failedKindOf(failure)
  if (qp?.qpn === undefined || kind === undefined) return []
  if (kind === 'send') {
    const stack = postStack(PostQueue.SEND, qp.qpn)
    // Sends of the ibv_wr_ interface are logged as BATCH.
    return stack.length > 0 ? stack : postStack(PostQueue.BATCH, qp.qpn)
  }
  const srq = qp.uses.get('srq')
  return srq === undefined ? postStack(PostQueue.RECEIVE, qp.qpn) : postStack(PostQueue.SHARED, srq.handle)
}

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
      { ...destruction, action: `the queue pair ${hex(peer.qpn ?? 0)} was ${destruction.action}`, isPeersEnd: true },
    ],
  }
}

/** A key that was made without memory (mlx5dv_create_mkey), and has none yet. */
const isUnconfigured = ({ id, args }: Failure['cause']): boolean =>
  (id === 'LKEY_RANGE' || id === 'RKEY_RANGE') && args.rangeStart === 0n && args.rangeEnd === 0n

/** Whether a peer that looks so has given up its connection. */
const hasGivenUp = (id: FindingId): boolean =>
  findings[id].marks === 'gone peer' || findings[id].marks === 'failed peer'

/** Of the key of a memory window that no bind has given it yet. */
const NOT_YET =
  'rkey {key:hex} is not bound yet: before the bind with it is complete, the key of this memory window is {currentKey:hex}'

/** Of an indirect key without memory. */
const NOT_CONFIGURED =
  'key {key:hex} has no memory: it was made by mlx5dv_create_mkey, and no request has configured it'

/** The access keys of a target of DC and of a request to it; empty: they are no cause. */
const accessKeyLines = (given: unknown, { accessKey }: Pick<KnownObject, 'accessKey'>): string[] => {
  if (typeof given !== 'bigint' || accessKey === undefined) return []
  const near = nearly(given, 64, [{ value: accessKey, what: 'the access key of the target' }])
  return [near?.line ?? `the access key of the target is ${hex(accessKey)}`]
}

/** Causes of a key that is not live, with the address of the peer's memory. */
const REMOTE_ADDRESS: ReadonlySet<CauseName> = new Set(['RKEY_UNKNOWN', 'RKEY_NONE'])

const keyText = ({ lkey = 0, rkey = 0 }: KnownObject, isRemote: boolean): string => {
  if (!isRemote) return `whose lkey is ${hex(lkey)}`
  return rkey === 0 ? 'which has no rkey' : `whose rkey is ${hex(rkey)}`
}

const { RDMA_WRITE } = WrOpcode.values

/** The key in the other member of the union of a request. */
interface MemberFound {
  readonly region: KnownObject
  readonly detail: string
  readonly advice: string
}

/** A program that gives up sooner does not wait for a network of more than one building. Microseconds. */
const SOON = 100_000

/** For how long the device has tried, if that was short. */
const timeLines = (qp: KnownObject | undefined): string[] => {
  const once = ackTimeoutOf(qp)
  const retries = qp?.attributes.retryCnt
  if (qp === undefined || once === undefined || retries === undefined || once * (retries + 1) >= SOON) return []
  const [first, all] = [once, once * (retries + 1)].map(time => `${(time / 1000).toFixed(1)} ms`)
  return [
    `timeout ${qp.attributes.timeout} is ${first}: with retry_cnt ${retries} the request is given up after ${all}, however long the way is (timeout 14: 67 ms)`,
  ]
}

/**
 * The queue pair that a request was meant for, perhaps, which has no known peer: one of the sender's own device has the
 * number, and is connected to the sender or to none, but the device has another address.
 */
const elsewhere = (
  objects: KnownObjects,
  qp: KnownObject | undefined,
  named: Failure['peer'],
): KnownObject | undefined => {
  if (qp === undefined || named === undefined || named.state !== undefined) return undefined
  const there = objects.qp(qp.device, named.qpn)
  const isOfOther = there?.attributes.destQpn !== undefined && there.attributes.destQpn !== qp.qpn
  return there === qp || isOfOther ? undefined : there
}

/**
 * Of a failure because the responder executes nothing of what the requester sends first: the responder has gone on
 * since a former life of the connection. Undefined: that is not so.
 */
const livesOf = (
  { failure: { cause, kind }, time }: CheckedFailure,
  qp: KnownObject | undefined,
  peer: KnownObject | undefined,
): Pick<FindingContent, 'details' | 'advice'> | undefined => {
  const [requester, responder] = kind === 'event' ? [peer, qp] : [qp, peer]
  const { expected } = cause.args
  if (cause.id !== 'PSN_DIFFERS' || typeof expected !== 'number' || !requester || !responder) return undefined
  const { rqPsn } = responder.attributes
  if (rqPsn === undefined || rqPsn === expected) return undefined
  responder.attributes.expectedPsn = expected
  const reset = resetAlone(requester, responder)
  const began = reset === undefined ? 'began to send' : `was reset ${before(reset.time, time)}`
  return {
    details: [
      `${requester.name} ${began}, and its peer ${responder.name} was not: it has executed ${counted(psnDifference(expected, rqPsn), 'packet')} of a former life, and takes these for repetitions`,
    ],
    advice: ADVICE_FOR_LIVES,
  }
}

const ADVICE_FOR_LIVES =
  'if one end of a connection is reset, reset the other too, and exchange PSNs again; or begin at the PSN that it expects (rq_psn of ibv_query_qp)'

const ADVICE_FOR_DIRECT =
  'after each poll write the number of polled entries, 24 bits big-endian, to the first word of the doorbell record of the CQ'

/** Failures about which another host is asked whose stories are made before the answer; of later ones afterwards. */
const MAX_HELD_STORIES = 256

class FailureReports {
  readonly detector: Detector = {
    on: {
      failed: failed => this.#takeFailed(failed),
      modified: (_, peer) => this.#mayExecute(peer),
      queueReset: owner => this.#unexecuted.delete(owner),
      ended: request => {
        const failed = this.#unexecuted.get(request.owner)
        if (failed === undefined || failed.failure.wrId !== request.wrId) return
        this.#unexecuted.delete(request.owner)
        this.#take(failed)
      },
      // A request with rkey 0 was posted, and the other member of its union has a number at the place of the rkey.
      otherMember: (event, qp) => this.#otherMembers.set(qp, event),
    },
  }
  readonly #services: DetectorServices
  readonly #queues: Queues
  readonly #outages: Outages
  /** The last request of a queue pair that may have its rkey in the wrong member. */
  readonly #otherMembers = new WeakMap<KnownObject, ProgramEvent<'otherMember'>>()
  /** By the id of the queue pair: a send that its peer has not executed, and may before it ends. */
  readonly #unexecuted = new Map<number, CheckedFailure>()
  /** Failures about which another host was asked. */
  #held = 0

  constructor(services: DetectorServices) {
    this.#services = services
    this.#queues = services.need(QUEUES)
    this.#outages = services.need(OUTAGES)
  }

  #takeFailed(failed: CheckedFailure): void {
    const { deviceNumber, failure } = failed
    const qp = failure.qpn === undefined ? undefined : this.#services.objects.qp(deviceNumber, failure.qpn)
    if (failure.kind !== 'unexecuted') {
      if (qp !== undefined && failure.kind === 'send') this.#unexecuted.delete(qp.id)
      this.#take(failed)
    } else if (qp !== undefined) this.#unexecuted.set(qp.id, failed)
  }

  /** A queue pair that was modified to RTR may execute what was sent before. */
  #mayExecute(peer: KnownObject): void {
    if (peer.attributes.state !== RTR) return
    for (const [id, { failure, peerDevice }] of this.#unexecuted)
      if (failure.peer?.qpn === peer.qpn && peerDevice === peer.device) this.#unexecuted.delete(id)
  }

  #take(failed: CheckedFailure): void {
    const { net, sources } = this.#services
    const question = net.questionAbout(failed)
    const isAsked =
      question !== undefined &&
      sources.askPeer?.(question, (host, facts) => {
        if (host === undefined || facts === undefined) this.#failed(held)
        else {
          net.add(question, host, facts)
          this.#failed(net.explained(held, question))
        }
      })
    const held = isAsked ? this.#hold(failed) : failed
    if (!isAsked) this.#failed(failed)
  }

  /** What the other member of the union says of a request with rkey 0; empty: nothing. */
  #memberOf(failure: Failure, qp: KnownObject | undefined, device: number | undefined): MemberFound | undefined {
    const told = qp && this.#otherMembers.get(qp)
    if (told === undefined || failure.cause.args.key !== 0 || device === undefined) return undefined
    const region = this.#services.objects.region(device, told.rkey)
    if (region?.iova === undefined || region.destruction !== undefined) return undefined
    if (told.address < region.iova || told.address >= region.iova + (region.size ?? 0)) return undefined
    const [own, other] = isAtomic(told.opcode) ? ['atomic', 'rdma'] : ['rdma', 'atomic']
    return {
      region,
      detail: `wr.${other}.rkey of the request is ${hex(told.rkey >>> 0)}, that of ${region.name}, and wr.${own}.rkey is 0`,
      advice: `set remote_addr and rkey in wr.${own}: ${requestName(told.opcode)} takes them from there, not from wr.${other}`,
    }
  }

  /** The failure with what may be gone when another host has answered. */
  #hold(failed: CheckedFailure): CheckedFailure {
    const { deviceNumber, failure, time, context, program } = failed
    const { device, cause, qpn } = failure
    const qp = qpn === undefined ? undefined : this.#services.objects.qp(deviceNumber, qpn)
    if (qp !== undefined) qp.isReported = true
    const stack = postStackOf(failed, qp, this.#services.sources)
    const id = findingOfCause(cause.id) ?? 'no-answer'
    const story =
      this.#held++ < MAX_HELD_STORIES &&
      this.#services.need(STORIES).of(id, { time, device, context, program, stack }, qp === undefined ? [] : [qp])
    return { ...failed, stack, ...(story && { story }) }
  }

  /** A request failed, or a device reported another failure (spec/check/failures.ts). */
  #failed(failed: CheckedFailure): void {
    const { time, deviceNumber, context, failure, peerDevice } = failed
    const { device, qpn, cause, kind } = failure
    const qp = qpn === undefined ? undefined : this.#services.objects.qp(deviceNumber, qpn)
    const idOfCause = findingOfCause(cause.id)
    // Events such as COMM_EST are no failures: their causes have no finding.
    if (idOfCause === undefined || kind === 'flush') return
    if (qp !== undefined && kind === 'drop') noteDropped(qp, failure, causeText(cause))
    else if (qp !== undefined && kind !== 'unexecuted') qp.failure ??= failure
    // datagrams.ts has reported the mismatch, unless the sender is unknown or sends to a multicast group.
    const isOfKeys = cause.id === 'QKEY_DIFFERS' || PARTITIONS.has(cause.id)
    if (isOfKeys && kind === 'drop' && this.#isToldBySender(cause.args, qp)) return
    if (cause.id === 'SRD_QKEY' && qp?.hasSentWrongKey === true) return
    // An event repeats the failure of the CQ, or the failed request of a peer in this process.
    const isRepeated =
      cause.id === 'COMPLETION_LOST' || (qp !== undefined && this.#services.peerDeviceOf(qp) !== undefined)
    if (kind === 'event' && isRepeated) return
    const peer = this.#peerOfFailure(failed, qp)
    // A device moves queue pairs to ERR and SQE without a call.
    if (peer !== undefined && typeof failure.peer?.state === 'number') peer.attributes.state = failure.peer.state
    for (const end of [qp, peer]) if (end !== undefined) end.isReported = true
    const lives = livesOf(failed, qp, peer)
    const mismatch = qp !== undefined && peer !== undefined ? mismatchBehind(cause.id, qp, peer) : undefined
    const isAhead = cause.id === 'RKEY_OLD' && isNotYetBound(cause.args)
    const id = mismatch ?? (isAhead ? 'window-not-bound' : isUnconfigured(cause) ? 'key-not-configured' : idOfCause)
    const failedKind = failedKindOf(failure)
    const occurrence: Occurrence = {
      time,
      device,
      context,
      program: failed.program ?? qp?.program,
      stack: failed.stack?.length ? failed.stack : postStackOf(failed, qp, this.#services.sources),
      ...(failedKind === undefined ? { action: 'noticed' } : FAILED_ACTIONS[failedKind]),
      ...(failed.story && { story: failed.story }),
    }
    if (id === 'no-answer') {
      const outage = this.#outages.behind(time, deviceNumber, qp, peerDevice, failure.peer)
      if (outage === undefined || !this.#isOutage(outage, failure, qp, peer))
        this.#reportUnanswered(occurrence, failure, qp, peer)
      else {
        const details =
          qp === undefined || peer === undefined
            ? []
            : [...this.#queues.lengthOf(qp, failure.wrId), ...attributeTable(qp, peer)]
        const advice = this.#adviceForNoAnswer(failure, qp)
        this.#outages.unanswered(
          occurrence,
          { text: failureText(failure), advice, details, objects: [qp, peer] },
          outage,
        )
      }
    } else {
      const key = cause.args.key
      const keyDevice = failure.isCauseAtPeer === true ? peerDevice : deviceNumber
      const regionWith = (number: unknown): KnownObject | undefined =>
        typeof number === 'number' && keyDevice !== undefined
          ? this.#services.objects.region(keyDevice, number)
          : undefined
      const region = regionWith(key)
      const near = this.#nearOf(failed, keyDevice, region)
      const own = isAhead ? NOT_YET : isUnconfigured(cause) ? NOT_CONFIGURED : undefined
      const member = this.#memberOf(failure, qp, keyDevice)
      const isRemote = REMOTE_ADDRESS.has(cause.id)
      const address = isRemote || cause.id === 'LKEY_UNKNOWN' ? cause.args.accessStart : undefined
      const addressed = isRemote ? peer?.context : context
      const atAddress =
        typeof address === 'bigint' && near?.object === undefined && addressed !== undefined
          ? this.#services.objects.regionAt(addressed, Number(address))
          : undefined
      const named = this.#objectOfCause(failed)
      const direct =
        id === 'cq-overrun' && named !== undefined && this.#queues.isNonePolled(named)
          ? this.#services.directOf(named.program?.pid)
          : undefined
      const lacksReceives = findings[id].marks === 'lack of receives'
      const limit = lacksReceives ? this.#queues.explainLimit(peer) : undefined
      this.#services.report(id, occurrence, {
        text: `${failureText(own === undefined ? failure : { ...failure, cause: { ...cause, text: own } })}${direct === undefined ? '' : `: its consumer index was never written to its doorbell record, which is left to the program (${direct})`}`,
        advice:
          (direct && ADVICE_FOR_DIRECT) ??
          member?.advice ??
          limit?.advice ??
          near?.advice ??
          lives?.advice ??
          this.#adviceForUnset(failed, qp) ??
          (id === idOfCause || isAhead ? adviceForFailure(failure, qp, atAddress) : undefined) ??
          adviceForCmAttributes(id, qp),
        details: [
          ...(lives?.details ?? []),
          ...(member === undefined ? [] : [member.detail]),
          ...(atAddress === undefined || typeof address !== 'bigint'
            ? []
            : [`the address ${hex(address)} is in ${atAddress.name}, ${keyText(atAddress, isRemote)}`]),
          ...(near === undefined || cause.args.rangeStart !== undefined ? [] : [near.line]),
          ...(limit?.details ?? []),
          ...(peer === undefined ? [] : accessKeyLines(cause.args.accessKey, peer)),
          ...(isUnconfigured(cause) ? [] : accessRangeLines(failure, near?.line)),
          ...basedLines(failure, region),
          ...(lacksReceives && qp !== undefined && peer !== undefined && peer.host === undefined
            ? this.#queues.receiveCounts(qp, peer)
            : []),
          ...(qp !== undefined && peer !== undefined && findings[id].showsEnds
            ? [...psnLines(qp, peer), ...attributeTable(qp, peer)]
            : []),
        ],
        moments: limit?.moments ?? [],
        objects: [
          qp,
          peer,
          region ?? member?.region ?? near?.object ?? atAddress,
          named,
          lacksReceives ? peer?.uses.get('srq') : undefined,
        ],
      })
    }
  }

  /** What a key that no region has, or an address beyond the range of its key, was meant to be. */
  #nearOf(
    { failure: { cause }, context }: CheckedFailure,
    device: number | undefined,
    region: KnownObject | undefined,
  ) {
    const { objects } = this.#services
    const { key, accessStart: start, accessEnd: end, rangeStart, rangeEnd } = cause.args
    if (
      typeof start === 'bigint' &&
      typeof end === 'bigint' &&
      typeof rangeStart === 'bigint' &&
      typeof rangeEnd === 'bigint'
    )
      return nearAccess(objects, { start, end, range: { start: rangeStart, end: rangeEnd }, region, context })
    const isUnknown = region === undefined && typeof key === 'number' && key !== 0
    return isUnknown && device !== undefined ? nearKey(objects, device, key) : undefined
  }

  /**
   * Whether the sender of a dropped packet has a finding of its own: a datagram has, and the request of a connection
   * fails.
   */
  #isToldBySender({ sourceQpn, qpn }: Failure['cause']['args'], qp: KnownObject | undefined): boolean {
    const { objects } = this.#services
    if ([sourceQpn, qpn].some(number => objects.hasSentWrongKey(Number(number)))) return true
    return qp !== undefined && typeOf(qp) !== 'UD' && typeOf(qp) !== 'UC' && this.#services.peerOf(qp) !== undefined
  }

  /** Advice if the opcode of a request, 0, may not have been set: the address and the key of the peer are 0 too. */
  #adviceForUnset({ failure, context }: CheckedFailure, qp: KnownObject | undefined): string | undefined {
    const { cause, opcode, kind } = failure
    const isUnset = cause.args.key === 0 && cause.args.accessStart === 0n && opcode === RDMA_WRITE && kind === 'send'
    if (!isUnset || qp?.qpn === undefined) return undefined
    const isBatch = this.#services.sources.postStack(context, PostQueue.BATCH, qp.qpn, 0n).length > 0
    return isBatch ? undefined : ADVICE_FOR_UNSET
  }

  #peerOfFailure({ failure, peerDevice }: CheckedFailure, qp: KnownObject | undefined): KnownObject | undefined {
    // The requester finds BAD_RESPONSE and names no peer.
    if (failure.cause.id === 'BAD_RESPONSE' && qp !== undefined) return this.#services.peerOf(qp)
    if (failure.peer === undefined || peerDevice === undefined) return undefined
    return this.#services.objects.qp(peerDevice, failure.peer.qpn)
  }

  #adviceForNoAnswer({ peer }: Failure, qp: KnownObject | undefined): string {
    const { dgid, sgidIndex, hopLimit } = qp?.attributes.address ?? {}
    const hazard =
      qp !== undefined && dgid !== undefined && sgidIndex !== undefined && hopLimit !== undefined
        ? this.#services.sources.routerHazard?.(qp.device, qp.qpn, { dgid, sgidIndex, hopLimit })
        : undefined
    return adviceForNoAnswer(peer?.state !== undefined, dgid, hazard?.isRoceV1 && sgidIndex)
  }

  /** The object that the arguments of a cause name; undefined: none, or an unknown object. */
  #objectOfCause({ deviceNumber, context, failure: { cause } }: CheckedFailure): KnownObject | undefined {
    const { cq, object, number } = cause.args
    if (typeof cq === 'number') return this.#services.objects.byHandle(context, 'cq', cq)
    if (cause.id === 'LISTENS_ELSEWHERE') return this.#services.objects.byHandle(context, 'cm_id', Number(number))
    if (typeof object !== 'string' || typeof number !== 'number') return undefined
    if (object === 'qp') return this.#services.objects.qp(deviceNumber, number)
    return this.#services.objects.byHandle(context, object === 'id' ? 'cm_id' : object, number)
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
    const reason = mismatches(qp, peer, this.#services.deviceWithGid).find(
      one => one !== 'peer-connected-elsewhere' || !areEachOthers,
    )
    if (reason === undefined || !hasGivenUp(reason)) return reason === undefined
    const changed = peer.destruction ?? peer.changes.at(-1)
    return (
      (peer.failure !== undefined && findingOfCause(peer.failure.cause.id) === 'no-answer') ||
      (!isRule && changed !== undefined && changed.time >= since)
    )
  }

  /**
   * A peer that its program has not connected, while another queue pair of it is connected to this program, and nothing
   * to it: the ends have taken another queue pair than was meant. Undefined: none is.
   */
  #meantPeer(qp: KnownObject, peer: KnownObject) {
    if (peer.attributes.destQpn !== undefined) return undefined
    const { objects } = this.#services
    const own = objects.queuePairsOf(qp.context)
    const isNamed = ({ qpn }: KnownObject): boolean => own.some(({ attributes }) => attributes.destQpn === qpn)
    const object = objects
      .queuePairsOf(peer.context)
      .find(other => other !== qp && own.some(({ qpn }) => qpn === other.attributes.destQpn) && !isNamed(other))
    const named = object && own.find(({ qpn }) => qpn === object.attributes.destQpn)
    if (object === undefined || named === undefined) return undefined
    return {
      object,
      details: [
        `${peer.name} is not connected, and ${object.name} of the same process is, to ${named.name} of this one: dest_qp_num of ${qp.name} is that of another queue pair than was meant`,
      ],
      advice: `take the qp_num of ${object.name} for dest_qp_num, or that which the peer has made for this connection: each connection has a queue pair at each end`,
    }
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
    const times = timeLines(qp)
    const advice = causes[failure.cause.id].advice ?? this.#adviceForNoAnswer(failure, qp)
    if (failure.peer?.state === 'none') {
      const peerDevice = qp && this.#services.peerDeviceOf(qp)
      const was = whichWas(this.#services.objects, qp, peer, occurrence.time)
      if (peer?.wasKilled && peer.destruction !== undefined && peer.program?.pid !== qp?.program?.pid) {
        const whose =
          peer.program === undefined ? 'its program' : `process ${peer.program.pid} (${peer.program.command})`
        const since = peer.destruction.time
        const reason = `the peer died: a signal ended ${whose} ${before(since, occurrence.time)}`
        this.#outages.unanswered(occurrence, { text, ...was, objects }, { reason, since, isDeath: true })
        return
      }
      const { meant, ...wrong } = this.#services.wrongNumber(peerDevice, failure.peer.qpn)
      this.#services.report('no-peer-qp', occurrence, {
        text,
        ...was,
        ...wrong,
        objects: [...objects, meant],
      })
      return
    }
    if (qp === undefined || peer === undefined) {
      const there = elsewhere(this.#services.objects, qp, failure.peer)
      this.#services.report('no-answer', occurrence, {
        text,
        advice: there === undefined ? advice : ADVICE_FOR_ADDRESS,
        details: [
          ...times,
          ...(there === undefined || failure.peer === undefined
            ? []
            : [
                `${there.nameWithProgram} is of ${failure.device}, which does not have the address ${failure.peer.address}`,
              ]),
        ],
        objects: [...objects, there],
      })
      return
    }
    const details = [...this.#queues.lengthOf(qp, failure.wrId), ...psnLines(qp, peer), ...attributeTable(qp, peer)]
    const [reason] = mismatches(
      qp,
      peer,
      gid => this.#services.deviceWithGid(gid) ?? this.#services.net.deviceWithGid(gid),
    )
    const root = reason === 'peer-in-error' ? peer.failure : undefined
    const rootId = root && findingOfCause(root.cause.id)
    if (root !== undefined && rootId !== undefined)
      this.#services.report(rootId, occurrence, {
        text: `${text}: the peer failed first: ${failureText(root)}`,
        advice: causes[root.cause.id].advice,
        details,
        objects,
      })
    else if (reason !== undefined) {
      const meant = reason === 'peer-not-ready' ? this.#meantPeer(qp, peer) : undefined
      this.#services.report(reason, occurrence, {
        text: `${text}: ${findings[reason].title}`,
        details: [...(meant?.details ?? []), ...details],
        ...(meant && { advice: meant.advice }),
        objects: [...objects, meant?.object],
      })
    } else {
      const { libraryAdvice } = causes[failure.cause.id]
      const all = [...times, ...classLines(qp, peer), ...details]
      this.#services.report('no-answer', occurrence, { text, advice, libraryAdvice, details: all, objects })
    }
  }
}

export const createFailureDetector = (services: DetectorServices): Detector => new FailureReports(services).detector
