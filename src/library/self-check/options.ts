/*
 * Options of checked devices.
 */
import { type AdapterName, adapterNames } from '../../spec/check/adapters.ts'
import type { Finding } from '../../spec/check/finding.ts'
import { type FindingId, findingIds } from '../../spec/check/findings.ts'
import { failLimits, type Severity } from '../../spec/check/severity.ts'
import { checkOptions, type KnownOptions } from '../verbs/arguments/options.ts'
import { checkChoice, checkFunction, formatValue, invalidArgument } from '../verbs/error.ts'
import { type StackSharing, stackSharings } from './posts.ts'

/** Options of a checked device (`open({ check })`). */
export interface CheckOptions {
  /**
   * Called once with each finding; must not call the device. If it throws, the exception is uncaught. Default: prints
   * the finding to standard error.
   */
  readonly onFinding?: ((finding: Finding) => void) | undefined
  /**
   * `device.close()` rejects with a `FindingsError` if a finding of at least this severity was reported. 'never': does
   * not reject. Default: 'error'.
   */
  readonly failOn?: Severity | 'never' | undefined
  /** Whether findings of severity 'note' are reported too; true by default if `failOn` is 'note', otherwise false. */
  readonly notes?: boolean | undefined
  /** Ids of findings that are not reported. */
  readonly ignore?: readonly FindingId[] | undefined
  /**
   * Names of RDMA adapters (docs/reference/adapters.md): a call or request that would fail on one of these adapters is
   * a finding. Applies to all checked devices of the network.
   */
  readonly like?: readonly AdapterName[] | undefined
  /** Searches for races: a write and other accesses to the same bytes in no defined order. Default false. */
  readonly races?: boolean | undefined
  /**
   * 'all': captures the stack of each post. 'shared' (default): costs less, because after the first 256 requests of
   * a queue, equal requests (opcode, flags, region) share stacks.
   */
  readonly stacks?: StackSharing | undefined
}

const names: KnownOptions<CheckOptions> = {
  onFinding: true,
  failOn: true,
  notes: 'flag',
  ignore: true,
  like: true,
  races: 'flag',
  stacks: true,
}

/** The options in `open({ check })`: none for `true`. Throws RdmaError EINVAL for an invalid option. */
export const readCheckOptions = (call: string, check: true | CheckOptions): CheckOptions => {
  if (check === true) return {}
  if (typeof check !== 'object' || check === null)
    throw invalidArgument(call, `check ${formatValue(check)} is not true, false or an object of options`)
  checkOptions(call, 'check', check, names)
  const { onFinding, failOn, ignore, like, stacks } = check
  if (onFinding !== undefined) checkFunction(call, 'check.onFinding', onFinding)
  if (failOn !== undefined) checkChoice(call, 'check.failOn', failOn, failLimits)
  if (stacks !== undefined) checkChoice(call, 'check.stacks', stacks, stackSharings)
  for (const [name, list] of Object.entries({ ignore, like }))
    if (list !== undefined && !Array.isArray(list)) {
      const hint = typeof list === 'string' ? `give [${formatValue(list)}]` : 'give an array of names'
      throw invalidArgument(call, `check.${name} ${formatValue(list)} is not a list`, hint)
    }
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
