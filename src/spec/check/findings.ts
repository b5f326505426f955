/*
 * The kinds of mistakes that `userdma check` finds, by id. Ids keep their meaning. A row is in the folder beside, in
 * the file of its id, or of the detector that reports it with others.
 */

import { type CauseName, causes } from './causes.ts'
import type { FindingRow } from './finding-row.ts'
import { table } from './finding-table.ts'

/** Ids of findings. */
export type FindingId = keyof typeof table
export const findings: Readonly<Record<FindingId, FindingRow>> = table
export const findingIds = Object.keys(table) as readonly FindingId[]

export const isFindingId = (text: string): text is FindingId => Object.hasOwn(table, text)

const byCause = new Map<CauseName, FindingId>(
  findingIds.flatMap(id => (findings[id].causes ?? []).map(cause => [cause, id] as const)),
)

/** What to do about a kind of finding, each sentence without its full stop; empty: that depends on the case. */
export const adviceOfKind = (id: FindingId): readonly string[] => {
  const { advice, causes: names = [] } = findings[id]
  if (advice !== undefined) return [advice]
  const byAdvice = new Map<string, CauseName[]>()
  for (const name of names) {
    const own = causes[name].advice
    if (own !== undefined) byAdvice.set(own, [...(byAdvice.get(own) ?? []), name])
  }
  return [...byAdvice].map(([own, of]) => `${of.join(', ')}: ${own}`)
}

/** The finding to which a cause belongs. */
export const findingOfCause = (cause: CauseName): FindingId | undefined => byCause.get(cause)
