/*
 * Orders that no rule promises: of what a decision of torment has held, and of a completion that has passed it.
 */
import { SendKind, sendOperations } from '../work.ts'
import type { StoryLine } from './finding.ts'
import { decisionKind, type TormentKind, TormentKinds } from './torment.ts'

/** A post, or a completion, under torment. */
export interface TormentedRequest extends StoryLine {
  readonly event: 'posted' | 'completed'
  /** DEVICE/PROCESS/OBJECT/THING, as in identities. */
  readonly name: string
  readonly isReceive: boolean
  /** ibv_wr_opcode; of a receive negative. */
  readonly opcode: number
  readonly qpn?: number | undefined
  readonly destQpn?: number | undefined
  /** Of a completion: when the program has polled it, microseconds; absent: not yet. */
  readonly polled?: number | undefined
  /** Of a completion: in error, and not flushed. */
  readonly isError?: true
}

/** Kinds of which one decision holds something back, which then may come after a completion. */
const holding: ReadonlySet<string> = new Set([
  'bytes',
  'completion',
  'event',
  'request',
  'ack',
  'late',
] satisfies TormentKind[])

/** Whether the decision with this identity holds something back. */
export const isHolding = (id: string): boolean => holding.has(decisionKind(id))

/** What comes when the decision ends, as an event of `TormentHold`. */
export const eventOf = (id: string): string => (decisionKind(id) === 'completion' ? id.slice(id.indexOf('/') + 1) : id)

/** DEVICE/PROCESS/OBJECT and THING of an identity or a name. */
export const partsOfName = (name: string): { readonly object: string; readonly thing: string } => {
  const parts = name.split('/').slice(-4)
  return { object: parts.slice(0, 3).join('/'), thing: parts[3] ?? '' }
}

const isRead = ({ opcode }: TormentedRequest): boolean => sendOperations[opcode]?.kind === SendKind.READ

/** Why messages of SRD, and what they carry, come in any order. */
export const SRD_ORDER = 'messages of SRD have no order'

/** Why posts of two queue pairs, or of one if `isOne`, have no order. */
export const postOrderClause = (
  later: TormentedRequest | undefined,
  earlier: TormentedRequest | undefined,
  isOne: boolean,
): string => {
  if (!isOne) return TormentKinds.request.rule
  if (later?.name.includes('/driver_qp')) return SRD_ORDER
  return earlier !== undefined && isRead(earlier)
    ? 'ibv_post_send(3): a request may be executed before an earlier READ has ended, unless it has IBV_SEND_FENCE'
    : 'IBA 9.5: only a completion, or a later SEND, immediate or atomic, tells that a WRITE is done'
}

/** Why the order is not promised: `later` came after `earlier` has passed it. Undefined requests: unknown. */
export const orderClause = (
  id: string,
  later: TormentedRequest | undefined,
  earlier: TormentedRequest | undefined,
  earlierName: string,
): string => {
  const kind = decisionKind(id) as TormentKind
  if (kind !== 'completion') return TormentKinds[kind].rule
  const [one, other] = [partsOfName(eventOf(id)), partsOfName(earlierName)]
  const device = ({ object }: { readonly object: string }): string => object.slice(0, object.indexOf('/'))
  if (device(one) !== device(other)) return 'IBA 10.8.3.3: completions of different devices have no order'
  if (one.object === other.object)
    return 'IBA 10.8.3.3: completions of the send queue and of the receive queue of a queue pair have no order; an answer may come before the acknowledgement of what it answers'
  if (later === undefined || earlier === undefined) return TormentKinds.completion.rule
  const areConnected = later.destQpn !== undefined && later.destQpn === earlier.qpn
  if (areConnected && !later.isReceive && earlier.isReceive)
    return isRead(later)
      ? 'IBA 10.8.3.3, ibv_post_send(3): a SEND may arrive before an earlier READ has ended, unless it has IBV_SEND_FENCE'
      : 'IBA 9.7.5.1.2, 10.8.3.3: the receiver may complete a message before the sender gets its acknowledgement'
  if (areConnected && later.isReceive && !earlier.isReceive)
    return 'IBA 10.8.3.3: an acknowledgement says that a message is in memory, not that its receive has completed'
  return 'IBA 10.8.3.3: requests and completions of different queue pairs have no order'
}
