/*
 * From drafts to findings: the same mistake at the same place is one finding with a count, and findings are bounded.
 */
import {
  type Finding,
  type FindingId,
  type FoundObject,
  findings,
  type Moment,
  type Program,
  type Severity,
  type Stack,
} from '../spec/check/findings.ts'
import type { NoteOmission, OmissionId } from '../spec/check/omissions.ts'
import { type KnownObject, moment } from './objects.ts'

/** Distinct findings that are remembered; occurrences of further ones are left out. */
const MAX_FINDINGS = 1000
/** Objects that a finding names, beside the first. */
export const MAX_NAMED = 4

/** Place and time of a finding. */
export interface Place {
  readonly time: number
  readonly device: string
  readonly program: Program | undefined
  readonly stack: Stack
  /** What the program did there. */
  readonly what?: string
}

export interface Draft {
  readonly text: string
  /** Absent: that of the table (spec/check/findings.ts). */
  readonly severity?: Severity
  readonly details?: readonly string[]
  /** Further moments that matter, with stacks of their own. */
  readonly moments?: readonly Moment[]
  readonly objects?: readonly (KnownObject | undefined)[]
}

/** The text without its numbers, which differ between two occurrences at one place. */
const shapeOf = (text: string): string => text.replace(/0x[0-9a-f]+|\d+/g, '#')

export class Reporting {
  /** What was left out. */
  readonly omitted = new Map<OmissionId, number>()
  /** How often each finding was found, by its number − 1. */
  readonly counts: number[] = []
  /** Numbers of findings by what makes them distinct. */
  readonly #numbers = new Map<string, number>()
  readonly #report: (finding: Finding) => void

  constructor(report: (finding: Finding) => void) {
    this.#report = report
  }

  /** Notes that something was left out, `count` times. */
  readonly omit: NoteOmission = (id, count) => {
    if (count > 0) this.omitted.set(id, (this.omitted.get(id) ?? 0) + count)
  }

  find(id: FindingId, { time, device, program, stack, what = 'called' }: Place, draft: Draft): void {
    const { text, details = [] } = draft
    const severity = draft.severity ?? findings[id].severity
    // Without the process: the same mistake of a thousand children is one finding.
    const key = [id, program?.command, shapeOf(text), ...stack].join('\n')
    const known = this.#numbers.get(key)
    if (known !== undefined) {
      this.counts[known - 1]!++
      return
    }
    if (this.counts.length === MAX_FINDINGS) {
      this.omit('findings', 1)
      return
    }
    const number = this.counts.push(1)
    this.#numbers.set(key, number)
    const objects = [...new Set(draft.objects ?? [])].filter(object => object !== undefined)
    this.#report({
      number,
      id,
      severity,
      text,
      details,
      ...(program && { program }),
      device,
      time,
      moments: [moment(what, time, stack), ...(draft.moments ?? [])],
      objects: objects
        .slice(0, MAX_NAMED + 1)
        .map((object): FoundObject => ({ name: object.nameWithProgram, history: object.history })),
    })
  }
}
