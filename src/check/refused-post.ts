/*
 * Posts that the program's library refused, with the rule that the request breaks if the library says enough to know
 * it. The device never sees these requests; adapters refuse some of them only with a completion.
 */

import { type FindingId, findings, type Program, type Stack } from '../spec/check/findings.ts'
import { QpState } from '../spec/enums.ts'
import { Errno } from '../spec/errno.ts'
import { PostQueue } from '../spec/session.ts'
import { SendFlags, WrOpcode } from '../spec/work.ts'
import { type KnownObject, stateName } from './objects.ts'

/** A request: number and bytes of its scatter/gather elements, and the low bits of an atomic's address. */
export interface RequestFacts {
  readonly opcode: number
  readonly flags: number
  readonly elements: number
  readonly length: bigint
  readonly addressLow: number
  /** The last sends that are outstanding and were posted without IBV_SEND_SIGNALED. */
  readonly unsignaled: number
}

/** `queue`: PostQueue; `number`: of the queue pair, or handle of the SRQ; `state`: the queue pair's. */
export interface RefusedPost {
  readonly time: number
  readonly device: string
  readonly deviceNumber: number
  readonly context: number
  readonly program: Program | undefined
  readonly queue: number
  readonly number: number
  readonly wrId: bigint
  readonly error: number
  readonly state: number
  readonly stack: Stack
  readonly request?: RequestFacts
}

const { ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD, BIND_MW } = WrOpcode.values
const ATOMIC_BYTES = 8

/** A rule that a request breaks. */
const brokenRule = (
  isSend: boolean,
  request: RequestFacts,
  own: KnownObject,
  error: number,
): [FindingId, string] | undefined => {
  const { elements, flags, length, opcode, addressLow } = request
  if (isSend && opcode === BIND_MW)
    return [
      'bind-refused',
      error === Errno.EPERM
        ? 'window and region are of different protection domains'
        : 'the region, its range or the rights do not fit the window',
    ]
  const { maxSendSge, maxRecvSge, maxSge, maxInlineData } = own.limits
  const [name, max] = isSend
    ? ['max_send_sge', maxSendSge]
    : maxSge === undefined
      ? ['max_recv_sge', maxRecvSge]
      : ['max_sge', maxSge]
  if (max !== undefined && elements > max)
    return ['bad-request', `it has ${elements} scatter/gather elements, and ${name} is ${max}`]
  if (!isSend) return undefined
  if ((flags & SendFlags.values.INLINE) !== 0 && maxInlineData !== undefined && length > maxInlineData)
    return ['request-length', `it has ${length} bytes inline, and max_inline_data is ${maxInlineData}`]
  if (opcode !== ATOMIC_CMP_AND_SWP && opcode !== ATOMIC_FETCH_AND_ADD) return undefined
  if (addressLow % ATOMIC_BYTES !== 0)
    return ['atomic-misaligned', `its remote address is ${addressLow % ATOMIC_BYTES} bytes behind one`]
  if (length < ATOMIC_BYTES) return ['request-length', `it has ${length} bytes for the result of an atomic`]
  return undefined
}

/** Why a queue is full, if it is for want of signals. */
const whyFull = ({ unsignaled }: RequestFacts, { isSignalAll, sends }: KnownObject): string | undefined => {
  if (isSignalAll || unsignaled === 0) return undefined
  return unsignaled >= sends
    ? `none of the ${unsignaled} sends in it is signaled (IBV_SEND_SIGNALED), so no completion will free their slots`
    : `the last ${unsignaled} of the sends in it are not signaled (IBV_SEND_SIGNALED)`
}

const callOf = (queue: number): string =>
  queue === PostQueue.SEND ? 'ibv_post_send' : queue === PostQueue.SHARED ? 'ibv_post_srq_recv' : 'ibv_post_recv'

/** The finding of a refused post to `own`, and its sentence. */
export const refusalOf = (
  post: RefusedPost,
  own: KnownObject | undefined,
): { readonly id: FindingId; readonly text: string } => {
  const { queue, number, error, state, wrId, request } = post
  const { RESET, RTS } = QpState.values
  const isSend = queue === PostQueue.SEND
  const isTooEarly = isSend ? state < RTS : queue === PostQueue.RECEIVE && state === RESET
  const rule = own && request && brokenRule(isSend, request, own, error)
  const [id, why]: readonly [FindingId, string | undefined] =
    error === Errno.ENOMEM
      ? ['queue-full', isSend && own && request ? whyFull(request, own) : undefined]
      : isTooEarly
        ? ['post-wrong-state', stateName(state)]
        : (rule ?? ['refused-call', undefined])
  const name = own?.name ?? `queue 0x${number.toString(16)}`
  const text = `${callOf(queue)} on ${name}, wr_id ${wrId}: ${findings[id].title}${why === undefined ? '' : `: ${why}`}`
  return { id, text }
}
