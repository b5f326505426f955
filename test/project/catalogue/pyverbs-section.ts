/*
 * The section of docs/reference/programs.md about rdma-core's tests of pyverbs that skip themselves.
 */
import type { PyverbsResult } from '../../system/suites/pyverbs.ts'
import { type Userland, userlands } from './cases.ts'

export type Skipped = readonly PyverbsResult[]

const HEAD = `## pyverbs

rdma-core's own tests of pyverbs, those of other vendors' devices left out. Every test that passes with Linux's rxe
passes here, and none fails. These skip themselves, for the reason that they give:`

export const shortName = (test: string): string => test.replace(/^tests\./, '')

const tableCell = (reason: string): string => reason.replaceAll('|', '\\|').trim()

export const pyverbsSection = (skipped: ReadonlyMap<Userland, Skipped>): string => {
  const rows = userlands.flatMap(userland => {
    const byReason = new Map<string, string[]>()
    for (const { test, reason } of skipped.get(userland) ?? []) {
      const tests = byReason.get(tableCell(reason)) ?? []
      byReason.set(tableCell(reason), tests)
      tests.push(`\`${shortName(test)}\``)
    }
    return [...byReason].sort().map(([reason, tests]) => `| ${userland} | ${reason} | ${tests.sort().join(', ')} |`)
  })
  return [HEAD, '', '| | reason | tests |', '|---|---|---|', ...rows].join('\n')
}
