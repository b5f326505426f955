/*
 * `userdma run --fault-walk`: runs a program once without faults, then once for each call site, failing the first call,
 * post or completion of that site, and reports crashes, hangs, leaks and swallowed failures (cli/walk/outcome.ts). All runs
 * have one private daemon. Exits with 65 (EX_DATAERR) if it has found any.
 */
import { writeFileSync } from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import type { Finding } from '../../spec/check/finding.ts'
import { FOUND_STATUS } from '../../spec/check/severity.ts'
import { counted } from '../../spec/text.ts'
import { jsonText, printable } from '../../tools/trace/printable.ts'
import { attempt } from '../attempt.ts'
import { createSymbols } from '../check/symbols.ts'
import { orUsageError, parseCount } from '../config.ts'
import { onEndSignal } from '../end-signals.ts'
import { UsageError } from '../fail.ts'
import { type Joined, type JoinOptions, joinDaemon } from '../join.ts'
import { openOutput, openReport, programFiles, requireDifferentFiles } from '../output-file.ts'
import { packageVersion, privateFolder, removeFolder } from '../paths.ts'
import { endAs, preloadedLibraries, programEnvironment } from '../program/program.ts'
import { createProgress, NO_PROGRESS } from '../progress.ts'
import { takeCrashes } from '../walk/crashes.ts'
import { outcomeOf, type WalkResult, type WalkRun } from '../walk/outcome.ts'
import { pointsOf } from '../walk/points.ts'
import { cleanLine, isFinding, resultJson, resultText, summaryText, walkSarif } from '../walk/report.ts'
import { checkProgram } from './run.ts'

export interface WalkOptions extends JoinOptions {
  readonly output?: string
  readonly json?: boolean
  readonly sarif?: string
  /** Maximum number of points. */
  readonly points?: string
  /** Seconds after which no further point is begun. */
  readonly timeLimit?: string
  /** Seconds after which a run counts as hanging. */
  readonly hang?: string
}

const DEFAULT_POINTS = 200
const MAX_POINTS = 4096
const DEFAULT_SECONDS = 600
const MAX_SECONDS = 86_400
/** Of the run without faults. */
const CLEAN_SECONDS = 600
/** A run hangs after so many times the clean run, and so many seconds more: peers retry, and time out. */
const HANG = { factor: 3, seconds: 10 } as const
/** Milliseconds in which processes that hang write their stacks. */
const QUIT_TIME = 2000

interface Walk {
  readonly program: string
  readonly args: readonly string[]
  /** The fault rules of all runs. */
  readonly rules: string
  readonly stop: AbortSignal
  /** The file for crash records. */
  readonly crashes: string
  readonly joined: Joined
  /** Leaks of the current run. */
  readonly leaks: Finding[]
}

/** Runs the program once. `rule`: the fault rule; empty for none. */
const runOnce = async (
  { program, args, rules, stop, crashes, joined: { client }, leaks }: Walk,
  rule: string,
  seconds: number,
): Promise<WalkRun> => {
  await client.faults([rules, rule].filter(Boolean).join(';'))
  await client.beginSurvey()
  leaks.length = 0
  writeFileSync(crashes, '')
  const env = programEnvironment(client.socket, { stacks: true, crashes })
  const result = await attempt(program, args, env, { seconds, stop, quitMilliseconds: QUIT_TIME })
  // Waits for the end of the program's objects; messages stay in order, so all findings have arrived before this reply.
  await client.counts()
  const { sites, failed } = await client.survey()
  const faults = rule === '' ? [] : await client.faults()
  // A program that ends at once leaves all to the system; one that has destroyed objects has tried to clean up.
  const isCleaning = failed !== undefined && failed.destroyed > 0
  return {
    result,
    sites,
    records: takeCrashes(crashes),
    leaks: isCleaning ? leaks.filter(({ program }) => program?.pid === failed.pid) : [],
    injected: faults.at(-1)?.injected ?? 0,
  }
}

/** The numbers in the options. Throws UsageError. */
const parseNumbers = ({ points, timeLimit, hang }: WalkOptions) =>
  orUsageError(() => ({
    maxPoints: points === undefined ? DEFAULT_POINTS : parseCount('--points', points, MAX_POINTS),
    seconds: timeLimit === undefined ? DEFAULT_SECONDS : parseCount('--time-limit', timeLimit, MAX_SECONDS),
    hang: hang === undefined ? undefined : parseCount('--hang', hang, MAX_SECONDS),
  }))

/** The command. Throws UsageError. */
export const faultWalk = async (program: string, args: readonly string[], options: WalkOptions): Promise<void> => {
  const numbers = await parseNumbers(options)
  if (options.socket !== undefined)
    throw new UsageError('--fault-walk and --socket exclude each other: the runs have a daemon of their own')
  checkProgram(program, args)
  // Throws if a library is missing, before a daemon is started.
  preloadedLibraries({ stacks: true })
  const outputs = [
    ['--output', options.output],
    ['--sarif', options.sarif],
  ] as const
  requireDifferentFiles(outputs, programFiles(program, args))
  const output = openOutput(options.output)
  const sarif = options.sarif === undefined ? undefined : openReport(options.sarif)
  const symbols = createSymbols()
  const folder = privateFolder()
  const stop = new AbortController()
  // A second signal ends the process.
  const removeHandlers = onEndSignal(signal => {
    removeHandlers()
    stop.abort(signal)
  })
  const leaks: Finding[] = []
  const onFinding = (finding: Finding): void => {
    if (finding.id === 'leak' && !finding.wasKilled) leaks.push(finding)
  }
  const joined = await joinDaemon({ ...options, private: true, check: true }, { onFinding })
  const { fault: rules } = await joined.client.config()
  const walk: Walk = { program, args, rules, stop: stop.signal, crashes: join(folder, 'crashes'), joined, leaks }
  const begin = performance.now()
  const results: WalkResult[] = []
  const progress = options.json ? NO_PROGRESS : createProgress('userdma run')
  const print = (text: string): void => {
    progress.clear()
    output.write(text)
  }
  try {
    progress.show(() => 'fault walk: a run without faults')
    await joined.client.subscribeFindings()
    const clean = await runOnce(walk, '', CLEAN_SECONDS)
    if (clean.result.failure !== undefined && !stop.signal.aborted) {
      progress.end()
      process.stderr.write(
        `userdma run: ${printable(program)} fails without faults (${clean.result.failure}), so no fault was injected; its last output:\n${printable(clean.result.output)}\n`,
      )
      process.exitCode = 1
      return
    }
    const points = pointsOf(clean.sites)
    if (!options.json) print(cleanLine(clean, points.length))
    const hang = numbers.hang ?? Math.ceil((HANG.factor * clean.result.duration) / 1000 + HANG.seconds)
    const walked = points.slice(0, numbers.maxPoints)
    progress.show(
      () =>
        `fault walk: point ${Math.min(results.length + 1, walked.length)} of ${walked.length}, ${counted(results.filter(isFinding).length, 'finding')}`,
      () => results.length / walked.length,
    )
    for (const point of walked) {
      if (stop.signal.aborted || performance.now() - begin > numbers.seconds * 1000) break
      const run = await runOnce(walk, point.rule, hang)
      if (stop.signal.aborted) break
      const result: WalkResult = { point, outcome: outcomeOf(point, clean, run), run }
      results.push(result)
      if (options.json) print(`${jsonText(resultJson(result, symbols))}\n`)
      else if (isFinding(result)) print(resultText(result, symbols, [program, ...args], options))
    }
    progress.end()
    if (!options.json) print(summaryText(results, points.length, performance.now() - begin))
    sarif?.write(`${jsonText(walkSarif(results, symbols, packageVersion()), 2)}\n`)
    output.close()
  } finally {
    progress.end()
    removeHandlers()
    removeFolder(folder)
    await joined.leave()
  }
  const signal: NodeJS.Signals | undefined = stop.signal.reason
  if (signal !== undefined) endAs({ status: 128 + os.constants.signals[signal], signal })
  else if (results.some(isFinding)) process.exitCode = FOUND_STATUS
  else process.exitCode = output.hasFailed || sarif?.hasFailed === true ? 1 : 0
}
