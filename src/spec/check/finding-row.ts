/*
 * What is known of a kind of mistake (findings.ts).
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
  /** The advice for a program of the TypeScript library, if `advice` has names of libibverbs. */
  readonly libraryAdvice?: string
  /**
   * The causes of failures (causes.ts) that are reported as this finding. Each cause belongs to at most one finding: a
   * cause with `isNote` to none, or to one of severity `note`; every other cause to one.
   */
  readonly causes?: readonly CauseName[]
  /** Completion statuses to which the mistake can lead, in addition to those of its causes. */
  readonly statuses?: readonly (keyof typeof WcStatus.values)[]
}
