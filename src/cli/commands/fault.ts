/*
 * `userdma fault`: what is wrong with the network of a running daemon, and changes of it that hold at once.
 */
import type { FaultStat } from '../../uapi/tool.ts'
import { canonicalFaults, orUsageError } from '../config.ts'
import { countsText, type LookOptions, queryStat } from './stat.ts'

/** What `userdma fault show` prints: rules as `userdma fault set` takes them, and behind a # what they did. */
export const faultsText = (faults: readonly FaultStat[]): string => {
  if (faults.length === 0) return 'no faults\n'
  const width = Math.max(...faults.map(({ rule }) => rule.length))
  return faults
    .map(({ rule, matched, ...hits }) => {
      const what = countsText(hits)
      return `${rule.padEnd(width)}  # of ${matched} packets: ${what}\n`
    })
    .join('')
}

export const showFaults = (options: LookOptions): Promise<void> =>
  queryStat(options, async client => {
    const faults = await client.faults()
    return options.json ? `${JSON.stringify(faults, null, 2)}\n` : faultsText(faults)
  })

/** Throws UsageError for rules that are none. */
export const setFaults = async (rules: readonly string[], options: LookOptions): Promise<void> => {
  const text = orUsageError(() => canonicalFaults(rules))
  await queryStat(options, async client => {
    await client.faults(text)
    return ''
  })
}
