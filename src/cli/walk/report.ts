/*
 * The output of a walk: as text, as JSON objects (`--json`), and as a SARIF 2.1.0 log (`--sarif`).
 */
import { counted } from '../../base/text.ts'
import { MAX_SITES } from '../../faults/survey.ts'
import type { Stack } from '../../spec/check/finding.ts'
import { type Frame, frameText, LIBRARY } from '../../spec/check/frames.ts'
import type { Severity } from '../../spec/check/severity.ts'
import { printable } from '../../spec/printable.ts'
import type { Symbols } from '../../tools/check/finding-text.ts'
import { type SarifResult, sarifDocument } from '../check/sarif.ts'
import { type Paint, unpainted } from '../colors.ts'
import { quoted } from '../program/quoted.ts'
import type { CrashRecord } from './crashes.ts'
import { type Outcome, outcomes, type WalkResult, type WalkRun } from './outcome.ts'
import type { WalkPlan, WalkPoint } from './points.ts'
import type { Stage } from './stage.ts'
import { type WalkKind, walkKindNames } from './walk-kinds.ts'

/** Outcomes that are findings: title, severity, and what to do. */
const findings = {
  crash: {
    title: 'the program crashes when something fails',
    level: 'error',
    advice: 'check the result of the call, or the status of the completion, before its object or data is used',
  },
  hang: {
    title: 'the program does not end when something fails',
    level: 'error',
    advice: 'leave waiting loops when a request or connection has failed, limit waits in time, and tell the peer',
  },
  stale: {
    title: 'the program goes on with what an event has made invalid',
    level: 'error',
    advice: 'when the event comes, look the index, handle or queue pair up again, or make it anew',
  },
  leak: {
    title: 'the program cleans up after a failure, and forgets objects',
    level: 'warning',
    advice: 'destroy all objects on the path of the failure',
  },
  left: {
    title: 'a process keeps a connection whose peer is gone',
    level: 'warning',
    advice: 'end connections whose peer is silent or has disconnected, for example by a keep-alive',
  },
  wrong: {
    title: 'the program fails although nothing failed for it',
    level: 'warning',
    advice: 'a lost datagram, a late event and a short outage are no failures: repeat, or go on',
  },
  degraded: {
    title: 'the program goes on with failing completions',
    level: 'warning',
    advice:
      'when a completion has failed, post nothing more to its queue pair: reset it and connect it again, or leave it',
  },
  swallowed: {
    title: 'the program goes on as if what failed had succeeded',
    level: 'warning',
    advice: 'report the failure, or repeat what failed',
  },
} as const
type FindingOutcome = keyof typeof findings

/** The severity of an outcome that is a finding. */
export const severityOf = (outcome: Outcome): Severity | undefined =>
  isFindingOutcome(outcome) ? findings[outcome].level : undefined

export const isFindingOutcome = (outcome: Outcome): outcome is FindingOutcome => Object.hasOwn(findings, outcome)

/** Runs whose outcome is one, and happens again: with 2 of 3 runs. */
const isConfirmed = ({ confirmed }: WalkResult): boolean => confirmed === undefined || confirmed.times >= 2

/** Whether the outcome is a confirmed finding. */
export const isFinding = (result: WalkResult): boolean => isFindingOutcome(result.outcome) && isConfirmed(result)

const MAX_FRAMES = 12

/** Source files of the C library have relative paths. */
const isOfLibc = ({ file }: Frame): boolean => file?.startsWith('./') === true

/** The frames of a stack without those of the C library, if there are others. */
const programFrames = (stack: Stack, symbols: Symbols): readonly Frame[] => {
  const frames = symbols.framesOf(stack)
  const ofProgram = frames.filter(frame => !isOfLibc(frame))
  return ofProgram.length > 0 ? ofProgram : frames
}

/** Where the program has called the verbs API: its first frame outside of libraries and of functions in headers. */
export const placeOf = (frames: readonly Frame[]): Frame | undefined =>
  frames.find(
    ({ file, object }) => !file?.startsWith('/usr/include/') && (object === undefined || !LIBRARY.test(object)),
  ) ?? frames[0]

const stackOf = ({ site }: WalkPoint): Stack => site?.stack ?? []

export const framesOf = (point: WalkPoint, symbols: Symbols): readonly Frame[] => programFrames(stackOf(point), symbols)

/** The source line of a point; without debug information the call site, and without one what it happens to. */
export const lineOf = (point: WalkPoint, symbols: Symbols): string => {
  const { file, line = 0 } = placeOf(framesOf(point, symbols)) ?? {}
  return file === undefined ? point.site?.site || point.what : `${file}:${line}`
}

/** Where it happens: process and place; '' for packets. */
export const whereText = ({ host, site }: WalkPoint, symbols: Symbols): string => {
  if (site === undefined) return ''
  const place = placeOf(programFrames(site.stack, symbols))
  const process = `process ${site.process} (${printable(site.program)})${host === '' ? '' : ` of ${host}`}`
  const at = place === undefined ? '' : ` in ${printable(frameText(place))}`
  return `${process}${at}, which ${site.phase}`
}

const stackLines = (frames: readonly Frame[]): string =>
  frames
    .slice(0, MAX_FRAMES)
    .map((frame, i) => `    #${i} ${printable(frameText(frame))}\n`)
    .join('')

/** Where a process is in the code. Absent `signal`: it posts there to a queue pair that has failed. */
type ProcessPlace = Omit<CrashRecord, 'signal'> & Partial<CrashRecord>

export const recordsOf = ({ outcome, run, relapses }: WalkResult): readonly ProcessPlace[] => {
  if (outcome === 'crash') return run.records.filter(({ isCrash }) => isCrash)
  if (outcome === 'hang') return run.records
  return relapses.flatMap(({ pid, program, stack }) =>
    stack.length === 0 ? [] : [{ pid, command: program, isCrash: false, stack }],
  )
}

export const recordTitle = ({ pid, command, signal, isCrash }: ProcessPlace): string => {
  if (isCrash) return `${signal} in process ${pid} (${command})`
  return `process ${pid} (${command}) ${signal === undefined ? 'posts' : 'is'} at`
}

export const recordText = (record: ProcessPlace, symbols: Symbols): string =>
  `  ${printable(recordTitle(record))}\n${stackLines(programFrames(record.stack, symbols))}`

const seconds = (milliseconds: number): string => `${(milliseconds / 1000).toFixed(1)} s`

export const endText = ({ result }: WalkRun): string =>
  result.isDeadlock
    ? 'all threads wait, and no time limit is left'
    : result.isTimedOut
      ? `no end after ${seconds(result.duration)}`
      : (result.failure ?? 'exit status 0')

/** The outcome in words: `recovered in 1.2 s`, `ended with the message …`. */
export const outcomeText = (result: WalkResult): string => {
  const { outcome, run, message, recovery, confirmed } = result
  const sometimes =
    isFindingOutcome(outcome) && !isConfirmed(result) && confirmed
      ? ` (sometimes: ${confirmed.times} of ${confirmed.runs} runs)`
      : ''
  switch (outcome) {
    case 'recovered':
      return recovery < 100 ? 'recovered' : `recovered in ${seconds(recovery)}`
    case 'ended':
      return message === undefined
        ? `ended with ${endText(run)}`
        : `ended with the message ${JSON.stringify(printable(message).slice(0, 60))}`
    case 'hang':
      return `hangs${sometimes}`
    case 'unreached':
      return 'not reached'
    case 'left':
      return `leaves connections at the peer${sometimes}`
    default:
      return `${outcome}${sometimes}`
  }
}

/** The line of the run without failures. */
export const cleanLine = (label: string, { result, sites }: WalkRun, { points }: WalkPlan): string => {
  const processes = new Set(sites.map(({ host, process }) => `${host} ${process}`)).size
  const places = new Set(sites.map(({ site }) => site).filter(Boolean)).size
  return `${label}: ${counted(points.length, 'point')} at ${counted(places, 'call site')} of ${processes} ${processes === 1 ? 'process' : 'processes'}; without failures the program takes ${seconds(result.duration)}\n`
}

/** A finding as text. */
export const resultText = (label: string, result: WalkResult, symbols: Symbols, stage: Stage): string => {
  const { point, outcome, run, details, confirmed } = result
  const where = whereText(point, symbols)
  const again = confirmed === undefined ? '' : ` (${confirmed.times} of ${confirmed.runs} runs)`
  return [
    `${label}: ${outcome}: ${point.text}${where === '' ? '' : ` in ${where}`}: ${endText(run)}${again}\n`,
    stackLines(programFrames(stackOf(point), symbols)),
    ...recordsOf(result).map(record => recordText(record, symbols)),
    ...details.map(text => `  ${printable(text)}\n`),
    `  repeat it: ${stage.repeatCommand(point).map(quoted).join(' ')}\n`,
  ].join('')
}

/** All results: kind, what, where, outcome. `paint`: the outcomes that are findings. */
export const tableText = (results: readonly WalkResult[], symbols: Symbols, paint: Paint = unpainted): string => {
  const outcomeCell = (result: WalkResult): string => {
    const severity = isFinding(result) ? severityOf(result.outcome) : undefined
    return severity === undefined ? outcomeText(result) : paint(severity, outcomeText(result))
  }
  const rows = results.map(result => [
    result.point.kind,
    result.point.text,
    placeText(result.point, symbols),
    outcomeCell(result),
  ])
  const widths = [0, 1, 2].map(column => Math.max(0, ...rows.map(row => row[column]!.length)))
  return rows.map(row => `  ${row.map((cell, i) => (i < 3 ? cell.padEnd(widths[i]!) : cell)).join('  ')}\n`).join('')
}

/** As `whereText`, in few words. */
export const placeText = ({ host, site }: WalkPoint, symbols: Symbols): string => {
  if (site === undefined) return ''
  const place = placeOf(programFrames(site.stack, symbols))
  const process = `${host === '' ? '' : `${host}:`}${printable(site.program)} ${site.process}`
  return place === undefined ? process : `${process} ${printable(shortFrame(place))}`
}

const shortFrame = (frame: Frame): string =>
  frame.file === undefined ? frameText(frame) : `${frame.file.split('/').at(-1)}:${frame.line ?? 0}`

const leftOutText = ({ leftOut }: WalkPlan, kind: WalkKind): string =>
  leftOut
    .filter(one => one.kind === kind)
    .map(({ why, count }) => `${count} ${why}`)
    .join(', ')

/** What the last lines say of the walk, beside its results. */
interface WalkFacts {
  /** Undefined: it was interrupted in the run without failures. */
  readonly plan: WalkPlan | undefined
  readonly milliseconds: number
  /** What times of retries were multiplied by. */
  readonly factor: number
  /** The signal that has ended the walk. */
  readonly interruptedBy: string | undefined
}

/** The last lines. */
export const summaryText = (
  label: string,
  results: readonly WalkResult[],
  { plan, milliseconds, factor, interruptedBy }: WalkFacts,
): string => {
  if (plan === undefined) return `${label}: interrupted by ${interruptedBy} in the run without failures\n`
  const countsOf = (some: readonly WalkResult[], points: readonly WalkPoint[]): string =>
    outcomes
      .map(outcome => [outcome, some.filter(result => result.outcome === outcome).length] as const)
      .filter(([, count]) => count > 0)
      .map(([outcome, count]) => `${count} ${outcome}`)
      .join(', ') || (points.length > 0 ? 'none tried' : 'nothing to fail')
  const left = plan.points.length - results.length
  const rest =
    (left === 0
      ? ''
      : `; ${left} points were not tried${interruptedBy === undefined ? ' (--points, --time-limit)' : ''}`) +
    (plan.varying === 0
      ? ''
      : `; ${counted(plan.varying, 'call site')} left out, to which not every run without failures comes`) +
    (plan.isCut ? `; more than ${MAX_SITES} call sites: the later ones are left out` : '')
  const kinds = walkKindNames.flatMap(kind => {
    const ofKind = results.filter(({ point }) => point.kind === kind)
    const leftOut = leftOutText(plan, kind)
    if (ofKind.length === 0 && leftOut === '') return []
    const points = plan.points.filter(point => point.kind === kind)
    return [`  ${kind}: ${countsOf(ofKind, points)}${leftOut === '' ? '' : `; left out: ${leftOut}`}\n`]
  })
  const timers =
    factor === 1
      ? ''
      : `; times of retries were multiplied by ${factor}, and findings confirmed without that; timers of the program are its own`
  const runs = `${counted(results.length, 'run')} in ${(milliseconds / 1000).toFixed(0)} s`
  const head = interruptedBy === undefined ? runs : `interrupted by ${interruptedBy} after ${runs}`
  return `${label}: ${head}: ${countsOf(results, plan.points)}${rest}${timers}\n${kinds.length > 1 ? kinds.join('') : ''}`
}

/** A result as a JSON object. */
export const resultJson = (result: WalkResult, symbols: Symbols) => {
  const { point, outcome, run, details, message, recovery, confirmed } = result
  const { site } = point
  return {
    kind: point.kind,
    outcome,
    isFinding: isFinding(result),
    text: point.text,
    rule: point.rule(1),
    ...(point.host !== '' && { host: point.host }),
    ...(site !== undefined && {
      target: site.target,
      name: site.name,
      class: site.class,
      site: site.site,
      program: site.program,
      process: site.process,
      phase: site.phase,
      count: site.count,
    }),
    frames: programFrames(stackOf(point), symbols),
    status: run.result.status,
    signal: run.result.signal,
    milliseconds: Math.round(run.result.duration),
    recovery: Math.round(recovery),
    ...(message !== undefined && { message }),
    ...(confirmed !== undefined && { confirmed }),
    stacks: recordsOf(result).map(({ stack, ...record }) => ({ ...record, frames: programFrames(stack, symbols) })),
    details,
  }
}

/** What stays the same from walk to walk: kind, text and function. */
export const pointKey = (kind: string, text: string, frames: readonly Frame[]): string =>
  [kind, text, placeOf(frames)?.function ?? ''].join('\t')

/** The findings as a SARIF log. `version`: that of userdma. */
export const walkSarif = (results: readonly WalkResult[], symbols: Symbols, version: string) => {
  const found = results.flatMap(result =>
    isFinding(result) && isFindingOutcome(result.outcome) ? [{ result, outcome: result.outcome }] : [],
  )
  return sarifDocument(
    'userdma walk',
    version,
    Object.entries(findings).map(([id, { title, advice, level }]) => ({ id, title, why: title, advice, level })),
    found.map(
      ({ result, outcome }): SarifResult => ({
        id: outcome,
        level: findings[outcome].level,
        text: `${result.point.text}: ${endText(result.run)}`,
        count: result.confirmed?.times ?? 1,
        stacks: [
          { action: result.point.text, frames: programFrames(stackOf(result.point), symbols) },
          ...recordsOf(result).map(record => ({
            action: recordTitle(record),
            frames: programFrames(record.stack, symbols),
          })),
        ],
      }),
    ),
  )
}
