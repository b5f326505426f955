/*
 * A walk: a run without failures, then one for each point, several at a time. With the machine's clock a finding is
 * confirmed with full timers: it is one if 2 of 3 runs have the same outcome, and else it happens sometimes.
 */

import type { AttemptResult } from '../attempt.ts'
import { CLEAN_RUNS, commonRun, isAlike } from './clean.ts'
import { inTurns } from './order.ts'
import { judge, type Outcome, type WalkResult, type WalkRun } from './outcome.ts'
import { planWalk, type WalkPlan, type WalkPoint } from './points.ts'
import { isFindingOutcome } from './report.ts'
import type { Stage } from './stage.ts'
import type { WalkKind } from './walk-kinds.ts'

interface WalkLimits {
  readonly kinds: readonly WalkKind[]
  /** Most points that are tried. */
  readonly points: number
  /** Seconds after which no further point is begun. */
  readonly seconds: number
  /** Seconds after which a run hangs; undefined: from the run without failures. */
  readonly hang: number | undefined
  /** What times of retries are multiplied by in the first run of each point. */
  readonly factor: number
  /** Findings are tried again, since a run may be late on a busy machine. */
  readonly isConfirmed: boolean
  /** Runs at a time. */
  readonly jobs: number
  /** Milliseconds for which processes are stopped. */
  readonly stopped: number
  /** Points of these texts and places come first: what was new or changed. */
  readonly first: (point: WalkPoint) => boolean
  /** The source line of a point, or what stands for it. */
  readonly lineOf: (point: WalkPoint) => string
  readonly stop: AbortSignal
}

/** A run hangs after so many times the run without failures, and so many seconds more: peers retry, and time out. */
const HANG = { factor: 3, seconds: 10 } as const
/** A run of a program that takes longer than `WalkLimits.hang` hangs after so many times the run without failures. */
const LEAST_HANG = 2
/** Runs of a finding, and how many of them have the same outcome if it is one. */
const CONFIRMATION = { runs: 3, times: 2 } as const

/** A walk that has time for fewer runs than this makes one without failures only. */
const LEAST_RUNS = 20

/** How often a point is tried to which the program does not come. */
const REACHING = 3

/** What is told while a walk runs. */
interface WalkListener {
  planned(clean: WalkRun, plan: WalkPlan): Promise<void>
  finished(result: WalkResult): Promise<void>
}

interface Walked {
  readonly clean: WalkRun
  readonly plan: WalkPlan
  readonly results: readonly WalkResult[]
}

/** The run without failures has failed. */
export class CleanRunError extends Error {
  override readonly name = 'CleanRunError'
  readonly result: AttemptResult

  constructor(result: AttemptResult) {
    super(result.failure)
    this.result = result
  }
}

/** Walks. Undefined: stopped before the run without failures ended. Throws CleanRunError. */
export const walk = async (stage: Stage, limits: WalkLimits, listener: WalkListener): Promise<Walked | undefined> => {
  const { kinds, factor, jobs, stopped, stop } = limits
  const { now = () => performance.now() } = stage
  const begin = now()
  const runs: WalkRun[] = []
  /** Undefined: stopped. A run that is stopped may throw. */
  const unlessStopped = async (running: Promise<WalkRun>): Promise<WalkRun | undefined> => {
    const run = await running.catch(error => {
      if (stop.aborted) return undefined
      throw error
    })
    return stop.aborted ? undefined : run
  }
  // Long runs leave no time for several.
  const isShort = (): boolean => now() - begin < (limits.seconds * 1000) / LEAST_RUNS
  while (
    runs.length === 0 ||
    (runs.length < CLEAN_RUNS && isShort() && !(runs.length > 1 && isAlike(runs[0]!, runs[1]!)))
  ) {
    const run = await unlessStopped(stage.run(undefined, { seconds: limits.seconds, factor: 1 }))
    if (run === undefined) return undefined
    if (run.result.failure !== undefined) throw new CleanRunError(run.result)
    runs.push(run)
  }
  const { run: clean, left } = commonRun(runs as [WalkRun, ...WalkRun[]])
  const plan = planWalk(clean.sites, clean.counts, {
    kinds,
    stopped,
    hasRestarts: stage.hasRestarts === true,
    retries: clean.facts.retries,
    varying: left,
    ports: clean.ports,
    outages: stage.outages,
  })
  await listener.planned(clean, plan)
  const ordered = inTurns(plan.points, limits.lineOf)
  const queue = [...ordered.filter(limits.first), ...ordered.filter(point => !limits.first(point))].slice(
    0,
    limits.points,
  )
  const duration = clean.result.duration / 1000
  const patience =
    limits.hang === undefined ? HANG.factor * duration + HANG.seconds : Math.max(limits.hang, LEAST_HANG * duration)
  const hang = (point: WalkPoint, runFactor: number): number => Math.ceil(point.lasts(runFactor) / 1000 + patience)
  const isOver = (): boolean => stop.aborted || now() - begin > limits.seconds * 1000

  const runOnce = async (point: WalkPoint, runFactor: number, attempts = REACHING): Promise<WalkResult | undefined> => {
    const runLimits = { seconds: hang(point, runFactor), factor: runFactor }
    // On a busy machine a daemon may not start: one run should not end the walk.
    const run = await unlessStopped(
      stage.run(point, runLimits).catch(error => {
        if (stop.aborted) throw error
        return stage.run(point, runLimits)
      }),
    )
    if (run === undefined) return undefined
    // In another order of threads or packets the program may come to the site.
    return run.injected === 0 && attempts > 1 ? runOnce(point, runFactor, attempts - 1) : judge(point, clean, run)
  }

  /** A confirmed result. A walk that is out of time confirms what it has begun. */
  const confirm = async (first: WalkResult): Promise<WalkResult | undefined> => {
    const runs: WalkResult[] = factor === 1 ? [first] : []
    const most = (): { readonly outcome: Outcome; readonly times: number } => {
      const counts = new Map<Outcome, number>()
      for (const { outcome } of runs) counts.set(outcome, (counts.get(outcome) ?? 0) + 1)
      const [[outcome, times] = [first.outcome, 0]] = [...counts].sort((a, b) => b[1] - a[1])
      return { outcome, times }
    }
    while (runs.length < CONFIRMATION.runs && most().times < CONFIRMATION.times) {
      const run = await runOnce(first.point, 1)
      if (run === undefined) return undefined
      runs.push(run)
    }
    const { outcome, times } = most()
    const found = runs.find(run => isFindingOutcome(run.outcome))
    if (times >= CONFIRMATION.times) {
      const result = runs.find(run => run.outcome === outcome)!
      // Of the other outcome there was one run at most.
      if (isFindingOutcome(outcome) || found === undefined)
        return isFindingOutcome(outcome) ? { ...result, confirmed: { times, runs: runs.length } } : result
    }
    return {
      ...(found ?? first),
      confirmed: { times: runs.filter(run => run.outcome === found?.outcome).length, runs: runs.length },
    }
  }

  const results: WalkResult[] = []
  const work = async (): Promise<void> => {
    for (
      let point = isOver() ? undefined : queue.shift();
      point !== undefined;
      point = isOver() ? undefined : queue.shift()
    ) {
      const first = await runOnce(point, factor)
      const result = first && limits.isConfirmed && isFindingOutcome(first.outcome) ? await confirm(first) : first
      if (result === undefined) return
      results.push(result)
      await listener.finished(result)
    }
  }
  await Promise.all(Array.from({ length: jobs }, work))
  const order = new Map(plan.points.map((point, i) => [point, i]))
  results.sort((a, b) => order.get(a.point)! - order.get(b.point)!)
  return { clean, plan, results }
}
