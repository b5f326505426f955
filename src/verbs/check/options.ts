/*
 * Options of checked devices: what `userdma check` has as options of the command.
 */
import { type AdapterName, adapterNames } from '../../spec/check/adapters.ts'
import { type Finding, type FindingId, failLimits, findingIds, type Severity } from '../../spec/check/findings.ts'
import { checkOptions, type KnownOptions } from '../checks/options.ts'
import { checkChoice, checkFunction, formatValue, invalidArgument } from '../error.ts'

/** Options of a checked device (`open({ check })`). */
export interface CheckOptions {
  /** Called with each finding once, instead of text on standard error. Must not call the device. */
  readonly onFinding?: (finding: Finding) => void
  /**
   * `device.close()` rejects with a `FindingsError` if there was a finding of this severity or a higher one; 'never':
   * it does not reject. Default: 'error'.
   */
  readonly failOn?: Severity | 'never'
  /** Whether notes are findings too; default false. */
  readonly notes?: boolean
  /** Suppressed findings. */
  readonly ignore?: readonly FindingId[]
  /**
   * Adapters: what works here and fails there is a finding, on all devices of the network (docs/reference/adapters.md).
   */
  readonly like?: readonly AdapterName[]
}

const names: KnownOptions<CheckOptions> = { onFinding: true, failOn: true, notes: true, ignore: true, like: true }

/** Throws RdmaError EINVAL. */
export const readCheckOptions = (call: string, check: true | CheckOptions): CheckOptions => {
  if (check === true) return {}
  if (typeof check !== 'object' || check === null)
    throw invalidArgument(call, `check ${formatValue(check)} is not true, false or an object of options`)
  checkOptions(call, 'check', check, names)
  const { onFinding, failOn, notes, ignore, like } = check
  if (onFinding !== undefined) checkFunction(call, 'check.onFinding', onFinding)
  if (failOn !== undefined) checkChoice(call, 'check.failOn', failOn, failLimits)
  if (notes !== undefined && typeof notes !== 'boolean')
    throw invalidArgument(call, `check.notes ${formatValue(notes)} is not true or false`)
  for (const [name, list] of Object.entries({ ignore, like }))
    if (list !== undefined && !Array.isArray(list))
      throw invalidArgument(call, `check.${name} ${formatValue(list)} is not a list`)
  for (const id of ignore ?? [])
    if (!findingIds.includes(id))
      throw invalidArgument(
        call,
        `check.ignore: there is no finding ${formatValue(id)}`,
        '`userdma check --explain` lists them',
      )
  for (const name of like ?? []) checkChoice(call, 'check.like', name, adapterNames)
  return check
}
