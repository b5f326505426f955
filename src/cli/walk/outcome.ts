/*
 * What a run of a fault walk has shown, compared with the run without faults.
 */
import type { Finding } from '../../spec/check/finding.ts'
import type { SurveySite } from '../../spec/faults.ts'
import type { AttemptResult } from '../attempt.ts'
import type { CrashRecord } from './crashes.ts'
import type { WalkPoint } from './points.ts'

/**
 * Outcomes of a point.
 *
 * - `crash`: a signal such as SIGSEGV has ended a process
 * - `hang`: the program did not end
 * - `swallowed`: the exit status is 0, the output is as without the fault, and the program has not made up for the
 *   failure: it has fewer successful calls or requests of this kind. Queries are left out: programs and libraries may do
 *   without an answer
 * - `leak`: the process has destroyed objects after the failure, but not all
 * - `handled`: the program has reported the failure, by its exit status or output, or has repeated what failed
 * - `unreached`: the program did not come to the site
 */
export const outcomes = ['crash', 'hang', 'swallowed', 'leak', 'handled', 'unreached'] as const
export type Outcome = (typeof outcomes)[number]

/** A run of the program. */
export interface WalkRun {
  readonly result: AttemptResult
  readonly sites: readonly SurveySite[]
  /** Crashes, and the stacks of a program that hangs. */
  readonly records: readonly CrashRecord[]
  /** Objects that the process has left into which the fault was injected, if it has destroyed others afterwards. */
  readonly leaks: readonly Finding[]
  /** How often the rule has acted. */
  readonly injected: number
}

export interface WalkResult {
  readonly point: WalkPoint
  readonly outcome: Outcome
  readonly run: WalkRun
}

/** Numbers differ from run to run: times, addresses, queue pairs, bandwidths. */
const comparable = (output: string): ReadonlySet<string> =>
  new Set(
    output
      .split('\n')
      .map(line => line.replace(/0x[0-9a-f]+|[0-9a-f:.]*\d[0-9a-f:.]*/gi, '#').trim())
      .filter(Boolean),
  )

const hasNewLine = (output: string, before: string): boolean => {
  const known = comparable(before)
  for (const line of comparable(output)) if (!known.has(line)) return true
  return false
}

const countOf = (sites: readonly SurveySite[], { target, name, class: cls }: SurveySite): number =>
  sites
    .filter(site => site.target === target && site.name === name && site.class === cls)
    .reduce((sum, { count }) => sum + count, 0)

const isQuery = ({ target, name }: SurveySite): boolean => target === 'call' && /\.query/.test(name)

/** `clean`: the run without faults. */
export const outcomeOf = ({ site }: WalkPoint, clean: WalkRun, run: WalkRun): Outcome => {
  const { result, records, leaks, injected, sites } = run
  if (injected === 0) return 'unreached'
  if (records.some(({ isCrash }) => isCrash)) return 'crash'
  if (result.isTimedOut) return 'hang'
  if (leaks.length > 0) return 'leak'
  if (result.failure !== undefined) return result.signal === null ? 'handled' : 'crash'
  const isReported = hasNewLine(result.stderr, clean.result.stderr) || hasNewLine(result.stdout, clean.result.stdout)
  const isMadeUpFor = countOf(sites, site) - injected >= countOf(clean.sites, site)
  return isReported || isMadeUpFor || isQuery(site) ? 'handled' : 'swallowed'
}
