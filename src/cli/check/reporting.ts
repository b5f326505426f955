/*
 * The report of `userdma check`: of a program that it has run, or of recordings that it has read. It judges findings as
 * they come, prints them, and ends with a summary and the exit status.
 */
import { basename } from 'node:path'
import { counted } from '../../base/text.ts'
import type { Finding, Story } from '../../spec/check/finding.ts'
import { type FindingId, findings } from '../../spec/check/findings.ts'
import type { Frame } from '../../spec/check/frames.ts'
import { type Omission, omissionText } from '../../spec/check/omissions.ts'
import { FOUND_STATUS, isFailure, type Severity, severities } from '../../spec/check/severity.ts'
import { jsonText, printable } from '../../spec/printable.ts'
import { findingText, headText, type Symbols } from '../../tools/check/finding-text.ts'
import { accessLines, shortStory } from '../../tools/check/story/text.ts'
import { DEADLOCK_STATUS } from '../clock.ts'
import { type Paint, paintedWord, paintFor } from '../colors.ts'
import { onFirstEndSignal } from '../end-signals.ts'
import { type NamedFile, openOutput, openReport, requireDifferentFiles } from '../output-file.ts'
import { packageVersion } from '../paths.ts'
import { endAs, LIMIT_STATUS, type ProgramEnd } from '../program/program.ts'
import { createProgress, NO_PROGRESS, type Progress } from '../progress.ts'
import { type CheckOptions, createJudge, INTERRUPTED, suppressionFiles } from './judge.ts'
import { leakBlocks } from './leaks.ts'
import {
  type EndBySignal,
  endJson,
  endText,
  explained,
  findingJson,
  omissionJson,
  sarifLog,
  suppressedJson,
  suppressedText,
  whoJson,
} from './report.ts'
import { suppressionBlock } from './suppressions.ts'
import { createSymbols, type LookUp } from './symbols.ts'

/** How a program has ended, and what the checker has counted. */
export interface Checked {
  readonly programEnd: ProgramEnd
  /** How often a finding was found. */
  counts(finding: Finding): number | undefined
  readonly omissions: readonly Omission[]
  /** Whether a program has made a call, or has a device open. */
  readonly hasCalls: boolean
  /** False: the file of --record lacks something. */
  readonly isRecorded: boolean
  /** Lines of the summary about what a recording or a run lacks; for tools too. */
  readonly lacks?: readonly string[]
  /** What was read, for a summary without findings; absent: a program was run. */
  readonly file?: string
  /** The accesses to the bytes of `--who`. */
  readonly who?: Story
}

export interface Report {
  readonly symbols: LookUp
  readonly progress: Progress
  /** Of `progress`, when the program has ended. */
  describe(): string
  onFinding(finding: Finding): void
  /** Who interrupts from now on wants the findings, not their lines; who does so again, neither. */
  programEnded(): void
  /** Whether a finding that tells this is reported, or is not judged yet. */
  has(told: 'deadlock'): boolean
  /** The findings that are reported, when the frames are known of all that have come. */
  shown(): Promise<readonly Finding[]>
  /** Prints what is left, and sets the exit status. */
  finish(checked: Checked): Promise<void>
}

/** `inputs`: files that are no outputs. `recorded`: what is known of frames. Throws UsageError. */
export const openReportOf = (
  options: CheckOptions,
  inputs: readonly NamedFile[],
  recorded?: ReadonlyMap<string, readonly Frame[]>,
): Report => {
  const { story: most } = options
  const progress = options.json ? NO_PROGRESS : createProgress('userdma check')
  // A recording may be from elsewhere, and name any file: one of this machine is looked into only if that is asked for.
  const symbols = createSymbols(recorded && { recorded, isLive: options.symbols === true })
  const judge = createJudge(options)
  requireDifferentFiles(
    [
      ['--output', options.output],
      ['--sarif', options.sarif],
      ['--record', options.record],
    ],
    [...suppressionFiles(options), ...inputs],
  )
  const output = openOutput(options.output)
  const sarif = options.sarif === undefined ? undefined : openReport(options.sarif)
  const lines = options.verbose === true ? Number.POSITIVE_INFINITY : undefined
  const print = (text: string): void => {
    progress.clear()
    output.write(text)
  }
  const describe = (): string => {
    const [ended, checks] =
      recorded === undefined
        ? ['the program has ended, ', 'its last events are checked']
        : ['', 'the findings are printed']
    const lines = `source lines are looked up in ${printable(basename(symbols.file ?? ''))}`
    return `${ended}${symbols.file === undefined ? checks : lines}`
  }
  const paint = paintFor(options, options.output === undefined ? process.stderr : undefined)
  const shown: Finding[] = []
  /** The severities of the blocks that were printed. */
  const blocks: (Severity | undefined)[] = []
  /** `severity`: undefined: it follows from another finding. */
  const printBlock = (severity: Severity | undefined, text: string): void => {
    blocks.push(severity)
    print(severity === undefined ? text : paintedWord(text, severity, severity, paint))
  }
  let hidden: readonly Finding[] = []
  /** Of `shown`, those that are not printed yet. */
  const leaks: Finding[] = []
  /** Suppressed findings by library; undefined: those that files name. */
  const suppressed = new Map<string | undefined, number>()
  let hasFailure = false
  const isLater = ({ left }: Finding): boolean =>
    options.json === true || (left !== undefined && !options.genSuppressions)
  /** Whether it is one line, which says what follows from another finding. */
  const isShort = ({ follows }: Finding): boolean => follows !== undefined && options.notes !== true
  const textOf = (finding: Finding, known: Symbols, toldBefore?: ToldBefore): string => {
    const text = isShort(finding)
      ? `${headText(finding)}\n\n`
      : `${findingText(explained(finding, known), known, { story: most, lines, ...(toldBefore && { toldBefore }) })}\n`
    return options.genSuppressions ? `${text}${suppressionBlock(finding, known)}\n` : text
  }
  const show = (finding: Finding, text: string): void => {
    shown.push(finding)
    if (!isLater(finding)) printBlock(isShort(finding) ? undefined : finding.severity, text)
    // Leaks come last: errors may be their reason.
    else if (!options.json) leaks.push(finding)
  }
  /** Of findings that are not judged yet. */
  const judging: FindingId[] = []
  /** When all findings so far are judged and printed, in their order. Their frames are looked up at the same time. */
  let judged: Promise<unknown> = Promise.resolve()
  const onFinding = (finding: Finding): void => {
    judging.push(finding.id)
    const made = symbols.render(known => {
      const verdict = judge(finding, known)
      const isShown = verdict.action === 'show' || verdict.action === 'fail'
      return { verdict, text: isShown && !isLater(finding) ? textOf(finding, known) : '', known }
    })
    judged = Promise.all([made, judged]).then(([{ verdict, text, known }]) => {
      judging.shift()
      if (verdict.action === 'suppress') suppressed.set(verdict.library, (suppressed.get(verdict.library) ?? 0) + 1)
      if (verdict.action === 'hide') hidden = [...hidden, finding]
      if (verdict.action !== 'show' && verdict.action !== 'fail') return
      hasFailure ||= verdict.action === 'fail'
      const told = toldBefore(finding, shown, most)
      show(finding, text === '' || told === undefined ? text : textOf(finding, known, told))
    })
  }
  const allJudged = async (): Promise<void> => {
    for (let last: unknown; last !== judged; ) {
      last = judged
      await last
    }
  }
  const shortened = ({ story = [], ...finding }: Finding): Finding => {
    const short = shortStory(story, most)
    return short.length === 0 ? finding : { ...finding, story: short }
  }
  let removeHandlers: (() => void) | undefined
  const programEnded = (): void => {
    removeHandlers ??= onFirstEndSignal(() => symbols.stop())
  }
  return {
    symbols,
    progress,
    describe,
    onFinding,
    programEnded,
    has: told => [...judging, ...shown.map(({ id }) => id)].some(id => findings[id]?.tells === told),
    async shown() {
      await allJudged()
      // Those that are printed last.
      await symbols.render(known => leakBlocks(leaks, known, options.notes === true))
      return shown
    },
    async finish({ programEnd, counts, omissions, hasCalls, isRecorded, lacks = [], file: read, who }) {
      const { status, signal, pid, limit, isDeadlock = false } = programEnd
      progress.show(describe)
      programEnded()
      await allJudged()
      // If a program fails and nothing else was found, a note may say why.
      if ((status !== 0 || signal !== null) && shown.every(({ left }) => left !== undefined)) {
        const notes = notesOf(hidden, shown)
        hidden = hidden.filter(finding => !notes.includes(finding))
        const found = notes.map(
          (note): Finding => (findings[note.id].explainsFailure ? { ...note, severity: 'error' } : note),
        )
        hasFailure ||= found.some(({ severity }) => isFailure(severity, options.failOn))
        const texts = await symbols.render(known => found.map(one => textOf(one, known)))
        for (const [i, one] of found.entries()) show(one, texts[i]!)
      }
      // Its finding has the stack too.
      const hasDied = shown.some(({ id, program }) => findings[id]?.tells === 'death' && program?.pid === pid)
      const end =
        signal === null || hasDied
          ? undefined
          : { signal, pid, ...(limit !== undefined && { limit }), ...(isDeadlock && { isDeadlock }) }
      const last = await symbols.render(known => {
        // A shared daemon, or a child that still runs, may have sent further findings since.
        const reported = shown.map(finding => [shortened(explained(finding, known)), counts(finding) ?? 1] as const)
        const log = sarif && sarifLog(reported, known, packageVersion(), omissions, end)
        if (options.json) {
          const objects = [
            ...reported.map(([finding, count]) => findingJson(finding, known, count)),
            ...[...suppressed].map(([library, count]) => suppressedJson(library, count)),
            ...(who === undefined ? [] : [whoJson(options.who!, who, known)]),
            ...omissions.map(omissionJson),
            ...lacks.map(line => ({ lacks: line })),
            ...(end === undefined ? [] : [endJson(end)]),
          ]
          return { reported, objects, leaksText: [], whoText: '', log }
        }
        const whoText = who && `${accessLines(who, options.who!, known.framesOf).map(printable).join('\n')}\n\n`
        return { reported, objects: [], leaksText: leakBlocks(leaks, known, options.notes === true), whoText, log }
      })
      await symbols.close()
      progress.end()
      for (const object of last.objects) print(`${jsonText(object)}\n`)
      if (!options.json) {
        for (const { severity, text } of last.leaksText) printBlock(severity, text)
        if (last.whoText) print(last.whoText)
        const rest = [lacks, read, status !== 0, options, paint] as const
        print(summary(blocks, last.reported, hidden, suppressed, omissions, hasCalls, end, ...rest))
      }
      if (last.log !== undefined) sarif?.write(`${jsonText(last.log, 2)}\n`)
      output.close()
      removeHandlers?.()
      const isIncomplete = output.hasFailed || sarif?.hasFailed === true || !isRecorded
      if (limit !== undefined) process.exitCode = LIMIT_STATUS
      else if (hasFailure && status !== INTERRUPTED) process.exitCode = FOUND_STATUS
      else if (isDeadlock) process.exitCode = DEADLOCK_STATUS
      // Of a recording the signal has ended its program, not this one.
      else endAs({ status: isIncomplete ? status || 1 : status, signal: read === undefined ? signal : null })
    },
  }
}

type ToldBefore = NonNullable<NonNullable<Parameters<typeof findingText>[2]>['toldBefore']>

/** Whether all lines are among those of an earlier finding. */
const areAmong = (lines: readonly string[], earlier: readonly string[]): boolean =>
  lines.length > 0 && lines.every(line => earlier.includes(line))

const storyWords = ({ story = [] }: Finding, most: number): string[] =>
  shortStory(story, most).map(({ pid, object, text, count, isDecisive }) =>
    [pid, object, text, count, isDecisive].join(' '),
  )
const waitWords = ({ waits }: Finding): string[] =>
  (waits?.threads ?? []).map(({ host, pid, tid, action }) => [host, pid, tid, action].join(' '))

/** Which of the findings that were shown has told the story of a finding, or its waits; undefined: none. */
const toldBefore = (finding: Finding, shown: readonly Finding[], most: number): ToldBefore | undefined => {
  const whole = shown.filter(({ follows, left }) => follows === undefined && left === undefined)
  const [words, waiting] = [storyWords(finding, most), waitWords(finding)]
  const story = whole.find(one => areAmong(words, storyWords(one, most)))?.id
  const waits = whole.find(one => areAmong(waiting, waitWords(one)))?.id
  return story === undefined && waits === undefined ? undefined : { story, waits }
}

const MAX_NOTES = 3

/**
 * Notes of a program that fails, which are shown though `--notes` is not given: first those from which others follow.
 */
const notesOf = (hidden: readonly Finding[], shown: readonly Finding[]): readonly Finding[] => {
  const causes = new Set(shown.map(({ follows }) => follows))
  const notes = hidden.filter(({ severity }) => severity === 'note')
  return [
    ...notes.filter(({ number }) => causes.has(number)),
    ...notes.filter(({ number }) => !causes.has(number)),
  ].slice(0, MAX_NOTES)
}

/**
 * The hidden findings, with the options that show them: ` (not printed: 3 notes: --notes; 1 leak: --leaks)`; empty:
 * none.
 */
const hiddenText = (hidden: readonly Finding[]): string => {
  const notes = hidden.filter(({ severity }) => severity === 'note').length
  const leaks = hidden.length - notes
  const texts = [
    ...(notes > 0 ? [`${counted(notes, 'note')}: \`--notes\``] : []),
    ...(leaks > 0 ? [`${counted(leaks, 'leak')} of programs that a signal ended: \`--leaks\``] : []),
  ]
  return texts.length === 0 ? '' : ` (not printed: ${texts.join('; ')})`
}

/**
 * What a run could not see that found no mistake but leaks, or nothing. `isObserved`: --host, which has neither races
 * nor torment. `isRecorded`: the orders are those of a recording. `hasFailed`: the program has.
 */
const unseenText = (
  { races, torment }: CheckOptions,
  isObserved: boolean,
  isRecorded: boolean,
  hasFailed: boolean,
): string => {
  const order = races === true || isObserved ? '' : '; the order of requests is not looked at: `--races`'
  const others =
    torment !== undefined || isObserved || isRecorded
      ? ''
      : `; messages and completions came in one of the orders that are allowed: ${hasFailed ? '`--torment-search 10` looks for one that cures' : '`--torment`'}`
  return `accesses of the program's own threads to memory are seen by sanitizers: \`userdma help how-to/debuggers\`${order}${others}`
}

/**
 * The last lines of the output. `blocks`: the severities of the printed blocks, of which one may have many leaks.
 * `hasCalls`: a program has made a call, or has a device open.
 */
const summary = (
  blocks: readonly (Severity | undefined)[],
  reported: readonly (readonly [Finding, number])[],
  hidden: readonly Finding[],
  suppressed: ReadonlyMap<string | undefined, number>,
  omissions: readonly Omission[],
  hasCalls: boolean,
  end: EndBySignal | undefined,
  lacks: readonly string[],
  file: string | undefined,
  hasFailed: boolean,
  options: CheckOptions,
  paint: Paint,
): string => {
  const severityTexts = [...severities].reverse().flatMap(severity => {
    const count = blocks.filter(one => one === severity).length
    return count === 0 ? [] : [paint(severity, counted(count, severity))]
  })
  const following = blocks.filter(severity => severity === undefined).length
  const follows = following === 0 ? '' : `; ${following === 1 ? '1 line says' : `${following} lines say`} what follows`
  // A program that made no calls was not checked, so the summary must not look like a success.
  const noFindings = hasCalls
    ? 'no findings'
    : `no findings: no program made a call of verbs${file === undefined ? '' : ` in ${file}`}`
  const repeated = reported.filter(([, count]) => count > 1)
  const byFiles = suppressed.get(undefined) ?? 0
  const byDefault = [...suppressed].flatMap(([library, count]) =>
    library === undefined ? [] : [[library, count] as const],
  )
  return [
    `userdma check: ${severityTexts.join(', ') || noFindings}${follows}${hiddenText(hidden)}${byFiles === 0 ? '' : `, ${byFiles} suppressed`}`,
    ...(hasCalls && reported.every(([{ left, severity }]) => left !== undefined || severity === 'note')
      ? [`  ${unseenText(options, options.host === true, file !== undefined, hasFailed)}`]
      : []),
    ...repeated.map(([{ id, text }, count]) => `  ${count} times ${id}: ${printable(text)}`),
    ...byDefault.map(([library, count]) => `  ${suppressedText(library, count)}`),
    ...omissions.map(omission => `  left out: ${omissionText(omission)}`),
    ...lacks.map(line => `  ${line}`),
    ...(end === undefined ? [] : [`  ${endText(end)}`]),
    '',
  ].join('\n')
}
