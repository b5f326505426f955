/*
 * `userdma fault`: shows and changes the fault rules of a running daemon; changes take effect immediately.
 */

import { targetOf } from '../../spec/faults/rule.ts'
import { parseRule } from '../../spec/faults/rules.ts'
import { FaultTargets } from '../../spec/faults.ts'
import { jsonText } from '../../tools/trace/printable.ts'
import type { FaultStat } from '../../uapi/tool.ts'
import { canonicalFaults, orUsageError } from '../config.ts'
import { countsText, printFromDaemon, type QueryOptions } from './stat.ts'

/**
 * The output of `userdma fault show`: rules in the syntax of `userdma fault set`, each with its counts as a comment.
 */
const faultsText = (faults: readonly FaultStat[]): string => {
  if (faults.length === 0) return 'no faults\n'
  const width = Math.max(...faults.map(({ rule }) => rule.length))
  return faults
    .map(({ rule, matched, ...hits }) => {
      const target = targetOf(parseRule(rule))
      const matches = target === 'event' ? 'contexts' : FaultTargets[target]
      return `${rule.padEnd(width)}  # of ${matched} ${matches}: ${countsText(hits)}\n`
    })
    .join('')
}

export const showFaults = (options: QueryOptions): Promise<void> =>
  printFromDaemon(options, async client => {
    const faults = await client.faults()
    return options.json ? `${jsonText(faults, 2)}\n` : faultsText(faults)
  })

/** Throws UsageError for invalid rules. */
export const setFaults = async (rules: readonly string[], options: QueryOptions): Promise<void> => {
  const text = await orUsageError(() => canonicalFaults(rules))
  await printFromDaemon(options, async client => {
    await client.faults(text)
    return ''
  })
}
