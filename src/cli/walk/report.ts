/*
 * The output of a fault walk: as text, as JSON objects (`--json`), and as a SARIF 2.1.0 log (`--sarif`).
 */
import type { Stack } from '../../spec/check/finding.ts'
import { type Frame, frameText } from '../../spec/check/frames.ts'
import type { Symbols } from '../../tools/trace/findings.ts'
import { printable } from '../../tools/trace/printable.ts'
import { type SarifResult, sarifDocument } from '../check/sarif.ts'
import type { ConfigOptions } from '../config.ts'
import { quoted } from '../program/quoted.ts'
import type { CrashRecord } from './crashes.ts'
import { type Outcome, outcomes, type WalkResult, type WalkRun } from './outcome.ts'

/** Outcomes that are findings: title, severity, and what to do. */
const findings = {
  crash: {
    title: 'the program crashes when a call or request fails',
    level: 'error',
    advice: 'check the result of the call, or the status of the completion, before its object or data is used',
  },
  hang: {
    title: 'the program does not end when a call or request fails',
    level: 'error',
    advice: 'leave waiting loops when a request has failed, and tell the peer',
  },
  swallowed: {
    title: 'the program goes on as if a failed call or request had succeeded',
    level: 'warning',
    advice: 'report the failure, or repeat what failed',
  },
  leak: {
    title: 'the program cleans up after a failure, and forgets objects',
    level: 'warning',
    advice: 'destroy all objects on the path of the failure',
  },
} as const
type FindingOutcome = keyof typeof findings

const isFindingOutcome = (outcome: Outcome): outcome is FindingOutcome => Object.hasOwn(findings, outcome)

export const isFinding = ({ outcome }: WalkResult): boolean => isFindingOutcome(outcome)

const MAX_FRAMES = 12

/** Source files of the C library have relative paths. */
const isOfLibc = ({ file }: Frame): boolean => file?.startsWith('./') === true

/** The frames of a stack without those of the C library, if there are others. */
const programFrames = (stack: Stack, symbols: Symbols): readonly Frame[] => {
  const frames = symbols.framesOf(stack)
  const ofProgram = frames.filter(frame => !isOfLibc(frame))
  return ofProgram.length > 0 ? ofProgram : frames
}

const LIBRARY = /\.so(?:\.|$)/

/** Where the program has called the verbs API: its first frame outside of libraries and of functions in headers. */
const placeOf = (frames: readonly Frame[]): Frame | undefined =>
  frames.find(
    ({ file, object }) => !file?.startsWith('/usr/include/') && (object === undefined || !LIBRARY.test(object)),
  ) ?? frames[0]

const stackLines = (frames: readonly Frame[]): string =>
  frames
    .slice(0, MAX_FRAMES)
    .map((frame, i) => `    #${i} ${printable(frameText(frame))}\n`)
    .join('')

const recordsOf = ({ outcome, run }: WalkResult): readonly CrashRecord[] =>
  outcome === 'crash' ? run.records.filter(({ isCrash }) => isCrash) : outcome === 'hang' ? run.records : []

const recordTitle = ({ pid, command, signal, isCrash }: CrashRecord): string =>
  isCrash ? `${signal} in process ${pid} (${command})` : `process ${pid} (${command}) is at`

const endText = ({ run: { result } }: WalkResult): string =>
  result.isTimedOut ? `no end after ${(result.duration / 1000).toFixed(1)} s` : (result.failure ?? 'exit status 0')

/** The line of the run without faults. */
export const cleanLine = ({ result, sites }: WalkRun, points: number): string =>
  `userdma run: fault walk: ${points} points at ${new Set(sites.map(({ site }) => site)).size} call sites; without faults the program takes ${(result.duration / 1000).toFixed(1)} s\n`

/** A finding as text. `command`: the program and its arguments. */
export const resultText = (
  result: WalkResult,
  symbols: Symbols,
  command: readonly string[],
  { device = [], fault = [] }: ConfigOptions,
): string => {
  const { point, outcome, run } = result
  const frames = programFrames(point.site.stack, symbols)
  const place = placeOf(frames)
  const options = [
    ...device.flatMap(one => ['--device', one]),
    ...[...fault, point.rule].flatMap(rule => ['--fault', rule]),
  ]
  return [
    `userdma run: ${outcome}: ${point.text}${place === undefined ? '' : ` in ${printable(frameText(place))}`}: ${endText(result)}\n`,
    `  the failing ${point.site.target}\n`,
    stackLines(frames),
    ...recordsOf(result).map(
      record => `  ${printable(recordTitle(record))}\n${stackLines(programFrames(record.stack, symbols))}`,
    ),
    ...(outcome === 'leak' ? run.leaks.map(({ text }) => `  ${printable(text)}\n`) : []),
    `  repeat it: ${['userdma', 'run', '--private', ...options, '--', ...command].map(quoted).join(' ')}\n`,
  ].join('')
}

/** The last line. `points`: number of all points. */
export const summaryText = (results: readonly WalkResult[], points: number, milliseconds: number): string => {
  const counts = outcomes
    .map(outcome => [outcome, results.filter(result => result.outcome === outcome).length] as const)
    .filter(([, count]) => count > 0)
    .map(([outcome, count]) => `${count} ${outcome}`)
  const left = points - results.length
  const rest = left === 0 ? '' : `; ${left} points were not tried (--points, --time-limit)`
  return `userdma run: fault walk: ${results.length} runs in ${(milliseconds / 1000).toFixed(0)} s: ${counts.join(', ') || 'nothing to fail'}${rest}\n`
}

/** A result as a JSON object. */
export const resultJson = (result: WalkResult, symbols: Symbols) => {
  const { point, outcome, run } = result
  const { target, name, class: cls, site, program, count } = point.site
  return {
    outcome,
    text: point.text,
    rule: point.rule,
    target,
    name,
    class: cls,
    site,
    program,
    count,
    frames: programFrames(point.site.stack, symbols),
    status: run.result.status,
    signal: run.result.signal,
    milliseconds: Math.round(run.result.duration),
    stacks: recordsOf(result).map(({ stack, ...record }) => ({ ...record, frames: programFrames(stack, symbols) })),
    leaks: outcome === 'leak' ? run.leaks.map(({ text }) => text) : [],
  }
}

/** The findings as a SARIF log. `version`: that of userdma. */
export const walkSarif = (results: readonly WalkResult[], symbols: Symbols, version: string) => {
  const found = results.flatMap(result =>
    isFindingOutcome(result.outcome) ? [{ result, outcome: result.outcome }] : [],
  )
  return sarifDocument(
    'userdma run --fault-walk',
    version,
    Object.entries(findings).map(([id, { title, advice, level }]) => ({ id, title, why: title, advice, level })),
    found.map(
      ({ result, outcome }): SarifResult => ({
        id: outcome,
        level: findings[outcome].level,
        text: `${result.point.text}: ${endText(result)}`,
        count: 1,
        stacks: [
          {
            action: `the failing ${result.point.site.target}`,
            frames: programFrames(result.point.site.stack, symbols),
          },
          ...recordsOf(result).map(record => ({
            action: recordTitle(record),
            frames: programFrames(record.stack, symbols),
          })),
        ],
      }),
    ),
  )
}
