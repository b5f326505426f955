/*
 * Findings about refused posts: a post returned an error, and the device never saw the request. libibverbs' provider,
 * the preload library or src/library/verbs refuses posts. Some adapters accept such a request and complete it in error.
 */

import { adapters } from '../../../spec/check/adapters.ts'
import { causes, requestName } from '../../../spec/check/causes.ts'
import { type FindingId, findings } from '../../../spec/check/findings.ts'
import type { RefusedPost, RequestFacts } from '../../../spec/check/program-events.ts'
import type { Severity } from '../../../spec/check/severity.ts'
import { AccessFlags, QpState } from '../../../spec/enums.ts'
import { Errno } from '../../../spec/errno.ts'
import { PostQueue, UNKNOWN_OPCODE } from '../../../spec/session.ts'
import { ATOMIC_BYTES, isAtomic, SendFlags, WrOpcode } from '../../../spec/work.ts'
import { adviceForReset } from '../advice.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { type KnownObject, type QueueLimits, queueOf, stateName } from '../objects.ts'
import { QUEUES } from '../queues/queues.ts'
import { POSTED } from '../reporting.ts'
import { adderOf } from './batch-misused.ts'
import { IGNORED_POSTS } from './ignored-posts.ts'

const { ZERO_BASED } = AccessFlags.values
const { BIND_MW, SEND, SEND_WITH_IMM } = WrOpcode.values

/** What libefa takes by ibv_post_send (efa_post_send of rdma-core), and batches. */
const postedToSrd: ReadonlySet<number> = new Set([SEND, SEND_WITH_IMM, UNKNOWN_OPCODE])

/** The limit of scatter/gather elements; `max` undefined: unknown. */
const sgeLimit = (
  isSend: boolean,
  { maxSendSge, maxRecvSge, maxSge }: QueueLimits,
): readonly [name: string, max: number | undefined] => {
  if (isSend) return ['max_send_sge', maxSendSge]
  return maxSge === undefined ? ['max_recv_sge', maxRecvSge] : ['max_sge', maxSge]
}

/** A finding, why, and what to do. */
type Refusal = readonly [id: FindingId, why: string | undefined, advice?: string | undefined]

/** `access`: ibv_access_flags of the window. */
const refusedBind = (access: number, error: number): Refusal => {
  if (error === Errno.EPERM)
    return [
      'bind-refused',
      'window and region are of different protection domains',
      'allocate the window and register the region in one protection domain',
    ]
  return (access & ZERO_BASED) !== 0
    ? [
        'bind-refused',
        'a window of type 1 cannot be zero-based (IBV_ACCESS_ZERO_BASED): its addresses are those of the region',
        'leave IBV_ACCESS_ZERO_BASED out, or bind a window of type 2 (IBV_WR_BIND_MW), which may be zero-based',
      ]
    : ['bind-refused', 'the region, its range or the rights do not fit the window']
}

/** The finding for the rule that a request breaks; undefined: unknown. */
const brokenRule = (isSend: boolean, request: RequestFacts, queue: KnownObject, error: number): Refusal | undefined => {
  const { elements, flags, length, opcode, addressLow } = request
  if (isSend && opcode === BIND_MW) return refusedBind(addressLow, error)
  if (isSend && queue.class === 'driver_qp' && !postedToSrd.has(opcode))
    return [
      'bad-request',
      `libefa posts no ${requestName(opcode)} by ibv_post_send, only by ${adderOf(opcode)}`,
      `post it by ${adderOf(opcode)}, between ibv_wr_start and ibv_wr_complete`,
    ]
  const { maxInlineData } = queue.limits
  if (!isSend && queue.uses.has('srq')) return ['refused-call', 'the queue pair has an SRQ: post to the SRQ']
  const [name, max] = sgeLimit(isSend, queue.limits)
  if (max !== undefined && elements > max)
    return [
      'bad-request',
      `it has ${elements | 0} scatter/gather elements, and ${name} is ${max}`,
      `request a larger ${name} when creating the queue, or post fewer elements`,
    ]
  if (!isSend) return undefined
  // `length` is unknown if there are several elements.
  const hasLength = elements <= 1
  if (hasLength && (flags & SendFlags.values.INLINE) !== 0 && maxInlineData !== undefined && length > maxInlineData)
    return [
      'request-length',
      `it has ${length} bytes inline, and max_inline_data is ${maxInlineData}`,
      causes.INLINE_TOO_LONG.advice,
    ]
  if (!isAtomic(opcode)) return undefined
  if (addressLow % ATOMIC_BYTES !== 0)
    return ['atomic-misaligned', `its remote address modulo ${ATOMIC_BYTES} is ${addressLow % ATOMIC_BYTES}`]
  if (hasLength && length < ATOMIC_BYTES)
    return ['request-length', `it has ${length} bytes for the result of an atomic`, causes.ATOMIC_LENGTH.advice]
  return undefined
}

/** Why a send queue is full. Undefined if its last send is signaled: then the program has only polled too late. */
const whyFull = ({ unsignaled }: RequestFacts, { signalsAll, requestedSends }: KnownObject): string | undefined => {
  if (signalsAll || unsignaled === 0) return undefined
  const lastSends = `the last ${unsignaled} of the sends in it are not signaled (IBV_SEND_SIGNALED)`
  // The queue may have more slots than max_send_wr.
  return unsignaled >= requestedSends
    ? `${lastSends}, and max_send_wr is ${requestedSends}: on an adapter no completion frees their slots`
    : lastSends
}

const adviceIfFull = (isSend: boolean, request: RequestFacts | undefined, target: KnownObject | undefined): string => {
  if (!isSend) return 'post no more receives than the queue has slots, or request more of them when creating it'
  return request !== undefined && target !== undefined && whyFull(request, target) !== undefined
    ? 'signal at least one of max_send_wr sends (IBV_SEND_SIGNALED), and poll its completion before posting more'
    : 'poll the completions of earlier sends before posting more, or request a larger max_send_wr'
}

/** Why a receive queue or SRQ is full; undefined: its size is unknown. */
const whyReceivesFull = ({ limits: { maxWr } }: KnownObject): string | undefined =>
  maxWr === undefined ? undefined : `max_wr is ${maxWr}`

/** Whether a queue pair was created without slots for this queue. */
const hasNoSlots = (isSend: boolean, { isQp, requestedSends, requestedReceives }: KnownObject): boolean =>
  isQp && (isSend ? requestedSends : requestedReceives) === 0

/** Too many elements, too much inline data, and receives of a queue pair with an SRQ. */
const OF_REQUEST: readonly FindingId[] = ['bad-request', 'request-length', 'refused-call']

/** The finding for a refused post to a queue, its text, and advice that fits it better than the kind's. */
const refusalOf = (
  { queue, number, error, state, wrId, request }: RefusedPost,
  target: KnownObject | undefined,
): { readonly id: FindingId; readonly text: string; readonly advice?: string; readonly severity?: Severity } => {
  const { RESET, RTS } = QpState.values
  const isSend = queue === PostQueue.SEND
  const isTooEarly = isSend ? state < RTS : queue === PostQueue.RECEIVE && state === RESET
  const rule = target && request && brokenRule(isSend, request, target, error)
  // libmlx5 says ENOMEM also of these.
  const isOfRequest = rule !== undefined && OF_REQUEST.includes(rule[0])
  if (error === Errno.ENOMEM && target && !isOfRequest && hasNoSlots(isSend, target)) {
    const name = isSend ? 'max_send_wr' : 'max_recv_wr'
    return {
      id: 'queue-full',
      text: `${isSend ? 'send' : 'receive'} on ${target.name}, wr_id ${wrId}: the queue pair was created with ${name} 0, and has no slot for a request`,
      advice: `set cap.${name} when the queue pair is created: only some adapters round 0 up`,
      severity: 'warning',
    }
  }
  const adviceIfReset = isTooEarly && state === RESET && target ? adviceForReset(target) : undefined
  const wasReset = adviceIfReset !== undefined
  const isFull = error === Errno.ENOMEM && !isOfRequest
  const [id, why, advice]: Refusal = isFull
    ? [
        'queue-full',
        target && (isSend ? request && whyFull(request, target) : whyReceivesFull(target)),
        adviceIfFull(isSend, request, target),
      ]
    : isTooEarly
      ? [
          'post-wrong-state',
          wasReset ? 'it was reset' : stateName(state),
          adviceIfReset ??
            `move the queue pair to ${isSend ? 'RTS before the first send' : 'INIT before the first receive'}, and check the result of every post`,
        ]
      : (rule ?? ['refused-call', undefined])
  const name = target?.name ?? `queue 0x${number.toString(16)}`
  const post = `${isSend ? 'send' : 'receive'} on ${name}, wr_id ${wrId}`
  const text = `${post}: ${findings[id].title}${why === undefined ? '' : `: ${why}`}`
  return { id, text, ...(advice !== undefined && { advice }) }
}

export const createRefusedPostDetector = (services: DetectorServices): Detector => ({
  on: {
    refusedPost(post) {
      const target = queueOf(services.objects, post)
      const { id, text, advice, severity: least } = refusalOf(post, target)
      // Not `error`: the program gets the errno and can handle it.
      const severity = post.severity ?? least ?? (findings[id].severity === 'note' ? 'note' : 'warning')
      const isFull = id === 'queue-full' && post.queue === PostQueue.SEND
      const details = ((isFull && services.sources.adapters) || []).flatMap(name => {
        const source: string | undefined = adapters[name].freesAtPoll
        return source === undefined ? [] : [`${name} frees slots only when completions are polled; source: ${source}`]
      })
      services.report(id, { ...post, ...POSTED }, { text, details, advice, severity, objects: [target] })
      if (target !== undefined && post.request !== undefined)
        services.need(IGNORED_POSTS).refused(post, id, text, target)
      if (target !== undefined && isFull) services.need(QUEUES).isFull(target.id)
    },
  },
})
