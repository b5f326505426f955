/*
 * `userdma check --torment-search N`: runs a program with N seeds and reports the shortest run that fails.
 *
 * A run fails if the program's exit status is not 0, a signal or the time limit ends it, or there is a finding. The first
 * run is without torment: if it fails, there is nothing to search. The shortest is the one with the fewest decisions of
 * torment. It is repeated with only the first COUNT decisions of its seed (`--torment SEED:COUNT`), for the smallest COUNT
 * with which it still fails: the last of these is probably the cause. That run is repeated, since timing may decide too.
 *
 * An interrupt ends the search; what was found so far is printed.
 */
import os from 'node:os'
import { type Finding, FOUND_STATUS } from '../../spec/check/findings.ts'
import { MAX_SEED, type TormentSetting, tormentText } from '../../spec/check/torment.ts'
import { printable } from '../../trace/printable.ts'
import { attempt, type Ending } from '../attempt.ts'
import { createSymbols } from '../check/symbols.ts'
import { configArguments, fullConfig, orUsageError, parseCount, parseTorment, wantedConfig } from '../config.ts'
import { UsageError } from '../fail.ts'
import { joinDaemon } from '../join.ts'
import { openOutput } from '../output-file.ts'
import { preloadedLibraries, programEnvironment } from '../program/program.ts'
import { type CheckOptions, findingJudge } from './check.ts'
import { checkProgram } from './run.ts'

export interface SearchOptions extends CheckOptions {
  /** Seeds to try. */
  readonly tormentSearch: string
  /** Seconds of one run. */
  readonly timeLimit?: string
}

interface Run extends Ending {
  /** Undefined: without torment. */
  readonly setting: TormentSetting | undefined
  readonly decisions: number
}
type TormentedRun = Run & { readonly setting: TormentSetting }

const MAX_SECONDS = 86_400
/** Lines of the program's output that are printed. */
const LAST_LINES = 5
const SECONDS = 60
/** How often the shortest run is repeated. */
const REPEATS = 2
/** End the search; the second one ends the process. */
const ENDING = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

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
  const races = options.races === true
  const recording = { stacks: true, events: races }
  preloadedLibraries(recording)
  const output = openOutput(options.output)
  const judge = findingJudge(options, createSymbols())
  const stop = new AbortController()
  const interrupted = (signal: NodeJS.Signals): void => {
    for (const one of ENDING) process.off(one, interrupted)
    stop.abort(signal)
  }
  for (const signal of ENDING) process.on(signal, interrupted)
  const endedBy = (): NodeJS.Signals | undefined => stop.signal.reason
  const optionsWith = (setting: TormentSetting | undefined): SearchOptions => {
    const { torment: _, ...plain } = options
    return { ...plain, ...(setting && { torment: tormentText(setting) }) }
  }

  /** Undefined if it was interrupted. */
  const run = async <T extends TormentSetting | undefined>(
    setting: T,
  ): Promise<(Run & { readonly setting: T }) | undefined> => {
    const found: Finding[] = []
    const onFinding = (finding: Finding): void => {
      if (judge(finding) === 'fail') found.push(finding)
    }
    const joined = await joinDaemon({ ...optionsWith(setting), private: true, check: true }, { onFinding })
    try {
      await joined.client.findings()
      if (stop.signal.aborted) return undefined
      const env = programEnvironment(joined.client.socket, recording)
      const ending = await attempt(program, args, env, limit, stop.signal)
      if (stop.signal.aborted) return undefined
      const { decisions = 0 } = await joined.client.counts()
      const [finding] = found
      const failure = ending.failure ?? (finding && `finding ${finding.id}: ${finding.text}`)
      return { setting, decisions, failure, output: ending.output }
    } finally {
      await joined.leave()
    }
  }

  const say = (line: string): void => output.write(`userdma check: ${line}\n`)
  const sayFailure = ({ failure = '', output: printed }: Run): void => {
    say(printable(failure))
    const last = printed.trim().split('\n').slice(-LAST_LINES).filter(Boolean)
    for (const line of last) output.write(`  ${printable(line)}\n`)
  }
  const command = (words: readonly string[]): string =>
    ['userdma', ...words, '--', program, ...args].map(quoted).join(' ')
  /** How to repeat a run, with the options that were given. */
  const sayCommands = async (setting: TormentSetting | undefined): Promise<void> => {
    const { like, buffers, ...config } = fullConfig(await wantedConfig(optionsWith(setting)))
    const devices = options.device === undefined ? { ...config, devices: [] } : config
    const { failOn, suppressions = [] } = options
    const judging = [
      ...(races ? ['--races'] : []),
      ...(failOn === undefined ? [] : ['--fail-on', failOn]),
      ...suppressions.flatMap(path => ['--suppressions', path]),
    ]
    const checked = { ...devices, ...(like && { like }), ...(buffers && { buffers }) }
    say(`repeat it: ${command(['check', ...configArguments(checked), ...judging])}`)
    if (setting === undefined) return
    say(`what the devices did: ${command(['trace', '--private', ...configArguments(devices)])}`)
  }
  const end = (found: boolean): void => {
    for (const signal of ENDING) process.off(signal, interrupted)
    const status = found ? FOUND_STATUS : output.failed ? 1 : 0
    const interrupt = endedBy()
    process.exitCode = interrupt === undefined ? status : 128 + os.constants.signals[interrupt]
  }

  const plain = await run(undefined)
  if (plain?.failure !== undefined) {
    say('the program fails without torment, so no seed was tried')
    sayFailure(plain)
    await sayCommands(undefined)
    return end(true)
  }
  const failed: TormentedRun[] = []
  let tried = 0
  for (; tried < count && endedBy() === undefined; tried++) {
    const one = await run({ seed: first + tried, most: Number.POSITIVE_INFINITY })
    if (one === undefined) break
    if (one.failure !== undefined) failed.push(one)
  }
  const signal = endedBy()
  const seeds = signal === undefined ? `${count} seeds` : `${tried} seeds until ${signal}`
  const [shortest] = failed.sort((a, b) => a.decisions - b.decisions)
  if (shortest === undefined) {
    say(`no failure with ${seeds}${tried === 0 ? '' : `, ${first} to ${first + tried - 1}`}`)
    return end(false)
  }
  const least = await shorten(shortest, run)
  const text = tormentText(least.setting)
  say(`${failed.length} of ${seeds} fail; the shortest is --torment ${text} with ${least.decisions} decisions`)
  sayFailure(least)
  let again = 0
  let repeats = 0
  for (; repeats < REPEATS; repeats++) {
    const one = await run(least.setting)
    if (one === undefined) break
    again += +(one.failure !== undefined)
  }
  if (repeats > 0) say(`run again, it fails ${again} of ${repeats} times`)
  await sayCommands(least.setting)
  return end(true)
}

/**
 * Bisects the decisions; only runs that fail count, so a run that passes by chance makes the result longer, not wrong.
 * `run` returns undefined when it is interrupted.
 */
const shorten = async (
  failed: TormentedRun,
  run: (setting: TormentSetting) => Promise<TormentedRun | undefined>,
): Promise<TormentedRun> => {
  let best = failed
  for (let passing = -1, failing = failed.decisions; failing - passing > 1; ) {
    const most = Math.floor((passing + failing) / 2)
    const one = await run({ ...failed.setting, most })
    if (one === undefined) break
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
