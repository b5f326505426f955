/*
 * `userdma check --torment-search N`: runs a program with N seeds and reports the decisions of one that make it fail.
 *
 * A run fails if the program's exit status is not 0, a signal or the time limit ends it, or there is a finding of
 * severity --fail-on or above. The first runs are without torment: if one fails, no seed is tried, and the search is
 * for the order that cures (cli/check/torment-cure.ts). A decision of torment is one moment at which a device does what
 * hardware rarely does (spec/check/torment.ts). Of the seed that fails with the fewest decisions, all are left out that
 * need not be made for the failure: all kinds but one, kinds, objects, then single ones (base/shrink.ts). Timing
 * decides too, so what two of at most three runs do counts. Then comes the search for the order that decides
 * (cli/check/torment-pair.ts).
 *
 * A signal, or the time of the search, ends it: what was found so far is printed. After a signal the command ends by
 * it.
 */
import os from 'node:os'
import { shrink } from '../../base/shrink.ts'
import { counted } from '../../base/text.ts'
import type { Finding } from '../../spec/check/finding.ts'
import { FOUND_STATUS } from '../../spec/check/severity.ts'
import { decisionKind, MAX_SEED, type TormentHeld, type TormentSetting, tormentText } from '../../spec/check/torment.ts'
import { isHolding, type TormentedRequest } from '../../spec/check/torment-orders.ts'
import { jsonText, printable } from '../../spec/printable.ts'
import type { TormentRecord } from '../../spec/records.ts'
import { differingLines } from '../../tools/check/story/text.ts'
import { type AttemptResult, attempt } from '../attempt.ts'
import { type CheckOptions, createJudge, suppressionFiles } from '../check/judge.ts'
import { sarifDocument } from '../check/sarif.ts'
import { createSymbols, type LookUp } from '../check/symbols.ts'
import { cureSentence, findCure } from '../check/torment-cure.ts'
import {
  findPair,
  orderText,
  type Pair,
  type PairRun,
  type PairSearch,
  pairSentence,
  rulesOf,
} from '../check/torment-pair.ts'
import { integer } from '../command-line/kinds.ts'
import { optionWords } from '../command-line/option.ts'
import { findingOptions } from '../command-line/options.ts'
import { configArguments, fullConfig, orUsageError, parseTorment, wantedConfig } from '../config.ts'
import { onFirstEndSignal } from '../end-signals.ts'
import { joinPrivate, privateDaemons } from '../join.ts'
import { type Output, openOutput, openReport, programFiles, requireDifferentFiles } from '../output-file.ts'
import { packageVersion } from '../paths.ts'
import { endAs, preloadedLibraries, programEnvironment, type Recording } from '../program/program.ts'
import { quoted } from '../program/quoted.ts'
import { createProgress, NO_PROGRESS, type Progress } from '../progress.ts'
import { takeSettings } from '../taken-settings.ts'
import { checkProgram } from './run.ts'

type SearchOptions = CheckOptions & {
  /** The number of seeds to try. */
  readonly tormentSearch: string
  /** Maximum seconds of all runs. */
  readonly searchTime: number
}

/** A run of the program; its `failure` may also be a finding. */
interface Run extends Pick<AttemptResult, 'failure' | 'output'>, PairRun {
  /** Undefined: without torment. */
  readonly setting: TormentSetting | undefined
  /** The decisions of torment, and their texts by identity. */
  readonly decisions: ReadonlyMap<string, string>
}
type TormentedRun = Run & { readonly setting: TormentSetting }

/** Everything that all runs of a search share. */
interface Search {
  readonly program: string
  readonly args: readonly string[]
  readonly options: SearchOptions
  readonly recording: Recording
  /** One at a time. */
  readonly daemons: ReturnType<typeof privateDaemons>
  /** Number of runs, and the longest one that has passed, milliseconds. */
  runs: number
  longestPass: number
  /** Whether a run with the whole time limit has not ended: then a shorter one suffices to tell it. */
  canHang: boolean
  readonly judge: ReturnType<typeof createJudge>
  readonly symbols: LookUp
  /** Whether the runs are asked for the order of their requests. */
  needsOrders: boolean
  readonly output: Output
  readonly progress: Progress
  /** Aborted when the search ends: the reason is a signal, or TIME. */
  readonly stop: AbortSignal
}

/** Without `--time-limit`. */
const DEFAULT_SECONDS = 60

/** What a search has found: the object of --json. */
interface Found {
  readonly seed: number
  /** The decisions that matter; absent: all of the seed, since they are too many to leave out some. */
  readonly only: readonly string[] | undefined
  /** What must come after what, as sentences have it: if that is proven. */
  readonly later?: Pair['later']
  readonly earlier?: Pair['earlier']
  /** Why nothing orders them. */
  readonly clause?: string
  readonly isProven: boolean
  /** The program fails without torment, and passes with `only` and `command`, which hold `later` until `earlier`. */
  readonly isCure?: true
  /** Number of runs of the search. */
  readonly runs: number
  /** Repeats the failure. */
  readonly command: string
}

/** The reason of `Search.stop` if the time of the search is over. */
const TIME = 'time'
/** Of the time of a search, the part after which no further seed is tried if one has failed. */
const SEED_PART = 1 / 3
/** A run may take so many times the longest one that has passed, and so many seconds. */
const TIMES_LONGEST = 3
const LEAST_SECONDS = 2
/** The runs without torment, and at most of each trial. */
const RUNS = 3
/** Runs that measure how often the program fails without torment, and failures that suffice. */
const MEASURED_RUNS = 10
const MEASURED_FAILURES = 3
/** Failed seeds that are tried again. */
const MAX_CANDIDATES = 3
/** With more decisions, it is said how far they were reduced. */
const ENOUGH_DECISIONS = 3
/** With more decisions, their identities are too long for an argument. */
const MAX_DECISIONS = 2000
/** A tag that no program has: a trace with it has the decisions of torment only. */
const NO_PROGRAM = 'torment-search'

/** Of the program's output, so many last lines are printed. */
const LAST_LINES = 5

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
  requireDifferentFiles(
    [
      ['--output', options.output],
      ['--sarif', options.sarif],
    ],
    inputs,
  )
  const output = openOutput(options.output)
  const sarif = options.sarif === undefined ? undefined : openReport(options.sarif)
  const symbols = createSymbols()
  const judge = createJudge(options)
  const stop = new AbortController()
  // A second signal ends the process.
  const removeHandlers = onFirstEndSignal(signal => stop.abort(signal))
  const timer = setTimeout(() => stop.abort(TIME), options.searchTime * 1000)
  const progress = options.json ? NO_PROGRESS : createProgress('userdma check')
  const taken = await takeSettings(options, 'check')
  const search: Search = {
    program,
    args,
    options: taken.options,
    recording,
    daemons: privateDaemons(),
    runs: 0,
    longestPass: 0,
    canHang: false,
    judge,
    symbols,
    needsOrders: false,
    output,
    progress,
    stop: stop.signal,
  }
  let hasFailure: boolean
  try {
    const result = await searchSeeds(search, first, seedCount)
    hasFailure = result !== 'passes'
    const found = hasFailure && result !== 'fails plainly' ? (result as Found) : undefined
    if (options.json && found !== undefined) output.write(`${jsonText({ torment: found })}\n`)
    sarif?.write(`${jsonText(sarifOf(found), 2)}\n`)
    output.close()
  } finally {
    clearTimeout(timer)
    progress.end()
    await symbols.close()
    await search.daemons.close()
    removeHandlers()
    taken.release()
  }
  const signal = endSignal(search)
  const status = hasFailure ? FOUND_STATUS : output.hasFailed ? 1 : 0
  if (signal === undefined) process.exitCode = status
  else endAs({ status: 128 + os.constants.signals[signal], signal })
}

/** The signal that has ended the search. */
const endSignal = ({ stop }: Search): NodeJS.Signals | undefined => (stop.reason === TIME ? undefined : stop.reason)

/** Searches, and prints the result. */
const searchSeeds = async (
  search: Search,
  first: TormentSetting,
  seedCount: number,
): Promise<Found | 'passes' | 'fails plainly'> => {
  const { seed: firstSeed } = first
  const { progress, stop, options } = search
  const begin = performance.now()
  for (let run = 1; run <= RUNS; run++) {
    progress.show(() => `run ${run} of ${RUNS} without torment`)
    const untormented = await runOnce(search, undefined)
    if (untormented?.failure === undefined) continue
    return await searchCure(search, first, untormented)
  }
  const failed: TormentedRun[] = []
  let tried = 0
  progress.show(
    () => `seed ${Math.min(tried + 1, seedCount)} of ${seedCount}, ${counted(failed.length, 'failure')}`,
    () => tried / seedCount,
  )
  const seedTime = options.searchTime * 1000 * SEED_PART
  for (; tried < seedCount && !stop.aborted; tried++) {
    if (failed.length > 0 && performance.now() - begin > seedTime) break
    const result = await runOnce(search, { ...first, seed: firstSeed + tried })
    if (result === undefined) break
    if (result.failure !== undefined) failed.push(result)
  }
  const signal = endSignal(search)
  const until = signal === undefined ? '' : ` until ${signal}`
  const seeds = tried === seedCount ? `${seedCount} seeds` : `${tried} seeds${until}`
  if (failed.length === 0) {
    say(search, `no failure with ${seeds}${tried === 0 ? '' : `, ${firstSeed} to ${firstSeed + tried - 1}`}`)
    return 'passes'
  }
  failed.sort((a, b) => a.decisions.size - b.decisions.size)
  const candidate = (await firstConfirmed(search, failed)) ?? failed[0]!
  const last = await leaveOut(search, candidate)
  const { setting, decisions } = last
  const { seed, only } = setting
  const { pair, failed: fails, passed } = await searchPair(search, setting)
  const isListed = only?.some(id => id.endsWith('*')) === false
  const needed = `${isListed ? '' : 'its '}${counted(decisions.size, 'decision')}`
  say(search, `${failed.length} of ${seeds} fail; seed ${seed} fails with ${needed}${only?.length ? ':' : ''}`)
  for (const id of only ?? []) print(search, `  ${printable(isListed ? `${id}: ${decisions.get(id) ?? ''}` : id)}\n`)
  if (decisions.size > ENOUGH_DECISIONS)
    say(
      search,
      `of ${counted(candidate.decisions.size, 'decision')}; ${stop.aborted ? 'the time was over (--search-time)' : 'fewer did not fail, or are too many to try each'}`,
    )
  sayFailure(search, last)
  if (pair !== undefined) say(search, printable(pairSentence(pair)))
  else if (only !== undefined && only.length > 0) await sayUnproven(search, only, fails, passed)
  const proven = pair === undefined ? setting : { ...setting, only: pair.only }
  await sayRepeats(search, proven)
  const command = await sayCommands(search, proven)
  return {
    ...{ seed, only: proven.only },
    ...(pair && { later: pair.later, earlier: pair.earlier, clause: pair.clause }),
    ...{ isProven: pair !== undefined, runs: search.runs, command },
  }
}

/** The program fails without torment: which order cures it, if one does. `failed`: a run. */
const searchCure = async (search: Search, first: TormentSetting, failed: Run): Promise<Found | 'fails plainly'> => {
  const { progress, symbols } = search
  const setting: TormentSetting = { ...first, kinds: undefined }
  search.needsOrders = true
  let [runs, failures] = [0, 0]
  let last: Run | undefined
  progress.show(() => `how often it fails without torment: run ${runs + 1}`)
  for (; runs < MEASURED_RUNS && failures < MEASURED_FAILURES; runs++) {
    // Objects have names under torment, though it decides nothing.
    const run = await runOnce(search, { ...setting, maxDecisions: 0 })
    if (run === undefined) break
    if (run.failure === undefined) continue
    failures++
    last = run
  }
  const found =
    last &&
    (await findCure(
      last,
      failures,
      runs,
      only => runOnce(search, { ...setting, only }),
      make => symbols.render(known => make(known.framesOf)),
      text => progress.show(() => `${text}: run ${search.runs + 1}`),
    ))
  say(
    search,
    `the program fails without torment, in ${failures} of ${counted(runs, 'further run')}, so no seed was tried`,
  )
  sayFailure(search, last ?? failed)
  const { cure, tried = 0, candidates = 0, needed = 0, late = 0, unproven } = found ?? {}
  if (cure !== undefined) {
    say(search, printable(cureSentence(cure)))
    print(search, `  ${cure.evidence}\n`)
  } else if (last === undefined && runs > 0)
    say(search, 'it fails in less than one of ten runs: too rarely to tell an order that cures it from chance')
  else if (candidates > 0) {
    if (unproven !== undefined) say(search, printable(unproven))
    say(
      search,
      `no order is proven to cure it: ${tried} of ${candidates} were tried${remainingRuns(candidates - tried, needed)}`,
    )
    if (late > 0) say(search, `for ${late} of them, what was awaited did not come in half the ACK timeout`)
    say(search, 'what the program does itself, such as reads of memory and messages by sockets, was not held')
  }
  await sayCommands(search, undefined)
  if (cure === undefined) return 'fails plainly'
  const { later, earlier, clause, only } = cure
  const command = await sayCommands(search, { ...setting, only }, 'let it pass')
  return { seed: setting.seed, only, later, earlier, clause, isProven: true, isCure: true, runs: search.runs, command }
}

/** Of orders that were not tried; `needed`: runs that an order takes that cures. */
const remainingRuns = (orders: number, needed: number): string =>
  orders === 0 ? '' : `; the others take about ${orders + 2 * needed} runs, for which --search-time can be longer`

/** Which order decides, if one does. */
const searchPair = async (search: Search, setting: TormentSetting): Promise<PairSearch> => {
  const { only = [] } = setting
  if (!only.some(isHolding)) return NO_PAIR
  const { symbols, progress } = search
  search.needsOrders = true
  const found = await findPair(
    only,
    async ids => {
      const tried = await trial(search, { ...setting, only: ids })
      return tried && { hasFailed: tried.failed !== undefined, run: tried.last }
    },
    make => symbols.render(known => make(known.framesOf)),
    text => progress.show(() => `${text}: run ${search.runs + 1}`),
  )
  if (found.pair !== undefined || found.passed !== undefined) return found
  // no decision at all
  const passed = await runOnce(search, { ...setting, only: undefined, maxDecisions: 0 })
  return { ...found, passed: passed?.failure === undefined ? passed : undefined }
}

const NO_PAIR: PairSearch = { pair: undefined, failed: undefined, passed: undefined }

/** What decides is no order of two completions, or it is not known which. */
const sayUnproven = async (
  search: Search,
  only: readonly string[],
  failed: PairRun | undefined,
  passed: PairRun | undefined,
): Promise<void> => {
  if (only.some(isHolding)) {
    say(search, 'that an order decides is not proven; a correct program tolerates what the devices did:')
    for (const rule of rulesOf(only)) print(search, `  ${rule}\n`)
    if (failed === undefined || passed === undefined) return
    const titles = ['what happened in a run that fails', 'in a run that passes']
    const stories = await search.symbols.render(known => differingLines(failed.orders, passed.orders, known.framesOf))
    for (const [i, lines] of stories.entries()) {
      if (lines.length === 0) continue
      say(search, `${titles[i]}:`)
      for (const line of lines) print(search, `  ${printable(line)}\n`)
    }
    return
  }
  say(search, 'a correct program tolerates what the devices did:')
  for (const rule of rulesOf(only)) print(search, `  ${rule}\n`)
}

/** The first of the failed runs that fails again: in 2 of at most 3 runs, of which it is one. */
const firstConfirmed = async (search: Search, failed: readonly TormentedRun[]): Promise<TormentedRun | undefined> => {
  for (const candidate of failed.slice(0, MAX_CANDIDATES)) {
    search.progress.show(() => `seed ${candidate.setting.seed} again`)
    if ((await trial(search, candidate.setting, 1))?.failed !== undefined) return candidate
  }
  return undefined
}

/** Runs with this torment until two do the same, or the search ends. `failures`: of runs before. */
const trial = async (
  search: Search,
  setting: TormentSetting,
  failures = 0,
): Promise<{ readonly failed: TormentedRun | undefined; readonly last: TormentedRun } | undefined> => {
  let passes = 0
  for (let runs = failures; runs < RUNS; runs++) {
    const result = await runOnce(search, setting)
    if (result === undefined) return undefined
    if (result.failure === undefined) passes++
    else failures++
    if (passes > 1) return { failed: undefined, last: result }
    if (failures > 1) return { failed: result, last: result }
  }
  return undefined
}

/** Each name once, the rarest first. */
const countsOf = (names: readonly string[]): readonly string[] => {
  const counts = new Map<string, number>()
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1)
  return [...counts].sort(([, a], [, b]) => a - b).map(([name]) => name)
}

/** The object of a decision. */
const objectOf = (id: string): string => id.slice(id.indexOf('/'), id.lastIndexOf('/'))

/** The last run that fails, with as few decisions as possible. */
const leaveOut = async (search: Search, run: TormentedRun): Promise<TormentedRun> => {
  let last = run
  search.progress.show(() => `which decisions matter: ${counted(last.decisions.size, 'decision')} left`)
  const fails = async (only: readonly string[]): Promise<boolean | undefined> => {
    // those without torment have passed
    if (only.length === 0) return false
    const tried = await trial(search, { ...run.setting, only })
    if (tried?.failed === undefined) return tried && false
    last = tried.failed
    return true
  }
  // One kind alone, and of it one object, leave out most, and name the rule.
  for (const group of [decisionKind, (id: string) => `${decisionKind(id)}${objectOf(id)}`]) {
    const names = countsOf([...last.decisions.keys()].map(group))
    if (names.length > 1) for (const name of names) if (await fails([`${name}/*`])) break
  }
  const all = [...last.decisions.keys()]
  // By their identities: what others do may decide too.
  if (all.length <= MAX_DECISIONS && (await fails(all))) await shrink(all, fails, [decisionKind, objectOf])
  return last
}

/** Runs the program again with this torment, and prints how often it failed. */
const sayRepeats = async (search: Search, setting: TormentSetting): Promise<void> => {
  let failures = 0
  let runs = 0
  search.progress.show(() => `the shortest failing run again, ${Math.min(runs + 1, RUNS)} of ${RUNS}`)
  for (; runs < RUNS; runs++) {
    const result = await runOnce(search, setting)
    if (result === undefined) break
    if (result.failure !== undefined) failures++
  }
  if (runs > 0) say(search, `run again, it fails ${failures} of ${runs} times`)
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
  search: Search,
  setting: T,
): Promise<(Run & { readonly setting: T }) | undefined> => {
  const { timeLimit = DEFAULT_SECONDS } = search.options
  const short = Math.max(LEAST_SECONDS, (TIMES_LONGEST * search.longestPass) / 1000)
  if (search.longestPass > 0 && short < timeLimit) {
    const result = await runWithin(search, setting, short)
    // A machine that others use makes a run take longer than those before it: that is no hang.
    if (result?.isTimedOut !== true || search.canHang) return result
  }
  const result = await runWithin(search, setting, timeLimit)
  if (result?.isTimedOut === true) search.canHang = true
  return result
}

/** As `runOnce`, for at most so many seconds. */
const runWithin = async <T extends TormentSetting | undefined>(
  search: Search,
  setting: T,
  seconds: number,
): Promise<(Run & { readonly setting: T; readonly isTimedOut: boolean }) | undefined> => {
  const { program, args, options, recording, judge, symbols, stop, longestPass, daemons } = search
  const decisions = new Map<string, string>()
  const helds = new Map<string, TormentHeld>()
  const onTorment = ({ torment: { id, text, held } }: TormentRecord): void => {
    if (held === undefined) decisions.set(id, text)
    else helds.set(id, held)
  }
  /** Each finding, if it is a failure. */
  const judged: Promise<Finding | undefined>[] = []
  const onFinding = (finding: Finding): void => {
    judged.push(symbols.render(known => (judge(finding, known).action === 'fail' ? finding : undefined)))
  }
  const joined = await joinPrivate(daemons, { ...optionsWith(options, setting), check: true }, { onFinding, onTorment })
  try {
    await joined.client.subscribeFindings()
    if (setting !== undefined) await joined.client.trace(NO_PROGRAM)
    if (stop.aborted) return undefined
    const env = programEnvironment(joined.client.socket, recording)
    const result = await attempt(program, args, env, { seconds, stop })
    if (stop.aborted) return undefined
    // Messages of the session stay in order: all findings have arrived before this reply.
    await joined.client.counts()
    const orders: readonly TormentedRequest[] = search.needsOrders ? await joined.client.orders() : []
    const finding = (await Promise.all(judged)).find(one => one !== undefined)
    const failure = result.failure ?? (finding && `finding ${finding.id}: ${finding.text}`)
    search.runs++
    if (failure === undefined) search.longestPass = Math.max(longestPass, result.duration)
    return {
      setting,
      decisions,
      held: helds,
      orders,
      failure,
      isTimedOut: result.isTimedOut,
      output: result.output,
      ...(finding && { failedAt: finding.time }),
    }
  } finally {
    await joined.leave()
  }
}

// ---- output ----

const print = ({ output, progress, options }: Search, text: string): void => {
  if (options.json) return
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

/** Prints commands that repeat a run and, with torment, trace it; resolves with the first. */
const sayCommands = async (
  search: Search,
  setting: TormentSetting | undefined,
  title = 'repeat it',
): Promise<string> => {
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
  const command = commandLine(['check', ...configArguments(checkConfig), ...checkOptions])
  say(search, `${title}: ${command}`)
  if (setting !== undefined)
    say(search, `what the devices did: ${commandLine(['trace', '--private', ...configArguments(runConfig)])}`)
  return command
}

/** The log of --sarif: the decisions that matter are its result. */
const sarifOf = (found: Found | undefined) => {
  const id = 'torment'
  const rule = {
    ...{ id, title: 'The program fails by what devices may do', level: 'error' },
    why: 'A program that relies on an order or a time that the specification does not promise fails with some adapters, and under load.',
    advice: '`userdma help how-to/torment` says what devices may do, and why a correct program tolerates it.',
  } as const
  const decided = found?.only === undefined ? 'decisions of torment' : found.only.join(' + ')
  const { later, earlier, clause = '' } = found ?? {}
  const order = later && earlier && { later, earlier, clause }
  const text =
    found?.isCure && order
      ? `the program fails without torment; ${cureSentence(order)}; let it pass: ${found.command}`
      : `seed ${found?.seed}: the program fails ${order ? `if ${orderText(order)}` : `by ${decided}`}; repeat it: ${found?.command}`
  const results =
    found === undefined ? [] : [{ id, level: rule.level, text, count: 1, stacks: [], properties: { torment: found } }]
  return sarifDocument('userdma check', packageVersion(), found === undefined ? [] : [rule], results)
}
