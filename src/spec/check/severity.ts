/*
 * Severities of findings. `error`: something failed or cannot work. `warning`: the program may fail or leak, here or
 * elsewhere. `note`: not necessarily a mistake.
 */

export const severities = ['note', 'warning', 'error'] as const
/** Severity of a finding. */
export type Severity = (typeof severities)[number]

/** Findings of at least this severity make the run fail (`userdma check --fail-on`). */
export const failLimits = [...severities, 'never'] as const
type FailLimit = (typeof failLimits)[number]

export const isFailure = (severity: Severity, limit: FailLimit): boolean =>
  limit !== 'never' && severities.indexOf(severity) >= severities.indexOf(limit)

/** Exit status if a finding makes the run fail: EX_DATAERR of sysexits.h. */
export const FOUND_STATUS = 65
