/*
 * Faults that a test of the program sets for itself (`device.fault`): their texts are those of `--fault`
 * (spec/faults.ts).
 */
import type { FaultSettings } from '../../spec/faults.ts'
import { checkOptions, checkRecord, type KnownOptions } from './arguments/options.ts'
import type { CarriedFault, Carrier } from './carrier.ts'
import { checkInteger, formatValue, invalidArgument, refused } from './error.ts'
import { type AbortOptions, checkSignal } from './mailbox.ts'

type FaultValue = string | number | bigint

/**
 * A fault rule: the settings of `--fault` with their values, such as `{ qp: qp.qpn, drop: '100%', count: 1 }` or
 * `{ call: 'mr.create', errno: 'ENOMEM', nth: 2 }`. Several values of a selector are an array. docs/reference/cli.md
 */
export type FaultRuleOptions = {
  readonly [N in keyof typeof FaultSettings]?: FaultValue | readonly FaultValue[] | undefined
}

/** Options of `fault.wait`. `signal` ends the wait. */
export interface FaultWaitOptions extends AbortOptions {
  /** Default 10,000. */
  readonly milliseconds?: number | undefined
}

const waitOptionNames: KnownOptions<FaultWaitOptions> = { milliseconds: true, signal: true }

/** Fault rules that were set together. Disposing them ends them. */
export interface Fault extends Disposable {
  /**
   * How often the rules have acted so far; each effect on a packet counts. Throws RdmaError ENOENT if they are over.
   */
  readonly count: number
  /**
   * Resolves when the rules have acted `times` times, default 1. Rejects with RdmaError ETIMEDOUT, or the signal's
   * reason.
   */
  wait(times?: number, options?: FaultWaitOptions): Promise<void>
  /** Ends the rules; links that they have taken down are up again. Later calls do nothing. */
  clear(): void
}

const MAX_TIMES = 1e9
const MAX_WAIT = 2 ** 31 - 1

const ruleText = (rule: FaultRuleOptions): string => {
  checkRecord('device.fault', 'a rule', rule, "write { drop: '1%' }")
  return Object.entries(rule)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}=${Array.isArray(value) ? value.join('+') : value}`)
    .join(',')
}

const textOf = (rules: string | FaultRuleOptions | readonly FaultRuleOptions[]): string => {
  if (typeof rules === 'string') return rules
  if (typeof rules !== 'object' || rules === null)
    throw invalidArgument('device.fault', `the rules are ${formatValue(rules)}`, "write { drop: '1%' }, or a text")
  return (Array.isArray(rules) ? (rules as readonly FaultRuleOptions[]) : [rules as FaultRuleOptions])
    .map(ruleText)
    .join(';')
}

/** Sets rules. `ended` is called when they are cleared. Throws RdmaError. */
export const beginFault = (
  carrier: Carrier,
  rules: string | FaultRuleOptions | readonly FaultRuleOptions[],
  ended: (fault: Fault) => void,
): Fault => {
  let carried: CarriedFault | undefined = carrier.setFault(textOf(rules))
  const clear = (): void => {
    carried?.clear()
    carried = undefined
    ended(fault)
  }
  const count = (): number => {
    if (carried === undefined) throw refused('ENOENT', 'fault.count', 'the rules are over')
    return carried.count()
  }
  const fault: Fault = {
    get count() {
      return count()
    },
    async wait(times = 1, options = {}) {
      checkInteger('fault.wait', 'times', times, 1, MAX_TIMES)
      checkOptions('fault.wait', 'options', options, waitOptionNames)
      checkSignal('fault.wait', options)
      const { milliseconds = 10_000, signal } = options
      checkInteger('fault.wait', 'milliseconds', milliseconds, 0, MAX_WAIT)
      const { clock } = carrier
      const end = clock.now() + milliseconds * 1000
      while (count() < times) {
        signal?.throwIfAborted()
        if (clock.now() >= end)
          throw refused(
            'ETIMEDOUT',
            'fault.wait',
            `the rules have acted ${count()} times in ${milliseconds} ms, not ${times}`,
          )
        await new Promise<void>(resolve => void clock.after(1, 'program', resolve))
      }
    },
    clear,
    [Symbol.dispose]: clear,
  }
  return fault
}
