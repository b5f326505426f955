/*
 * A failure: a request that completed in error, flushed requests, an asynchronous event, a dropped message or packet,
 * or a destroy that waits. The record, JSON for tools, and the line of text, for example:
 *
 *   QP 0x11 WRITE wr_id 100: REM_ACCESS_ERR: peer QP 0x12: rkey 0x753 was deregistered (it was [0x1000, 0x2000))
 */

import { AsyncEventType, CmEventType, nameIn, QpState } from '../enums.ts'
import { errnoName } from '../errno.ts'
import { WcStatus } from '../work.ts'
import { type Cause, type CauseName, causes, causeText, requestName, vendorErrorOf } from './causes.ts'
import type { RequestNumber } from './requests.ts'

export interface FailurePeer {
  readonly qpn: number
  readonly address: string
  /**
   * A number of `QpState`. `none`: there is no such queue pair. Undefined: the peer's device is not in this process.
   */
  readonly state?: number | 'none'
}

export interface Failure {
  /**
   * - `send`, `receive`: a request of that queue completed with `status`
   * - `unexecuted`: a send that the peer acknowledges as a duplicate, though it is none
   * - `flush`: `count` requests were flushed with `status`
   * - `event`: an asynchronous event, of a queue pair if there is a `qpn`
   * - `drop`: the queue pair has dropped `count` messages or packets so far for this cause, without an answer
   * - `post`: the post of a request failed with `errno`
   * - `wait`: a destroy waits until the program acknowledges events; with a `qpn`: a send waits for a receive
   */
  readonly kind: 'send' | 'receive' | 'unexecuted' | 'flush' | 'event' | 'drop' | 'post' | 'wait'
  readonly device: string
  readonly cause: Cause
  readonly qpn?: number
  /** ibv_wr_opcode of a `send` or `unexecuted`, and of a `post` to a send queue if it is known. */
  readonly opcode?: number
  /** Of a `send`, `receive`, `unexecuted` or `post`, and of a `drop` that affects a request. */
  readonly wrId?: bigint
  /** `wrId` is the device's number, of this kind. */
  readonly numbered?: RequestNumber
  /** ibv_wc_status. */
  readonly status?: number
  /** Positive, of a `post`. */
  readonly errno?: number
  /** ibv_event_type. */
  readonly event?: number
  /** rdma_cm_event_type, of an injected `event` of rdma_cm. */
  readonly cmEvent?: number
  /** Of a `flush` or `drop`. */
  readonly count?: number
  /** The queue of flushed or posted requests. */
  readonly queue?: 'send' | 'receive'
  /** For flushed requests: the failure that moved the queue pair to its error state. */
  readonly root?: Failure
  readonly peer?: FailurePeer
  /** Whether the cause was found at the peer. Undefined means false. */
  readonly isCauseAtPeer?: boolean
}

const hex = (value: number): string => `0x${value.toString(16)}`

/** The text of these causes ends with the peer's address and state. */
const causesWithPeer: ReadonlySet<CauseName> = new Set<CauseName>([
  'NO_ANSWER',
  'PACKETS_LOST',
  'PSN_DIFFERS',
  'RNR_EXCEEDED',
  'DC_NO_ANSWER',
  'DC_BUSY',
])

const peerText = ({ qpn, address, state }: FailurePeer): string => {
  const qp = `QP ${hex(qpn)} at ${address}`
  if (state === 'none') return `there is no ${qp}`
  return state === undefined ? `the peer is ${qp}` : `peer ${qp} is in ${nameIn(QpState.values, state)}`
}

const flushText = ({ count = 0, queue, status }: Failure): string =>
  `${count} ${queue === 'send' ? 'send' : 'receive'} request${count === 1 ? '' : 's'} flushed: ${nameIn(WcStatus.values, status)}`

const postText = ({ opcode, queue, wrId, errno = 0 }: Failure): string => {
  const request = queue === 'receive' ? 'a receive' : opcode === undefined ? 'a batch' : requestName(opcode)
  return `post of ${request}, wr_id ${wrId}: ${errnoName(errno)}`
}

/** The queue pair at the start of the line; '' without one. */
const queuePairText = ({ qpn, cmEvent }: Failure): string =>
  qpn === undefined || cmEvent !== undefined ? '' : `QP ${hex(qpn)}`

const subjectText = (failure: Failure): string => {
  const { kind, qpn, opcode, wrId, status, event, cmEvent, count = 1, numbered = 'wr_id' } = failure
  switch (kind) {
    case 'send':
      return `${requestName(opcode!)} ${numbered} ${wrId}: ${nameIn(WcStatus.values, status)}: `
    case 'receive':
      return `receive ${numbered} ${wrId}: ${nameIn(WcStatus.values, status)}: `
    case 'unexecuted':
      return `${requestName(opcode!)} ${numbered} ${wrId} has no effect, its peer answers it as a duplicate: `
    case 'flush':
      return `${flushText(failure)}: `
    case 'drop':
      return `drops ${count > 1 ? `${count} messages or packets so far` : 'a message or packet'}: `
    case 'event':
      return `event ${cmEvent === undefined ? nameIn(AsyncEventType.values, event) : nameIn(CmEventType.values, cmEvent)}: `
    case 'post':
      return `${postText(failure)}: `
    case 'wait':
      return qpn === undefined ? '' : 'waits: '
  }
}

/** The end of the line: the cause, the peer's state, the root failure. */
export const failureReason = (failure: Failure): string => {
  const { cause, peer, isCauseAtPeer, root } = failure
  const owner = isCauseAtPeer && peer !== undefined ? `peer QP ${hex(peer.qpn)}: ` : ''
  const peerState = peer !== undefined && !isCauseAtPeer && causesWithPeer.has(cause.id) ? `; ${peerText(peer)}` : ''
  const rootText = root === undefined ? '' : ` (${failureText(root)})`
  return `${owner}${causeText(cause)}${peerState}${rootText}`
}

/** The line of a failure, without a full stop. `owner`: text behind the queue pair, or at the start without one. */
export const failureTextBy = (failure: Failure, owner: string): string =>
  [queuePairText(failure), owner, subjectText(failure) + failureReason(failure)].filter(part => part !== '').join(' ')

export const failureText = (failure: Failure): string => failureTextBy(failure, '')

export const isNote = ({ cause }: Failure): boolean => causes[cause.id].isNote === true

/** 64-bit numbers are hexadecimal text. */
const jsonArgs = ({ args }: Cause) =>
  Object.fromEntries(
    Object.entries(args).map(([name, value]) => [name, typeof value === 'bigint' ? `0x${value.toString(16)}` : value]),
  )

/** A failure as JSON. Opcodes, statuses and events are names; `wrId` is decimal text. */
export interface FailureJson {
  readonly kind: Failure['kind']
  readonly device: string
  readonly cause: CauseName
  readonly vendorErr: number
  readonly args: Readonly<Record<string, number | string>>
  readonly text: string
  readonly isNote?: true
  readonly qpn?: number
  readonly opcode?: string
  readonly wrId?: string
  readonly status?: string
  readonly errno?: string
  readonly event?: string
  readonly count?: number
  readonly queue?: 'send' | 'receive'
  readonly peer?: FailurePeer
  readonly isCauseAtPeer?: true
}

export const failureJson = (failure: Failure): FailureJson => {
  const { kind, device, cause, qpn, opcode, wrId, status, errno, event, cmEvent, count, queue, peer, isCauseAtPeer } =
    failure
  return {
    kind,
    device,
    ...(qpn !== undefined && { qpn }),
    ...(opcode !== undefined && { opcode: requestName(opcode) }),
    ...(wrId !== undefined && { wrId: String(wrId) }),
    ...(status !== undefined && { status: nameIn(WcStatus.values, status) }),
    ...(errno !== undefined && { errno: errnoName(errno) }),
    ...(event !== undefined && { event: nameIn(AsyncEventType.values, event) }),
    ...(cmEvent !== undefined && { event: nameIn(CmEventType.values, cmEvent) }),
    ...(count !== undefined && { count }),
    ...(queue !== undefined && { queue }),
    ...(peer !== undefined && { peer }),
    ...(isCauseAtPeer && { isCauseAtPeer }),
    cause: cause.id,
    vendorErr: vendorErrorOf(cause.id),
    args: jsonArgs(cause),
    ...(isNote(failure) && { isNote: true }),
    text: failureText(failure),
  }
}
