/*
 * `userdma check --torment-search N`: runs a program with N seeds and reports the shortest run that fails.
 *
 * A run fails if the program's exit status is not 0, a signal or the time limit ends it, or there is a finding. The
 * first run is without torment: if it fails, there is nothing to search. The shortest is the one with the fewest
 * decisions of torment. It is repeated with only the first COUNT decisions of its seed (`--torment SEED:COUNT`), for
 * the smallest COUNT with which it still fails: the last of these is probably the cause. That run is repeated, since
 * timing may decide too.
 *
 * An interrupt ends the search; what was found so far is printed.
 */
import os from 'node:os'
import { type Finding, FOUND_STATUS } from '../../spec/check/findings.ts'
import { MAX_SEED, type TormentSetting, tormentText } from '../../spec/check/torment.ts'
import { printable } from '../../trace/printable.ts'
import { type AttemptResult, attempt } from '../attempt.ts'
import { createSymbols } from '../check/symbols.ts'
import { configArguments, fullConfig, orUsageError, parseCount, parseTorment, wantedConfig } from '../config.ts'
import { UsageError } from '../fail.ts'
import { joinDaemon } from '../join.ts'
import { openOutput } from '../output-file.ts'
import { preloadedLibraries, programEnvironment } from '../program/program.ts'
import { type CheckOptions, createJudge } from './check.ts'
import { checkProgram } from './run.ts'

export interface SearchOptions extends CheckOptions {
  /** The number of seeds to try. */
  readonly tormentSearch: string
  /** Maximum seconds of one run. */
  readonly timeLimit?: string
}

interface Run extends AttemptResult {
  /** Undefined: without torment. */
  readonly setting: TormentSetting | undefined
  /** Number of decisions of torment. */
  readonly decisions: number
}
type TormentedRun = Run & { readonly setting: TormentSetting }

/** Default and maximum of `--time-limit`. */
const DEFAULT_SECONDS = 60
const MAX_SECONDS = 86_400
/** Lines of the program's output that are printed, the last ones. */
const LAST_LINES = 5
/** How often the shortest failing run is repeated. */
const REPEATS = 2
/** Signals that end the search; a second one ends the process. */
const END_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** The command. Throws UsageError. */
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
      limit:
        options.timeLimit === undefined ? DEFAULT_SECONDS : parseCount('--time-limit', options.timeLimit, MAX_SECONDS),
    }
  })
  if (options.json || options.sarif !== undefined)
    throw new UsageError('--json and --sarif are for one run: search first, then repeat the run that fails')
  checkProgram(program, args)
  const races = options.races === true
  const recording = { stacks: true, events: races }
  preloadedLibraries(recording)
  const output = openOutput(options.output)
  const judge = createJudge(options, createSymbols())
  const stop = new AbortController()
  const interrupted = (signal: NodeJS.Signals): void => {
    for (const one of END_SIGNALS) process.off(one, interrupted)
    stop.abort(signal)
  }
  for (const signal of END_SIGNALS) process.on(signal, interrupted)
  const endedBy = (): NodeJS.Signals | undefined => stop.signal.reason
  /** The options of the command, with this torment. */
  const optionsWith = (setting: TormentSetting | undefined): SearchOptions => {
    const { torment: _, ...plain } = options
    return { ...plain, ...(setting && { torment: tormentText(setting) }) }
  }

  /** Runs the program once, under a daemon of its own. Undefined if it was interrupted. */
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
      const result = await attempt(program, args, env, limit, stop.signal)
      if (stop.signal.aborted) return undefined
      const { decisions = 0 } = await joined.client.counts()
      const [finding] = found
      const failure = result.failure ?? (finding && `finding ${finding.id}: ${finding.text}`)
      return { setting, decisions, failure, output: result.output }
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
  /** A command line that runs the program. */
  const command = (words: readonly string[]): string =>
    ['userdma', ...words, '--', program, ...args].map(quoted).join(' ')
  /** Prints how to repeat a run, with the options that were given. */
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
    for (const signal of END_SIGNALS) process.off(signal, interrupted)
    const status = found ? FOUND_STATUS : output.hasFailed ? 1 : 0
    const interrupt = endedBy()
    process.exitCode = interrupt === undefined ? status : 128 + os.constants.signals[interrupt]
  }

  const untormented = await run(undefined)
  if (untormented?.failure !== undefined) {
    say('the program fails without torment, so no seed was tried')
    sayFailure(untormented)
    await sayCommands(undefined)
    return end(true)
  }
  const failed: TormentedRun[] = []
  let tried = 0
  for (; tried < count && endedBy() === undefined; tried++) {
    const result = await run({ seed: first + tried, most: Number.POSITIVE_INFINITY })
    if (result === undefined) break
    if (result.failure !== undefined) failed.push(result)
  }
  const signal = endedBy()
  const seeds = signal === undefined ? `${count} seeds` : `${tried} seeds until ${signal}`
  const [fewest] = failed.sort((a, b) => a.decisions - b.decisions)
  if (fewest === undefined) {
    say(`no failure with ${seeds}${tried === 0 ? '' : `, ${first} to ${first + tried - 1}`}`)
    return end(false)
  }
  const shortest = await shorten(fewest, run)
  const text = tormentText(shortest.setting)
  say(`${failed.length} of ${seeds} fail; the shortest is --torment ${text} with ${shortest.decisions} decisions`)
  sayFailure(shortest)
  let failures = 0
  let repeats = 0
  for (; repeats < REPEATS; repeats++) {
    const result = await run(shortest.setting)
    if (result === undefined) break
    if (result.failure !== undefined) failures++
  }
  if (repeats > 0) say(`run again, it fails ${failures} of ${repeats} times`)
  await sayCommands(shortest.setting)
  return end(true)
}

/**
 * Finds by bisection the smallest number of decisions with which the run still fails. The result is a run that did
 * fail: if another run passes by chance, the result is longer than necessary, and not wrong. `run` resolves with
 * undefined when the search is interrupted.
 */
const shorten = async (
  failed: TormentedRun,
  run: (setting: TormentSetting) => Promise<TormentedRun | undefined>,
): Promise<TormentedRun> => {
  let best = failed
  for (let passing = -1, failing = failed.decisions; failing - passing > 1; ) {
    const most = Math.floor((passing + failing) / 2)
    const result = await run({ ...failed.setting, most })
    if (result === undefined) break
    if (result.failure === undefined) passing = most
    else {
      best = result
      failing = most
    }
  }
  return best
}

/** A word in the syntax of a shell. */
const quoted = (word: string): string => (/^[\w./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)
