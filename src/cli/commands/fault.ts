/*
 * `userdma fault`: shows and changes the fault rules of a running daemon, and takes links down and up; changes take
 * effect immediately.
 */

import { targetOf } from '../../faults/rule.ts'
import { outageTime, parseRule } from '../../faults/rules.ts'
import type { FaultStat } from '../../spec/faults.ts'
import { FaultTargets } from '../../spec/faults.ts'
import { jsonText } from '../../spec/printable.ts'
import { canonicalFaults, orUsageError } from '../config.ts'
import { countsText, printFromDaemon, type QueryOptions } from './stat.ts'

/**
 * The output of `userdma fault show`: rules in the syntax of `userdma fault set`, each with its counts as a comment.
 */
const faultsText = (faults: readonly FaultStat[]): string => {
  if (faults.length === 0) return 'no faults\n'
  const width = Math.max(...faults.map(({ rule }) => rule.length))
  return faults
    .map(({ rule, matched, process, ...hits }) => {
      const target = targetOf(parseRule(rule))
      const matches = target === 'event' ? 'contexts' : FaultTargets[target]
      const whose = process === undefined ? '' : `process ${process}: `
      return `${rule.padEnd(width)}  # ${whose}of ${matched} ${matches}: ${countsText(hits)}\n`
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

/**
 * Takes the link of a device down or up. `forTime`: down for so long, as text. Throws UsageError for invalid arguments.
 */
export const setLink = async (
  device: string,
  state: string,
  { for: forTime, ...options }: QueryOptions & { readonly for?: string },
): Promise<void> => {
  const milliseconds = await orUsageError(() => {
    if (state !== 'down' && state !== 'up') throw new Error(`"${state}" is no state of a link; give down or up`)
    if (forTime === undefined) return undefined
    if (state === 'up') throw new Error('--for is the time for which a link is down; leave it out with up')
    const time = outageTime.read(forTime)
    if (time === undefined) throw new Error(`--for: "${forTime}" is not ${outageTime.allowed}`)
    return time
  })
  await printFromDaemon(options, async client => {
    await client.setLink(device, state === 'up', milliseconds)
    return ''
  })
}
