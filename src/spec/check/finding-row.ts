/*
 * What is known of a kind of mistake: a row of findings.ts. The wording is in the rows, findings/NAME.ts.
 */
import type { WcStatus } from '../work.ts'
import type { CauseName } from './causes.ts'
import type { Need } from './needs.ts'
import type { Severity } from './severity.ts'

export interface FindingRow {
  readonly severity: Severity
  readonly needs: readonly Need[]
  /** What is wrong: one sentence without its full stop. */
  readonly title: string
  /** The rule, with its source. */
  readonly why: string
  /** What to do in every case of this kind. Absent: that depends on the case (`Finding.advice`), or is not known. */
  readonly advice?: string
  /** What to do if librdmacm has set the attributes, from rdma_conn_param. */
  readonly cmAdvice?: string
  /** The advice for a program of the TypeScript library, if `advice` has names of libibverbs. */
  readonly libraryAdvice?: string
  /**
   * The causes of failures (causes.ts) that are reported as this finding. Each cause belongs to at most one finding: a
   * cause with `isNote` to none, or to one of severity `note`; every other cause to one.
   */
  readonly causes?: readonly CauseName[]
  /**
   * The completion statuses to which the mistake can lead, each with its place among the findings that can: the
   * likeliest, or the quickest to check, is 1 (`userdma explain STATUS`).
   */
  readonly statuses?: Readonly<Partial<Record<keyof typeof WcStatus.values, number>>>
  /** Present if it says what a program waits for (waits.ts): its place in reports. */
  readonly wait?: number
  /**
   * 'events': it has a story (story.ts). 'post': it has one, whose reason is in the post of the request. 'none': it has
   * none. Absent: it has one if it is a wait, or has causes or statuses.
   */
  readonly story?: 'events' | 'post' | 'none'
  /**
   * The event that its story marks (tools/check/story/decisive.ts). Absent: that of a wait, or of the post of the
   * request.
   */
  readonly marks?: 'gone peer' | 'failed peer' | 'lack of receives' | 'end of a program' | 'nothing'
  /** Present if it shows the attributes of both ends. */
  readonly showsEnds?: true
  /**
   * What is not said once more, nor worse, where it is reported: a signal has ended the program; threads wait for each
   * other, or why.
   */
  readonly tells?: 'death' | 'deadlock' | 'reason'
  /** Present if it follows from what has ended a program by a signal, if that is explained (consequences.ts). */
  readonly followsDeath?: true
  /** Present for a note that explains why a program fails that has no other finding: then it is an error. */
  readonly explainsFailure?: true
  /** Present if the program goes on with what an event has made invalid: an outcome of `userdma walk`. */
  readonly isStale?: true
}
