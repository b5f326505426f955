/*
 * Why programs wait: for `userdma stat --qps` and `userdma check`. A wait is a state of queues in which a program that
 * waits for a completion, an event or a destroy gets none. One look cannot tell a wait from work in progress: a wait
 * counts if a second look, some time later, finds the same text.
 */
import type { table } from './finding-table.ts'
import { type FindingId, findings } from './findings.ts'
import type { Severity } from './severity.ts'
import type { WaitGraph } from './thread-waits.ts'

/** The findings that are waits. */
export type WaitId = { [Id in FindingId]: (typeof table)[Id] extends { readonly wait: number } ? Id : never }[FindingId]
export const isWaitId = (id: FindingId): id is WaitId => findings[id].wait !== undefined

/** A request that a wait names. */
export interface WaitingRequest {
  /** PostQueue (spec/session.ts): SEND, RECEIVE or SHARED. */
  readonly queue: number
  /** The number of the queue pair, or the handle of the shared receive queue. */
  readonly number: number
  readonly wrId: bigint
  /** The number of its context; absent: that of the wait. */
  readonly context?: number
  /**
   * What the wait's text has before and after the request's name, such as `wr_id 7`. Absent: it has no name in the
   * text.
   */
  readonly around?: readonly [before: string, after: string]
}

/** What a program waits for. */
export interface WaitStat {
  readonly device: string
  readonly pid: number
  readonly command: string
  readonly id: WaitId
  /** A sentence without its full stop. */
  readonly text: string
}

export interface Wait {
  readonly id: WaitId
  /** Absent: that of the finding. */
  readonly severity?: Severity
  /** One sentence without its full stop. The same as long as nothing changes. */
  readonly text: string
  /** Further facts, which may change. */
  readonly details?: readonly string[]
  /** What to do, where the facts tell it. Absent: the advice of the finding's kind, if it has one. */
  readonly advice?: string
  /** Numbers of the queue pairs that the wait names, first the program's own. */
  readonly qpns?: readonly number[]
  /** The index of the device of the second queue pair, if it is not the program's own. */
  readonly peerDevice?: number
  /** The handle of the CQ that the wait names. */
  readonly cq?: number
  /** The handle of a completion channel that no CQ has. */
  readonly channel?: number
  /** The handle of the identifier of rdma_cm that the wait names. */
  readonly cmId?: number
  /** With `cq`: a request of the peer that the program waits for. */
  readonly request?: WaitingRequest
  /** Who waits for whom. */
  readonly graph?: WaitGraph
}

/** A recording of a later release may have kinds of waits that are not known here. */
const placeOf = ({ id }: Pick<Wait, 'id'>): number => findings[id]?.wait ?? 0

/** Waits in the order of `wait` of their rows. */
export const inReportOrder = <W extends Pick<Wait, 'id'>>(waits: readonly W[]): W[] =>
  [...waits].sort((a, b) => placeOf(a) - placeOf(b))
