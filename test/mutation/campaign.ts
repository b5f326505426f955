/*
 * A mutation run: mutants in the order of a seed until a number of them has counted, and its result as text.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Scope } from '../system/programs.ts'
import { type KindName, kindNames, kindOf } from './kinds.ts'
import { inOrderOf, placeOf } from './mutants.ts'
import type { Program } from './programs.ts'
import { type Base, type Judged, runBases, runMutants } from './run.ts'

/** Mutants per `userdma check`. */
const BATCH = 40

export interface Campaign {
  readonly seed: number
  readonly all: readonly Judged[]
}

export const counted = ({ all }: Campaign): Judged[] => all.filter(({ verdict }) => verdict !== 'equivalent')
export const foundShare = (campaign: Campaign): number =>
  counted(campaign).filter(({ verdict }) => verdict === 'found').length / counted(campaign).length

/** Runs mutants of `programs` until `count` are found or missed, or none is left. */
export const runCampaign = async (
  scope: Scope,
  {
    seed,
    count,
    programs,
    kinds = kindNames,
  }: {
    readonly seed: number
    readonly count: number
    readonly programs: readonly Program[]
    readonly kinds?: readonly KindName[]
  },
): Promise<Campaign> => {
  const bases = new Map<Program, Base>(await runBases(scope, programs))
  const waiting = inOrderOf(seed, programs).filter(
    ({ kind, program, file, lines }) => kinds.includes(kind) && bases.get(program)!.reached(file, lines.from),
  )
  const all: Judged[] = []
  const missing = (): number => count - all.filter(({ verdict }) => verdict !== 'equivalent').length
  while (missing() > 0 && waiting.length > 0)
    all.push(...(await runMutants(scope, waiting.splice(0, Math.min(BATCH, missing())), bases)))
  return { seed, all }
}

/** The changed line before the change. */
const lineOf = ({ mutant: { program, file, lines } }: Judged): string =>
  readFileSync(join(program.folder, file), 'utf8').split('\n')[lines.from - 1]?.trim() ?? ''

/** One line about a mutant. */
export const describeMutant = (judged: Judged): string => {
  const { mutant, ran, fresh } = judged
  const ids = [...new Set(fresh.map(({ id }) => id))].join(', ')
  const end = ran.status === 124 ? 'does not end' : `ends with ${ran.status}`
  return `${mutant.kind}: ${placeOf(mutant)} in ${mutant.program.name}: \`${lineOf(judged)}\`; it ${end}${ids && `; found: ${ids}`}`
}

/** Rows of a table: a kind, what it does, and how many mutants were found, missed and equivalent. */
export const summary = (campaign: Campaign): string[] => {
  const { all } = campaign
  const of = (kind: KindName, verdict: Judged['verdict']): number =>
    all.filter(({ mutant, verdict: own }) => mutant.kind === kind && own === verdict).length
  return kindNames
    .filter(kind => all.some(({ mutant }) => mutant.kind === kind))
    .map(
      kind =>
        `| ${kind} | ${kindOf(kind).what} | ${of(kind, 'found')} | ${of(kind, 'missed')} | ${of(kind, 'equivalent')} |`,
    )
}
