/*
 * A mutation run: runs mutants, in an order that a seed determines, until enough mutants are found or missed.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Scope } from '../../system/programs.ts'
import { type KindName, kindNames, kindOf } from './kinds.ts'
import { inOrderOf, locationOf } from './mutants.ts'
import type { Program } from './programs.ts'
import { type Base, type JudgedMutant, runBases, runMutants, TIMEOUT_STATUS } from './run.ts'

/** Maximum mutants per `userdma check`. */
const BATCH = 40

interface Campaign {
  readonly seed: number
  readonly judged: readonly JudgedMutant[]
}

/** All mutants that are not equivalent to their program. */
export const foundOrMissed = ({ judged }: Campaign): JudgedMutant[] =>
  judged.filter(({ verdict }) => verdict !== 'equivalent')
/** The share of counted mutants that are found, 0 to 1. */
export const foundShare = (campaign: Campaign): number =>
  foundOrMissed(campaign).filter(({ verdict }) => verdict === 'found').length / foundOrMissed(campaign).length

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
    ({ kind, program, file, lines }) => kinds.includes(kind) && bases.get(program)!.reached(file, lines.first),
  )
  const judged: JudgedMutant[] = []
  const remaining = (): number => count - foundOrMissed({ seed, judged }).length
  while (remaining() > 0 && waiting.length > 0)
    judged.push(...(await runMutants(scope, waiting.splice(0, Math.min(BATCH, remaining())), bases)))
  return { seed, judged }
}

/** The changed line before the change. */
const lineOf = ({ mutant: { program, file, lines } }: JudgedMutant): string =>
  readFileSync(join(program.folder, file), 'utf8').split('\n')[lines.first - 1]?.trim() ?? ''

export const describeMutant = (judged: JudgedMutant): string => {
  const { mutant, result, newFindings } = judged
  const ids = [...new Set(newFindings.map(({ id }) => id))].join(', ')
  const end = result.status === TIMEOUT_STATUS ? 'does not end' : `ends with ${result.status}`
  return `${mutant.kind}: ${locationOf(mutant)} in ${mutant.program.name}: \`${lineOf(judged)}\`; it ${end}${ids && `; found: ${ids}`}`
}

/** Rows of a table: a kind, its mistake, and how many mutants were found, missed and equivalent. */
export const summary = ({ judged }: Campaign): string[] => {
  const numberOf = (kind: KindName, wanted: JudgedMutant['verdict']): number =>
    judged.filter(({ mutant, verdict }) => mutant.kind === kind && verdict === wanted).length
  return kindNames
    .filter(kind => judged.some(({ mutant }) => mutant.kind === kind))
    .map(
      kind =>
        `| ${kind} | ${kindOf(kind).mistake} | ${numberOf(kind, 'found')} | ${numberOf(kind, 'missed')} | ${numberOf(kind, 'equivalent')} |`,
    )
}
