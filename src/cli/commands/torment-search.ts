/*
 * `userdma check --torment-search N`: runs a program with N seeds and reports the shortest run that fails.
 *
 * A run fails if the program's exit status is not 0, a signal or the time limit ends it, or there is a finding of
 * severity --fail-on or above. The first run is without torment: if it fails, there is nothing to search. A decision of
 * torment is one moment at which a device does what hardware rarely does (spec/check/torment.ts); the shortest run is
 * the one with the fewest decisions. A bisection finds the smallest COUNT for which the run still fails with only the
 * first COUNT decisions of its seed (`--torment SEED:COUNT`): the last of these is probably the cause. That run is
 * repeated, since timing may decide too.
 *
 * A signal ends the search: what was found so far is printed, then the command ends by the signal.
 */
import os from 'node:os'
import type { Finding } from '../../spec/check/finding.ts'
import { FOUND_STATUS } from '../../spec/check/severity.ts'
import { MAX_SEED, type TormentSetting, tormentText } from '../../spec/check/torment.ts'
import { printable } from '../../spec/printable.ts'
import { counted } from '../../spec/text.ts'
import { type AttemptResult, attempt } from '../attempt.ts'
import { type CheckOptions, createJudge, suppressionFiles } from '../check/judge.ts'
import { createSymbols } from '../check/symbols.ts'
import { integer } from '../command-line/kinds.ts'
import { optionWords } from '../command-line/option.ts'
import { findingOptions } from '../command-line/options.ts'
import { configArguments, fullConfig, orUsageError, parseTorment, wantedConfig } from '../config.ts'
import { onFirstEndSignal } from '../end-signals.ts'
import { joinDaemon } from '../join.ts'
import { type Output, openOutput, programFiles, requireDifferentFiles } from '../output-file.ts'
import { endAs, preloadedLibraries, programEnvironment, type Recording } from '../program/program.ts'
import { quoted } from '../program/quoted.ts'
import { createProgress, type Progress } from '../progress.ts'
import { takeSettings } from '../taken-settings.ts'
import { checkProgram } from './run.ts'

type SearchOptions = CheckOptions & {
  /** The number of seeds to try. */
  readonly tormentSearch: string
  /** Maximum seconds of one run. */
  readonly timeLimit: number
}

/** A run of the program; its `failure` may also be a finding. */
interface Run extends Pick<AttemptResult, 'failure' | 'output'> {
  /** Undefined: without torment. */
  readonly setting: TormentSetting | undefined
  /** Number of decisions of torment. */
  readonly decisions: number
}
type TormentedRun = Run & { readonly setting: TormentSetting }

/** Everything that all runs of a search share. */
interface Search {
  readonly program: string
  readonly args: readonly string[]
  readonly options: SearchOptions
  readonly recording: Recording
  /** Maximum seconds of one run. */
  readonly limitSeconds: number
  readonly judge: ReturnType<typeof createJudge>
  readonly output: Output
  readonly progress: Progress
  /** Aborted when a signal ends the search; the reason is the signal. */
  readonly stop: AbortSignal
}

/** Of the program's output, so many last lines are printed. */
const LAST_LINES = 5
/** How often the shortest failing run is repeated, unless a signal ends the search. */
const REPEATS = 2

/** The seeds. Throws UsageError. */
const parseSeeds = ({ torment, tormentKinds, tormentSearch }: SearchOptions) =>
  orUsageError(() => {
    const first = parseTorment(torment ?? '1', tormentKinds)
    if (first.maxDecisions !== Number.POSITIVE_INFINITY || first.only !== undefined)
      throw new Error(`--torment "${torment}": with --torment-search give the first seed, without a COUNT or "only"`)
    return { first, seedCount: integer(1, MAX_SEED - first.seed + 1).read(tormentSearch, '--torment-search') }
  })

/** The command. Throws UsageError. */
export const tormentSearch = async (
  program: string,
  args: readonly string[],
  options: SearchOptions,
): Promise<void> => {
  const { first, seedCount } = await parseSeeds(options)
  checkProgram(program, args)
  const recording = { stacks: true, events: options.races === true }
  // Throws if a library is missing, before a daemon is started.
  preloadedLibraries(recording)
  const inputs = [...suppressionFiles(options), ...programFiles(program, args)]
  requireDifferentFiles([['--output', options.output]], inputs)
  const output = openOutput(options.output)
  const judge = createJudge(options, createSymbols())
  const stop = new AbortController()
  // A second signal ends the process.
  const removeHandlers = onFirstEndSignal(signal => stop.abort(signal))
  const progress = createProgress('userdma check')
  const taken = await takeSettings(options, 'check')
  const search = {
    program,
    args,
    options: taken.options,
    recording,
    limitSeconds: options.timeLimit,
    judge,
    output,
    progress,
    stop: stop.signal,
  }
  let hasFailure: boolean
  try {
    hasFailure = await searchSeeds(search, first, seedCount)
    output.close()
  } finally {
    progress.end()
    removeHandlers()
    taken.release()
  }
  const signal = endSignal(search)
  const status = hasFailure ? FOUND_STATUS : output.hasFailed ? 1 : 0
  if (signal === undefined) process.exitCode = status
  else endAs({ status: 128 + os.constants.signals[signal], signal })
}

/** The signal that has ended the search. */
const endSignal = ({ stop }: Search): NodeJS.Signals | undefined => stop.reason

/** Searches, and prints the result. Resolves with whether a run failed, with or without torment. */
const searchSeeds = async (search: Search, first: TormentSetting, seedCount: number): Promise<boolean> => {
  const { seed: firstSeed } = first
  const { progress } = search
  progress.show(() => 'a run without torment')
  const untormented = await runOnce(search, undefined)
  if (untormented?.failure !== undefined) {
    say(search, 'the program fails without torment, so no seed was tried')
    sayFailure(search, untormented)
    await sayCommands(search, undefined)
    return true
  }
  const failed: TormentedRun[] = []
  let tried = 0
  progress.show(
    () => `seed ${Math.min(tried + 1, seedCount)} of ${seedCount}, ${counted(failed.length, 'failure')}`,
    () => tried / seedCount,
  )
  for (; tried < seedCount && endSignal(search) === undefined; tried++) {
    const result = await runOnce(search, { ...first, seed: firstSeed + tried })
    if (result === undefined) break
    if (result.failure !== undefined) failed.push(result)
  }
  const signal = endSignal(search)
  const seeds = signal === undefined ? `${seedCount} seeds` : `${tried} seeds until ${signal}`
  const [fewest] = failed.sort((a, b) => a.decisions - b.decisions)
  if (fewest === undefined) {
    say(search, `no failure with ${seeds}${tried === 0 ? '' : `, ${firstSeed} to ${firstSeed + tried - 1}`}`)
    return false
  }
  const shortest = await shorten(search, fewest)
  const text = tormentText(shortest.setting)
  say(
    search,
    `${failed.length} of ${seeds} fail; the shortest is --torment ${text} with ${shortest.decisions} decisions`,
  )
  sayFailure(search, shortest)
  await repeat(search, shortest.setting)
  await sayCommands(search, shortest.setting)
  return true
}

/**
 * Finds by bisection the smallest number of decisions with which the run still fails. The result is a run that did
 * fail: if another run passes by chance, the result is longer than necessary, and not wrong.
 */
const shorten = async (search: Search, failed: TormentedRun): Promise<TormentedRun> => {
  let shortest = failed
  // -1: a run without any decision is tried too, because it may fail by chance.
  let passing = -1
  let failing = failed.decisions
  search.progress.show(() => {
    const left = Math.ceil(Math.log2(failing - passing))
    return `the shortest failing run is searched, at most ${counted(left, 'run')} left`
  })
  while (failing - passing > 1) {
    const maxDecisions = Math.floor((passing + failing) / 2)
    const result = await runOnce(search, { ...failed.setting, maxDecisions })
    if (result === undefined) break
    if (result.failure === undefined) passing = maxDecisions
    else {
      shortest = result
      failing = maxDecisions
    }
  }
  return shortest
}

/** Runs the program REPEATS times with this torment, and prints how often it failed. */
const repeat = async (search: Search, setting: TormentSetting): Promise<void> => {
  let failures = 0
  let repeats = 0
  search.progress.show(() => `the shortest failing run again, ${Math.min(repeats + 1, REPEATS)} of ${REPEATS}`)
  for (; repeats < REPEATS; repeats++) {
    const result = await runOnce(search, setting)
    if (result === undefined) break
    if (result.failure !== undefined) failures++
  }
  if (repeats > 0) say(search, `run again, it fails ${failures} of ${repeats} times`)
}

/** The options of the command, with this torment. */
const optionsWith = (
  { torment: _, tormentKinds: __, ...options }: SearchOptions,
  setting: TormentSetting | undefined,
): SearchOptions => ({
  ...options,
  ...(setting && { torment: tormentText(setting) }),
})

/** Runs the program once, under a daemon of its own. Undefined if the search was ended by a signal. */
const runOnce = async <T extends TormentSetting | undefined>(
  { program, args, options, recording, limitSeconds, judge, stop }: Search,
  setting: T,
): Promise<(Run & { readonly setting: T }) | undefined> => {
  const found: Finding[] = []
  const onFinding = (finding: Finding): void => {
    if (judge(finding).action === 'fail') found.push(finding)
  }
  const joined = await joinDaemon({ ...optionsWith(options, setting), private: true, check: true }, { onFinding })
  try {
    await joined.client.subscribeFindings()
    if (stop.aborted) return undefined
    const env = programEnvironment(joined.client.socket, recording)
    const result = await attempt(program, args, env, { seconds: limitSeconds, stop })
    if (stop.aborted) return undefined
    // Messages of the session stay in order: all findings have arrived before this reply.
    const { decisions = 0 } = await joined.client.counts()
    const [finding] = found
    const failure = result.failure ?? (finding && `finding ${finding.id}: ${finding.text}`)
    return { setting, decisions, failure, output: result.output }
  } finally {
    await joined.leave()
  }
}

// ---- output ----

const print = ({ output, progress }: Search, text: string): void => {
  progress.clear()
  output.write(text)
}
const say = (search: Search, line: string): void => print(search, `userdma check: ${line}\n`)

/** Prints why a run failed, and the last lines of its output. */
const sayFailure = (search: Search, { failure = '', output: printed }: Run): void => {
  say(search, printable(failure))
  const lines = printed.trim().split('\n').slice(-LAST_LINES).filter(Boolean)
  for (const line of lines) print(search, `  ${printable(line)}\n`)
}

/** Prints commands that repeat a run and, with torment, trace it. */
const sayCommands = async (search: Search, setting: TormentSetting | undefined): Promise<void> => {
  const { program, args, options } = search
  const commandLine = (words: readonly string[]): string =>
    ['userdma', ...words, '--', program, ...args].map(quoted).join(' ')
  // `trace` has neither `--like` (`adapters`) nor `--buffers`.
  const { adapters, buffers, ...config } = fullConfig(await wantedConfig(optionsWith(options, setting)))
  // Default devices need no option.
  const runConfig = options.device === undefined ? { ...config, devices: [] } : config
  const checkConfig = { ...runConfig, ...(adapters && { adapters }), ...(buffers && { buffers }) }
  const { races, failOn, suppressions, defaultSuppressions } = findingOptions
  const checkOptions = optionWords({ races, failOn, suppressions, defaultSuppressions }, options)
  say(search, `repeat it: ${commandLine(['check', ...configArguments(checkConfig), ...checkOptions])}`)
  if (setting === undefined) return
  say(search, `what the devices did: ${commandLine(['trace', '--private', ...configArguments(runConfig)])}`)
}
