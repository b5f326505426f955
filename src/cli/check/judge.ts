/*
 * The options of `userdma check`, and what they say about each finding.
 */
import { readFileSync } from 'node:fs'
import os from 'node:os'
import type { Finding } from '../../spec/check/finding.ts'
import { type FailLimit, failLimits, isFailure } from '../../spec/check/severity.ts'
import type { Symbols } from '../../tools/trace/findings.ts'
import type { ColorOptions } from '../colors.ts'
import { UsageError } from '../fail.ts'
import type { JoinOptions } from '../join.ts'
import type { NamedFile } from '../output-file.ts'
import type { HostOptions } from '../program/host-program.ts'
import type { RecordOptions } from '../record.ts'
import { defaultSuppressions, parseSuppressions, stacksOfFinding, suppressionOf } from './suppressions.ts'

/** As commander parses them. */
export interface CheckOptions extends JoinOptions, RecordOptions, HostOptions, ColorOptions {
  readonly output?: string
  readonly json?: boolean
  readonly sarif?: string
  readonly notes?: boolean
  /** Also leaks of programs that a signal ended. */
  readonly leaks?: boolean
  /** Seconds. */
  readonly hang?: string
  readonly races?: boolean
  readonly failOn?: string
  /** Paths of files. */
  readonly suppressions?: readonly string[]
  /** False: findings in libraries are reported too. */
  readonly defaultSuppressions?: boolean
  readonly genSuppressions?: boolean
}

/** The status of a program that Ctrl-C ended. It is kept, so that a script can tell that the user ended the program. */
export const INTERRUPTED = 128 + os.constants.signals.SIGINT

const failLimitOf = (text: string): FailLimit => {
  const found = failLimits.find(limit => limit === text)
  if (found === undefined) throw new UsageError(`--fail-on "${text}" is not one of ${failLimits.join(', ')}`)
  return found
}

const readSuppressions = (paths: readonly string[]) => {
  try {
    return paths.flatMap(path => parseSuppressions(readFileSync(path, 'utf8'), path))
  } catch (error) {
    throw new UsageError(`--suppressions: ${(error as Error).message}`)
  }
}

/** The files of --suppressions, as inputs. */
export const suppressionFiles = ({ suppressions = [] }: CheckOptions): NamedFile[] =>
  suppressions.map(path => ['--suppressions', path])

type Verdict =
  | { readonly action: 'ignore' | 'hide' | 'show' | 'fail' }
  | { readonly action: 'suppress'; readonly library?: string | undefined }

/**
 * Returns a function that decides what happens to a finding: `ignore`; `hide` (a note about no wait, or a leak of a program that a
 * signal ended, that was not asked for: only counted); `suppress` (only counted, for the file or the `library`); `show`;
 * or `fail`: it is shown, and the exit status is FOUND_STATUS. Throws UsageError.
 */
export const createJudge = (
  {
    failOn: text = 'error',
    suppressions: paths = [],
    defaultSuppressions: isDefault = true,
    notes,
    leaks,
  }: CheckOptions,
  symbols: Symbols,
) => {
  const failOn = failLimitOf(text)
  const suppressions = [...readSuppressions(paths), ...(isDefault ? defaultSuppressions() : [])]
  return (finding: Finding): Verdict => {
    const isHidden =
      finding.severity === 'note' ? !notes && failOn !== 'note' && !finding.isWait : finding.wasKilled && !leaks
    const suppression = suppressionOf(suppressions, finding.id, () => stacksOfFinding(finding, symbols))
    if (suppression !== undefined)
      return isHidden ? { action: 'ignore' } : { action: 'suppress', library: suppression.library }
    if (isHidden) return { action: 'hide' }
    return { action: isFailure(finding.severity, failOn) ? 'fail' : 'show' }
  }
}
