/*
 * Runs programs and mutants under `userdma check`, and judges the mutants by their findings.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { findingJson } from '../../../src/cli/check/report.ts'
import { scaled } from '../../limits.ts'
import { cleanEnvironment, freePort, run, type Scope, temporaryFolder, userdma } from '../../system/programs.ts'
import { findTool } from '../../tools.ts'
import { kindOf, type Naming } from './kinds.ts'
import { filesOf, type Mutant, readCoverage } from './mutants.ts'
import type { Program } from './programs.ts'
import { applyEdit } from './source.ts'

/** Seconds that one program may run, scaled. */
const LIMIT = 5
/** Exit status of timeout(1) for a program that exceeds the limit. */
export const TIMEOUT_STATUS = 124
/** Programs that run at the same time. */
const LANES = 2

/** A line of `userdma check --json`. */
type FindingJson = ReturnType<typeof findingJson> & { readonly count: number }

interface RunResult {
  /** Exit status, or TIMEOUT_STATUS. */
  readonly status: number
  readonly stdout: string
  readonly found: readonly FindingJson[]
}

interface Job {
  readonly folder: string
  readonly program: Program
}

/** Compiles in `folder`, to a program with the folder's name. Returns false if the program does not compile. */
const compile = (folder: string, { file, flags }: Program, extraFlags: readonly string[]): boolean => {
  const name = basename(folder)
  const args = [
    '-std=gnu11',
    '-O0',
    '-g',
    '-w',
    ...flags,
    ...extraFlags,
    '-o',
    name,
    file,
    '-lrdmacm',
    '-libverbs',
    '-lpthread',
  ]
  return spawnSync(findTool('cc') ?? 'cc', args, { cwd: folder, encoding: 'utf8' }).status === 0
}

const copySources = (program: Program, folder: string): void => {
  for (const file of filesOf(program)) {
    mkdirSync(dirname(join(folder, file)), { recursive: true })
    cpSync(join(program.folder, file), join(folder, file))
  }
}

/** Runs all jobs under one daemon. Findings are assigned to jobs by program names. */
const runAll = async (scope: Scope, jobs: readonly Job[]): Promise<RunResult[]> => {
  if (jobs.length === 0) return []
  const folder = temporaryFolder(scope)
  /** Shell commands. The lanes run in parallel, the jobs of a lane one after the other. */
  const lanes: string[][] = Array.from({ length: LANES }, () => [])
  const ports = await Promise.all(jobs.map(() => freePort()))
  const limit = scaled(LIMIT)
  for (const [i, { folder: jobFolder, program }] of jobs.entries()) {
    const command = `timeout -k 1 ${limit} sh -c '${program.command}' ./${basename(jobFolder)} ${ports[i]}`
    lanes[i % LANES]!.push(`cd ${jobFolder}; ${command} > out 2> err; echo $? > status`)
  }
  // A shell refuses an empty group.
  const used = lanes.filter(({ length }) => length > 0)
  const script = `${used.map(lines => `{ ${lines.join('\n')}\n} &`).join('\n')} wait`
  writeFileSync(join(folder, 'all.sh'), script)
  const output = join(folder, 'findings')
  const args = ['check', '--notes', '--races', '--json', '-o', output, '--', 'sh', join(folder, 'all.sh')]
  await run(scope, userdma, args, { env: cleanEnvironment() })
  const found = readFileSync(output, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map(line => JSON.parse(line) as FindingJson)
  return jobs.map(({ folder: jobFolder }) => ({
    status: Number(readFileSync(join(jobFolder, 'status'), 'utf8')),
    stdout: readFileSync(join(jobFolder, 'out'), 'utf8'),
    found: found.filter(({ program }) => program?.command === basename(jobFolder)),
  }))
}

/** The run of a program without a mistake. */
export interface Base extends RunResult {
  /** Whether the program executed a line. */
  reached(file: string, line: number): boolean
}

/** Runs programs without a mistake, with coverage. */
export const runBases = async (scope: Scope, programs: readonly Program[]): Promise<Map<Program, Base>> => {
  const root = temporaryFolder(scope)
  const jobs = programs.map((program, i) => {
    const folder = join(root, `b${i}`)
    copySources(program, folder)
    if (!compile(folder, program, ['--coverage'])) throw new Error(`${program.name} does not compile`)
    return { folder, program }
  })
  const results = await runAll(scope, jobs)
  return new Map(jobs.map(({ folder, program }, i) => [program, { ...results[i]!, reached: readCoverage(folder) }]))
}

// ---- judgement ----

/**
 * `found`: a new finding names the mistake; `equivalent`: no finding does, the mutant behaves as the program, and its
 * kind has `legalIf`; `missed`: otherwise.
 */
type Verdict = 'found' | 'equivalent' | 'missed'

export interface JudgedMutant {
  readonly mutant: Mutant
  readonly verdict: Verdict
  /** Whether a finding that names the mistake has the changed line in a stack. */
  readonly isAtChangedLine: boolean
  readonly result: RunResult
  /** Findings that the program without the mistake does not have, or has fewer times. */
  readonly newFindings: readonly FindingJson[]
}

/** The part of a finding that is equal in every run: no numbers, and only the functions of the stacks. */
const shapeOf = ({ id, text, moments }: FindingJson): string =>
  [
    id,
    text.replace(/0x[0-9a-f]+|\d+/g, '#'),
    ...moments.flatMap(({ frames }) => frames.map(({ function: name }) => name)),
  ].join(' ')

const hasChangedLine = (finding: FindingJson, { file, lines }: Mutant): boolean =>
  [...finding.moments, ...finding.objects.flatMap(({ history }) => history)].some(({ frames }) =>
    frames.some(
      frame =>
        frame.file?.split('/').at(-1) === basename(file) &&
        frame.line !== undefined &&
        lines.first <= frame.line &&
        frame.line <= lines.last,
    ),
  )

const namesMistake = ({ id, text }: FindingJson, naming: Naming): boolean => {
  if (typeof naming === 'string') return id === naming
  const [namingId, pattern] = naming
  return id === namingId && pattern.test(text)
}

const judge = (mutant: Mutant, result: RunResult, base: RunResult): JudgedMutant => {
  const baseCounts = new Map<string, number>()
  for (const finding of base.found) {
    const shape = shapeOf(finding)
    baseCounts.set(shape, (baseCounts.get(shape) ?? 0) + finding.count)
  }
  const newFindings = result.found.filter(finding => finding.count > (baseCounts.get(shapeOf(finding)) ?? 0))
  const { findings, legalIf } = kindOf(mutant.kind)
  const namingFindings = newFindings.filter(finding => findings.some(naming => namesMistake(finding, naming)))
  const isSame = result.status === base.status && result.stdout === base.stdout
  const isEquivalent = isSame && legalIf !== undefined
  const verdictIfNotFound = isEquivalent ? 'equivalent' : 'missed'
  const verdict = namingFindings.length > 0 ? 'found' : verdictIfNotFound
  const isAtChangedLine = namingFindings.some(finding => hasChangedLine(finding, mutant))
  return { mutant, verdict, isAtChangedLine, result, newFindings }
}

/** Mutants that do not compile are left out. */
export const runMutants = async (
  scope: Scope,
  mutants: readonly Mutant[],
  bases: ReadonlyMap<Program, Base>,
): Promise<JudgedMutant[]> => {
  const root = temporaryFolder(scope)
  const jobs = mutants.flatMap((mutant, i) => {
    const { program, file, edit } = mutant
    const folder = join(root, `m${i}`)
    copySources(program, folder)
    writeFileSync(join(folder, file), applyEdit(readFileSync(join(program.folder, file), 'utf8'), edit))
    return compile(folder, program, []) ? [{ folder, program, mutant }] : []
  })
  const results = await runAll(scope, jobs)
  return jobs.map(({ mutant, program }, i) => judge(mutant, results[i]!, bases.get(program)!))
}
