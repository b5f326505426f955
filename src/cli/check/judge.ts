/*
 * The options of `userdma check`, and what they say about each finding.
 */
import os from 'node:os'
import type { Finding } from '../../spec/check/finding.ts'
import { isFailure } from '../../spec/check/severity.ts'
import type { Symbols } from '../../tools/check/finding-text.ts'
import { readInputFile } from '../../tools/topology/input-file.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { checkOptions } from '../command-line/options.ts'
import { UsageError } from '../fail.ts'
import type { NamedFile } from '../output-file.ts'
import { defaultSuppressions, parseSuppressions, stacksOfFinding, suppressionOf } from './suppressions.ts'

export type CheckOptions = OptionsOf<Omit<typeof checkOptions, 'explain' | 'tormentSearch' | 'searchTime'>>

/** The status of a program that Ctrl-C ended. It is kept, so that a script can tell that the user ended the program. */
export const INTERRUPTED = 128 + os.constants.signals.SIGINT

/** Bytes of a file of suppressions. */
const MAX_SUPPRESSIONS = 2 ** 22

const readSuppressions = (paths: readonly string[]) => {
  try {
    return paths.flatMap(path => parseSuppressions(readInputFile(path, 'suppression file', MAX_SUPPRESSIONS), path))
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
 * Returns a function that decides what happens to a finding: `ignore`; `hide` (a note about no wait, or a leak of a
 * program that a signal ended, that was not asked for: only counted); `suppress` (only counted, for the file or the
 * `library`); `show`; or `fail`: it is shown, and the exit status is FOUND_STATUS. Throws UsageError.
 */
export const createJudge = ({
  failOn,
  suppressions: paths = [],
  defaultSuppressions: isDefault = true,
  notes,
  leaks,
}: CheckOptions) => {
  const suppressions = [...readSuppressions(paths), ...(isDefault ? defaultSuppressions() : [])]
  return (finding: Finding, symbols: Symbols): Verdict => {
    const isHidden =
      finding.severity === 'note' && finding.follows === undefined
        ? !notes && failOn !== 'note' && !finding.isWait
        : finding.wasKilled && !leaks
    const suppression = suppressionOf(suppressions, finding.id, () => stacksOfFinding(finding, symbols))
    if (suppression !== undefined)
      return isHidden ? { action: 'ignore' } : { action: 'suppress', library: suppression.library }
    if (isHidden) return { action: 'hide' }
    return { action: isFailure(finding.severity, failOn) ? 'fail' : 'show' }
  }
}
