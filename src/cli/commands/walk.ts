/*
 * `userdma walk`: runs a program once without failures, then once for each single failure of the kinds that are asked
 * for, and reports crashes, hangs, swallowed failures and what else it finds (cli/walk/). Exits with 65 (EX_DATAERR) if
 * it has found any.
 */
import os, { availableParallelism } from 'node:os'
import { counted } from '../../base/text.ts'
import { FOUND_STATUS } from '../../spec/check/severity.ts'
import { jsonText, printable } from '../../spec/printable.ts'
import type { ClockKind } from '../../uapi/tool.ts'
import { createSymbols } from '../check/symbols.ts'
import { paintedWord, paintFor } from '../colors.ts'
import type { OptionsOf } from '../command-line/option.ts'
import { MAX_JOBS, type netWalkOptions, type programWalkOptions } from '../command-line/options.ts'
import { onFirstEndSignal } from '../end-signals.ts'
import { UsageError } from '../fail.ts'
import { openOutput, openReport, programFiles, requireDifferentFiles } from '../output-file.ts'
import { packageVersion } from '../paths.ts'
import { endAs, preloadedLibraries } from '../program/program.ts'
import { createProgress, NO_PROGRESS } from '../progress.ts'
import { takeSettings } from '../taken-settings.ts'
import type { WalkResult } from '../walk/outcome.ts'
import { walkHtml } from '../walk/page.ts'
import type { WalkPlan } from '../walk/points.ts'
import {
  cleanLine,
  framesOf,
  isFinding,
  lineOf,
  resultJson,
  resultText,
  severityOf,
  summaryText,
  tableText,
  walkSarif,
} from '../walk/report.ts'
import { noReport, readReport } from '../walk/since.ts'
import { commandStage, type Stage } from '../walk/stage.ts'
import { CleanRunError, walk } from '../walk/walk.ts'
import { walkKindNames } from '../walk/walk-kinds.ts'
import { checkProgram } from './run.ts'

/** The options of a walk, also of a net. */
export type WalkOptions = OptionsOf<typeof netWalkOptions>

/** A run keeps a daemon and a program busy. */
const PROCESSORS_PER_JOB = 2

/** How the runs of a walk are made. */
interface WalkWay {
  /** Findings are tried again. */
  readonly isConfirmed: boolean
  /** Made when the walk begins. */
  stage(jobs: number, stop: AbortSignal): Promise<Stage & { close?(): Promise<void> }>
}

/** `name`: of the program, for messages. */
interface WalkSubject extends WalkWay {
  readonly name: string
  readonly inputs: readonly (readonly [string, string])[]
  /** Runs at a time, by default. */
  readonly defaultJobs: number
  /** For a program that fails without failures: another way, and what it is. */
  readonly otherwise?: WalkWay & { readonly text: string }
}

const LABEL = 'userdma walk'

/**
 * Walks, reports, and sets the exit status, or returns the signal that has stopped it, by which the caller ends. Throws
 * UsageError.
 */
export const walkAndReport = async (
  subject: WalkSubject,
  options: WalkOptions,
): Promise<NodeJS.Signals | undefined> => {
  const { jobs = subject.defaultJobs, points, timeLimit, hang, timers: factor = 1 } = options
  const kinds = walkKindNames.filter(kind => options.kinds?.includes(kind) ?? true)
  const limits = { kinds, points, hang, factor, seconds: timeLimit, stopped: 1000 * options.stopped }
  const symbols = createSymbols()
  const since = options.since === undefined ? noReport : readReport(options.since, symbols)
  const outputs = [
    ['--output', options.output],
    ['--sarif', options.sarif],
    ['--html', options.html],
    ['--summary', options.summary],
  ] as const
  const inputs = options.since === undefined ? [] : [['--since', options.since] as const]
  requireDifferentFiles(outputs, [...subject.inputs, ...inputs])
  const output = openOutput(options.output)
  const sarif = options.sarif === undefined ? undefined : openReport(options.sarif)
  const page = options.html === undefined ? undefined : openReport(options.html)
  const summary = options.summary === undefined ? undefined : openReport(options.summary)
  const stop = new AbortController()
  // A second signal ends the process.
  const removeHandlers = onFirstEndSignal(signal => stop.abort(signal))
  const begin = performance.now()
  const results: WalkResult[] = []
  // Beside JSON on standard error there is no room.
  const isShown = !options.json || options.output !== undefined
  const progress = isShown ? createProgress(LABEL) : NO_PROGRESS
  const paint = paintFor(options, options.output === undefined ? process.stderr : undefined)
  const print = (text: string): void => {
    progress.clear()
    output.write(text)
  }
  let stage: Awaited<ReturnType<WalkWay['stage']>> | undefined
  /** `plan`: undefined if the run without failures was interrupted. */
  const report = async (plan: WalkPlan | undefined): Promise<void> => {
    const interruption: unknown = stop.signal.aborted ? stop.signal.reason : undefined
    const interruptedBy = typeof interruption === 'string' ? interruption : undefined
    const found = results.filter(isFinding)
    const fresh = found.filter(since.isNew)
    const sinceText =
      options.since === undefined
        ? ''
        : `${LABEL}: since ${options.since}: ${counted(fresh.length, 'new finding')}, ${found.length - fresh.length} known, ${since.mended(results)} mended\n`
    const milliseconds = performance.now() - begin
    const facts = { plan, milliseconds, factor: limits.factor, interruptedBy }
    const last = summaryText(LABEL, results, facts) + sinceText
    const texts = await symbols.render(known => ({
      table: options.json ? '' : tableText(results, known, paint) + last,
      summary: summary && tableText(fresh, known) + last,
      page: page && walkHtml(subject.name, { results, summary: last, interruptedBy }, known, stage),
      sarif: sarif && walkSarif(results, known, packageVersion()),
    }))
    if (!options.json) print(texts.table)
    // What is on the terminal ends with a line too.
    if (options.output !== undefined) process.stderr.write(last.replace(/^ .*\n/gm, ''))
    if (texts.summary !== undefined) summary?.write(texts.summary)
    if (texts.page !== undefined) page?.write(texts.page)
    if (texts.sarif !== undefined) sarif?.write(`${jsonText(texts.sarif, 2)}\n`)
  }
  const walkBy = async ({ isConfirmed, stage: make }: WalkWay): ReturnType<typeof walk> => {
    progress.show(() => 'a run without failures')
    stage = await make(jobs, stop.signal)
    return walk(
      stage,
      {
        ...limits,
        isConfirmed,
        jobs,
        first: since.isFirst,
        lineOf: point => lineOf(point, symbols),
        stop: stop.signal,
      },
      {
        async planned(clean, plan) {
          // The points are tried in turns of their lines (`lineOf`).
          await symbols.render(known => plan.points.map(point => framesOf(point, known)))
          if (!options.json) print(cleanLine(LABEL, clean, plan))
          const most = Math.min(plan.points.length, limits.points)
          progress.show(
            () =>
              `point ${Math.min(results.length + 1, most)} of ${most}, ${counted(results.filter(isFinding).length, 'finding')}`,
            () => results.length / Math.max(most, 1),
          )
        },
        async finished(result) {
          results.push(result)
          if (options.json) print(`${jsonText(await symbols.render(known => resultJson(result, known)))}\n`)
          else if (isFinding(result)) {
            const text = await symbols.render(known => resultText(LABEL, result, known, stage!))
            print(paintedWord(text, result.outcome, severityOf(result.outcome) ?? 'error', paint))
          }
        },
      },
    )
  }
  const { otherwise } = subject
  try {
    const walked = await walkBy(subject).catch(async error => {
      if (otherwise === undefined || !(error instanceof CleanRunError)) throw error
      await stage?.close?.()
      progress.clear()
      if (isShown)
        process.stderr.write(
          `${LABEL}: ${printable(subject.name)} fails without failures (${error.result.failure}), so the walk ${otherwise.text}\n`,
        )
      return walkBy(otherwise)
    })
    progress.end()
    if (walked !== undefined) results.splice(0, results.length, ...walked.results)
    await report(walked?.plan)
    output.close()
  } catch (error) {
    progress.end()
    // When it is stopped, a stage may not begin.
    if (stop.signal.aborted) {
      await report(undefined)
      output.close()
    } else {
      if (!(error instanceof CleanRunError)) throw error
      process.stderr.write(
        `${LABEL}: ${printable(subject.name)} fails without failures (${error.result.failure}), so none was made; its last output:\n${printable(error.result.output)}\n`,
      )
      process.exitCode = 1
      return undefined
    }
  } finally {
    progress.end()
    await symbols.close()
    removeHandlers()
    await stage?.close?.()
  }
  if (stop.signal.aborted) return stop.signal.reason
  if (results.some(isFinding)) process.exitCode = FOUND_STATUS
  else process.exitCode = output.hasFailed || [sarif, page, summary].some(file => file?.hasFailed) ? 1 : 0
  return undefined
}

/** The command. Throws UsageError. */
export const walkProgram = async (
  program: string,
  args: readonly string[],
  { timers, ...options }: OptionsOf<typeof programWalkOptions>,
): Promise<void> => {
  checkProgram(program, args)
  // Throws if a library is missing, before a daemon is started.
  preloadedLibraries({ stacks: true })
  const walkOptions = { ...options, ...(timers !== undefined && { timers }) }
  const { jobs = 1 } = options
  const taken = await takeSettings(options, 'walk')
  let signal: NodeJS.Signals | undefined
  try {
    const { output: _output, json: _json, sarif: _sarif, html: _html, summary: _summary, ...others } = taken.options
    const { link = 'memory' } = others
    const maxJobs = link === 'memory' ? MAX_JOBS : 1
    if (jobs > maxJobs)
      throw new UsageError(
        `--jobs ${jobs} needs --link memory: over ${link} only one daemon at a time can have the devices' addresses`,
      )
    const wayBy = (clock: ClockKind): WalkWay => ({
      isConfirmed: clock === 'real',
      stage: async (jobs, stop) =>
        commandStage({ program, args, options: { ...others, clock }, isIsolated: jobs > 1, stop }),
    })
    // Shorter timers are of no use to a clock that skips.
    const isByDefault = others.clock === undefined && timers === undefined
    signal = await walkAndReport(
      {
        name: program,
        inputs: programFiles(program, args).flatMap(([what, name]) =>
          name === undefined ? [] : [[what, name] as const],
        ),
        defaultJobs: Math.min(maxJobs, Math.max(1, Math.floor(availableParallelism() / PROCESSORS_PER_JOB))),
        ...(isByDefault
          ? { ...wayBy('skip'), otherwise: { ...wayBy('real'), text: 'takes real time (--clock real)' } }
          : wayBy(others.clock ?? 'real')),
      },
      walkOptions,
    )
  } finally {
    taken.release()
  }
  if (signal !== undefined) endAs({ status: 128 + os.constants.signals[signal], signal })
}
