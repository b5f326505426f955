/*
 * `userdma check --torment-search N`: runs a program with N seeds and reports the shortest run that fails.
 *
 * A run fails if the program's exit status is not 0, a signal or the time limit ends it, or there is a finding. The
 * shortest is the one with the fewest decisions of torment. It is repeated with only the first COUNT decisions of its
 * seed (`--torment SEED:COUNT`), for the smallest COUNT with which it still fails: the last of these is probably the
 * cause.
 */
import { type Finding, FOUND_STATUS } from '../../spec/check/findings.ts'
import { MAX_SEED, type TormentSetting, tormentText } from '../../spec/check/torment.ts'
import { printable } from '../../trace/printable.ts'
import { attempt, type Ending } from '../attempt.ts'
import { createSymbols } from '../check/symbols.ts'
import { configArguments, fullConfig, orUsageError, parseCount, parseTorment, wantedConfig } from '../config.ts'
import { UsageError } from '../fail.ts'
import { joinDaemon } from '../join.ts'
import { openOutput } from '../output-file.ts'
import { shimLibrary } from '../places.ts'
import { programEnvironment } from '../program/program.ts'
import { type CheckOptions, findingJudge } from './check.ts'
import { checkProgram } from './run.ts'

export interface SearchOptions extends CheckOptions {
  /** Seeds to try. */
  readonly tormentSearch: string
  /** Seconds of one run. */
  readonly timeLimit?: string
}

interface Run extends Ending {
  readonly setting: TormentSetting
  readonly decisions: number
}

const MAX_SECONDS = 86_400
/** Lines of the program's output that are printed. */
const LAST_LINES = 5
const SECONDS = 60

export const tormentSearch = async (
  program: string,
  args: readonly string[],
  options: SearchOptions,
): Promise<void> => {
  const { first, count, limit } = await orUsageError(() => {
    const first = options.torment === undefined ? 1 : parseTorment(options.torment).seed
    return {
      first,
      count: parseCount('--torment-search', options.tormentSearch, MAX_SEED - first + 1),
      limit: options.timeLimit === undefined ? SECONDS : parseCount('--time-limit', options.timeLimit, MAX_SECONDS),
    }
  })
  if (options.json || options.sarif !== undefined)
    throw new UsageError('--json and --sarif are for one run: search first, then repeat the run that fails')
  checkProgram(program, args)
  shimLibrary()
  const output = openOutput(options.output)
  const judge = findingJudge(options, createSymbols())

  const run = async (setting: TormentSetting): Promise<Run> => {
    const found: Finding[] = []
    const onFinding = (finding: Finding): void => {
      if (judge(finding) === 'fail') found.push(finding)
    }
    const daemon = { ...options, private: true, check: true, torment: tormentText(setting) }
    const joined = await joinDaemon(daemon, { onFinding })
    try {
      await joined.client.findings()
      const ending = await attempt(program, args, programEnvironment(joined.client.socket, { stacks: true }), limit)
      const { decisions = 0 } = await joined.client.counts()
      const [finding] = found
      const failure = ending.failure ?? (finding && `finding ${finding.id}: ${finding.text}`)
      return { setting, decisions, failure, output: ending.output }
    } finally {
      await joined.leave()
    }
  }

  const failed: Run[] = []
  for (let seed = first; seed < first + count; seed++) {
    const one = await run({ seed, most: Number.POSITIVE_INFINITY })
    if (one.failure !== undefined) failed.push(one)
  }
  const say = (line: string): void => output.write(`userdma check: ${line}\n`)
  const [shortest] = failed.sort((a, b) => a.decisions - b.decisions)
  if (shortest === undefined) {
    say(`no failure with ${count} seeds, ${first} to ${first + count - 1}`)
    process.exitCode = output.failed ? 1 : 0
    return
  }
  const least = await shorten(shortest, run)
  const text = tormentText(least.setting)
  const isAlways = least.decisions === 0
  say(`${failed.length} of ${count} seeds fail; the shortest is --torment ${text} with ${least.decisions} decisions`)
  say(`${printable(least.failure ?? '')}${isAlways ? ', also without torment' : ''}`)
  const last = least.output.trim().split('\n').slice(-LAST_LINES).filter(Boolean)
  for (const line of last) output.write(`  ${printable(line)}\n`)
  const { device, failOn, suppressions = [] } = options
  const config = fullConfig(await wantedConfig({ ...options, torment: text }))
  const settings = configArguments(device === undefined ? { ...config, devices: [] } : config)
  const judging = [
    ...(failOn === undefined ? [] : ['--fail-on', failOn]),
    ...suppressions.flatMap(path => ['--suppressions', path]),
  ]
  const command = (words: readonly string[]): string =>
    ['userdma', ...words, '--', program, ...args].map(quoted).join(' ')
  say(`repeat it: ${command(['check', ...settings, ...judging])}`)
  say(`what the devices did: ${command(['trace', '--private', ...settings])}`)
  process.exitCode = FOUND_STATUS
}

/**
 * Bisects the decisions; only runs that fail count, so a run that passes by chance makes the result longer, not wrong.
 */
const shorten = async (failed: Run, run: (setting: TormentSetting) => Promise<Run>): Promise<Run> => {
  let best = failed
  for (let passing = -1, failing = failed.decisions; failing - passing > 1; ) {
    const most = Math.floor((passing + failing) / 2)
    const one = await run({ ...failed.setting, most })
    if (one.failure === undefined) passing = most
    else {
      best = one
      failing = most
    }
  }
  return best
}

/** A word for a shell. */
const quoted = (word: string): string => (/^[\w./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)
