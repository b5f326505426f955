/*
 * Options of checked devices, the equivalents of options of `userdma check`.
 */
import { type AdapterName, adapterNames } from '../../spec/check/adapters.ts'
import { type Finding, type FindingId, failLimits, findingIds, type Severity } from '../../spec/check/findings.ts'
import { checkOptions, type KnownOptions } from '../checks/options.ts'
import { checkChoice, checkFunction, formatValue, invalidArgument } from '../error.ts'
import { type StackSharing, stackSharings } from './posts.ts'

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
   * Adapters: a call or request that works here and fails there is a finding, on all devices of the network
   * (docs/reference/adapters.md).
   */
  readonly like?: readonly AdapterName[]
  /**
   * Searches for races: requests that access the same bytes, one of them writing, without anything that orders them;
   * default false.
   */
  readonly races?: boolean
  /**
   * 'all': each request has the stack of its post. Default: 'shared', from the 257th request of a queue on, equal
   * requests (opcode, flags, region) share stacks, which costs less.
   */
  readonly stacks?: StackSharing
}

const names: KnownOptions<CheckOptions> = {
  onFinding: true,
  failOn: true,
  notes: true,
  ignore: true,
  like: true,
  races: true,
  stacks: true,
}

/** Throws RdmaError EINVAL. */
export const readCheckOptions = (call: string, check: true | CheckOptions): CheckOptions => {
  if (check === true) return {}
  if (typeof check !== 'object' || check === null)
    throw invalidArgument(call, `check ${formatValue(check)} is not true, false or an object of options`)
  checkOptions(call, 'check', check, names)
  const { onFinding, failOn, notes, ignore, like, races, stacks } = check
  if (onFinding !== undefined) checkFunction(call, 'check.onFinding', onFinding)
  if (failOn !== undefined) checkChoice(call, 'check.failOn', failOn, failLimits)
  for (const [name, value] of Object.entries({ notes, races }))
    if (value !== undefined && typeof value !== 'boolean')
      throw invalidArgument(call, `check.${name} ${formatValue(value)} is not true or false`)
  if (stacks !== undefined) checkChoice(call, 'check.stacks', stacks, stackSharings)
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
