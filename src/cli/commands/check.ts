/*
 * `userdma check`: runs a program and reports its mistakes with verbs, with the stacks of its calls and posts.
 * Exits with 65 (EX_DATAERR) if it reports a finding of severity --fail-on or above, else ends as the program, but with
 * 1 instead of 0 if an output file could not be written entirely. If Ctrl-C ended the program, findings do not change
 * the status.
 */
import { readFileSync } from 'node:fs'
import os from 'node:os'
import { basename } from 'node:path'
import { adapters } from '../../spec/check/adapters.ts'
import type { Finding } from '../../spec/check/finding.ts'
import { type Omission, omissionText } from '../../spec/check/omissions.ts'
import {
  type FailLimit,
  FOUND_STATUS,
  failLimits,
  isFailure,
  type Severity,
  severities,
} from '../../spec/check/severity.ts'
import { counted } from '../../spec/text.ts'
import type { ObservedFaults } from '../../tools/observe/observe.ts'
import { findingText, type Symbols, stacksOf } from '../../tools/trace/findings.ts'
import { jsonText, printable } from '../../tools/trace/printable.ts'
import { leakBlocks } from '../check/leaks.ts'
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
} from '../check/report.ts'
import {
  defaultSuppressions,
  parseSuppressions,
  stacksOfFinding,
  suppressionBlock,
  suppressionOf,
} from '../check/suppressions.ts'
import { createSymbols } from '../check/symbols.ts'
import { type ColorOptions, type Paint, paintedWord, paintFor } from '../colors.ts'
import { UsageError } from '../fail.ts'
import { type JoinOptions, joinDaemon } from '../join.ts'
import { hostOfNet } from '../net/on-host.ts'
import { checksPrograms, PeerFindings } from '../net/peer-findings.ts'
import { type NamedFile, openOutput, openReport, programFiles, requireDifferentFiles } from '../output-file.ts'
import { packageVersion } from '../paths.ts'
import type { HostOptions } from '../program/host-program.ts'
import { endAs, type ProgramEnd, preloadedLibraries, type Recording, recordedEnd } from '../program/program.ts'
import { createProgress, NO_PROGRESS, type Progress } from '../progress.ts'
import { openRecordFile, type RecordFile, type RecordOptions } from '../record.ts'
import { checkProgram, directMessages, requireHost, runUnder } from './run.ts'

/** As commander parses them. */
export interface CheckOptions extends JoinOptions, RecordOptions, HostOptions, ColorOptions {
  readonly output?: string
  readonly json?: boolean
  readonly sarif?: string
  readonly notes?: boolean
  /** Also leaks of programs that a signal ended. */
  readonly leaks?: boolean
  /** Seconds. */
  readonly hang?: string
  readonly races?: boolean
  readonly failOn?: string
  /** Paths of files. */
  readonly suppressions?: readonly string[]
  /** False: findings in libraries are reported too. */
  readonly defaultSuppressions?: boolean
  readonly genSuppressions?: boolean
}

/** The status of a program that Ctrl-C ended. It is kept, so that a script can tell that the user ended the program. */
const INTERRUPTED = 128 + os.constants.signals.SIGINT

/** Bytes of a file in which a look-up of source lines may take seconds. */
const LARGE_FILE = 2 ** 26

const failLimitOf = (text: string): FailLimit => {
  const found = failLimits.find(limit => limit === text)
  if (found === undefined) throw new UsageError(`--fail-on "${text}" is not one of ${failLimits.join(', ')}`)
  return found
}

/** The maximum of --hang: a day. */
const MAX_HANG = 86_400

const secondsOf = (text: string): number => {
  const seconds = Number(text)
  if (/^\d+$/.test(text) && seconds >= 1 && seconds <= MAX_HANG) return seconds
  throw new UsageError(`--hang "${text}" is not a number of seconds from 1 to ${MAX_HANG}`)
}

const readSuppressions = (paths: readonly string[]) => {
  try {
    return paths.flatMap(path => parseSuppressions(readFileSync(path, 'utf8'), path))
  } catch (error) {
    throw new UsageError(`--suppressions: ${(error as Error).message}`)
  }
}

/** The files of --suppressions, as inputs. */
export const suppressionFiles = ({ suppressions = [] }: CheckOptions): NamedFile[] =>
  suppressions.map(path => ['--suppressions', path])

type Verdict =
  | { readonly action: 'ignore' | 'hide' | 'show' | 'fail' }
  | { readonly action: 'suppress'; readonly library?: string | undefined }

/**
 * Returns a function that decides what happens to a finding: `ignore`; `hide` (a note about no wait, or a leak of a program that a
 * signal ended, that was not asked for: only counted); `suppress` (only counted, for the file or the `library`); `show`;
 * or `fail`: it is shown, and the exit status is FOUND_STATUS. Throws UsageError.
 */
export const createJudge = (
  {
    failOn: text = 'error',
    suppressions: paths = [],
    defaultSuppressions: isDefault = true,
    notes,
    leaks,
  }: CheckOptions,
  symbols: Symbols,
) => {
  const failOn = failLimitOf(text)
  const suppressions = [...readSuppressions(paths), ...(isDefault ? defaultSuppressions() : [])]
  return (finding: Finding): Verdict => {
    const isHidden =
      finding.severity === 'note' ? !notes && failOn !== 'note' && !finding.isWait : finding.wasKilled && !leaks
    const suppression = suppressionOf(suppressions, finding.id, () => stacksOfFinding(finding, symbols))
    if (suppression !== undefined)
      return isHidden ? { action: 'ignore' } : { action: 'suppress', library: suppression.library }
    if (isHidden) return { action: 'hide' }
    return { action: isFailure(finding.severity, failOn) ? 'fail' : 'show' }
  }
}

/** The command. */
export const check = async (program: string, args: readonly string[], options: CheckOptions): Promise<void> => {
  if (options.genSuppressions && options.json)
    throw new UsageError('--gen-suppressions and --json exclude each other: a block follows the text of its finding')
  checkProgram(program, args)
  const host = options.host ? await import('../program/host-program.ts') : undefined
  host?.requireNoDevices({ ...options }, { ...host.RECORDINGS, races: '--races', hang: '--hang' })
  requireHost(options)
  const faults = (await host?.hostFaults(options))?.faults
  const recording = { stacks: true, events: options.races === true }
  const hang = options.hang === undefined ? undefined : secondsOf(options.hang)
  // Throws if a library is missing, before a daemon is started.
  if (host === undefined) preloadedLibraries(recording)
  const progress = options.json ? NO_PROGRESS : createProgress('userdma check')
  /** In which source lines are looked up now; empty: in none. */
  let file = ''
  const symbols = createSymbols(undefined, (path, bytes) => {
    file = path
    progress.refresh(bytes > LARGE_FILE)
  })
  const judge = createJudge(options, symbols)
  requireDifferentFiles(
    [
      ['--output', options.output],
      ['--sarif', options.sarif],
      ['--record', options.record],
    ],
    [...suppressionFiles(options), ...programFiles(program, args)],
  )
  const output = openOutput(options.output)
  const sarif = options.sarif === undefined ? undefined : openReport(options.sarif)
  const record = openRecordFile(options)
  const print = (text: string): void => {
    progress.clear()
    output.write(text)
  }
  const describe = (): string =>
    file === ''
      ? 'the program has ended, its last events are checked'
      : `source lines are looked up in ${printable(basename(file))}`
  const paint = paintFor(options, options.output === undefined ? process.stderr : undefined)
  const shown: Finding[] = []
  /** The severities of the blocks that were printed. */
  const blocks: Severity[] = []
  const printBlock = (severity: Severity, text: string): void => {
    blocks.push(severity)
    print(paintedWord(text, severity, severity, paint))
  }
  const hidden: Finding[] = []
  /** Of `shown`, those that are not printed yet. */
  const leaks: Finding[] = []
  /** Suppressed findings by library; undefined: those that files name. */
  const suppressed = new Map<string | undefined, number>()
  let hasFailure = false
  const take = (finding: Finding): void => {
    const verdict = judge(finding)
    if (verdict.action === 'suppress') suppressed.set(verdict.library, (suppressed.get(verdict.library) ?? 0) + 1)
    if (verdict.action === 'hide') hidden.push(finding)
    if (verdict.action !== 'show' && verdict.action !== 'fail') return
    hasFailure ||= verdict.action === 'fail'
    shown.push(finding)
    if (options.json) return
    // Leaks come last: errors may be their reason.
    if (finding.id === 'leak' && !options.genSuppressions) {
      leaks.push(finding)
      return
    }
    printBlock(finding.severity, `${findingText(explained(finding, symbols), symbols)}\n`)
    if (options.genSuppressions) print(`${suppressionBlock(finding, symbols)}\n`)
  }
  const onFinding = (finding: Finding): void => {
    take(finding)
    file = ''
  }
  const { programEnd, counts, omissions, hasCalls, isRecorded } = host
    ? await checkOnHost(host, program, args, onFinding, faults)
    : await checkUnderDaemon(
        program,
        args,
        options,
        recording,
        hang,
        onFinding,
        { progress, describe },
        {
          file: record,
          symbols,
          shown,
        },
      ).finally(progress.end)
  const { status, signal, pid } = programEnd
  // The finding program-died has the stack too.
  const hasDied = shown.some(({ id, program }) => id === 'program-died' && program?.pid === pid)
  const end = signal === null || hasDied ? undefined : { signal, pid }
  // A shared daemon, or a child that still runs, may have sent further findings since.
  const reported = shown.map(finding => [explained(finding, symbols), counts(finding) ?? 1] as const)
  if (options.json) {
    symbols.prepare?.(stacksOf(shown))
    for (const [finding, count] of reported) print(`${jsonText(findingJson(finding, symbols, count))}\n`)
    for (const [library, count] of suppressed) print(`${jsonText(suppressedJson(library, count))}\n`)
    for (const omission of omissions) print(`${jsonText(omissionJson(omission))}\n`)
    if (end !== undefined) print(`${jsonText(endJson(end))}\n`)
  } else {
    for (const { severity, text } of leakBlocks(leaks, symbols, options.notes === true)) printBlock(severity, text)
    print(summary(blocks, reported, hidden, suppressed, omissions, hasCalls, end, paint))
  }
  sarif?.write(`${jsonText(sarifLog(reported, symbols, packageVersion(), omissions, end), 2)}\n`)
  output.close()
  const isIncomplete = output.hasFailed || sarif?.hasFailed === true || !isRecorded
  if (hasFailure && status !== INTERRUPTED) process.exitCode = FOUND_STATUS
  else endAs({ status: isIncomplete ? status || 1 : status, signal })
}

/** How a program has ended, and what the checker has counted. */
interface Checked {
  readonly programEnd: ProgramEnd
  /** How often a finding was found. */
  counts(finding: Finding): number | undefined
  readonly omissions: readonly Omission[]
  /** Whether a program has made a call, or has a device open. */
  readonly hasCalls: boolean
  /** False: the file of --record lacks something. */
  readonly isRecorded: boolean
}

const checkUnderDaemon = async (
  program: string,
  args: readonly string[],
  options: CheckOptions,
  recording: Recording,
  hang: number | undefined,
  onFinding: (finding: Finding) => void,
  { progress, describe }: { readonly progress: Progress; describe(): string },
  record: { readonly file: RecordFile | undefined; readonly symbols: Symbols; readonly shown: readonly Finding[] },
): Promise<Checked> => {
  const host = options.socket === undefined ? await hostOfNet() : undefined
  // Without --socket the daemon is private, so that findings are those of this program and its children only. On a host
  // whose daemon checks programs, several programs may be checked at once, unless they need other settings.
  const isShared = host !== undefined && !needsOwnDaemon(options) && (await checksPrograms(host.socket))
  const isPrivate = options.private === true || (options.socket === undefined && !isShared)
  const peers = new PeerFindings(onFinding)
  const own = host === undefined ? onFinding : (finding: Finding) => onFinding({ ...finding, host: host.name })
  const joined = await joinDaemon({ ...options, private: isPrivate, check: true }, { onFinding: own }, 'check')
  try {
    await record.file?.start(joined.client)
    const { buffers, adapters: like = [] } = await joined.client.config()
    const freesAtPoll = like.some(name => adapters[name].freesAtPoll !== undefined)
    const before = isShared ? await joined.client.counts() : undefined
    await joined.client.subscribeFindings(hang, isShared)
    if (host !== undefined) await peers.open(host.others, hang)
    // The program gets the signal too, and may handle it.
    const onInterrupt = (): void => void joined.client.reportWaits().catch(() => {})
    process.on('SIGINT', onInterrupt)
    let programEnd: ProgramEnd
    try {
      programEnd = await runUnder(joined, program, args, { ...recording, freesAtPoll, ...(buffers && { buffers }) })
    } finally {
      process.off('SIGINT', onInterrupt)
    }
    // While the program runs, the terminal is the program's.
    progress.show(describe)
    // Messages of the session stay in order: all findings have arrived before this reply.
    const { counts, omissions, calls } = await joined.client.counts()
    await peers.end()
    const { contexts } = await joined.client.stat()
    progress.end()
    if (isPrivate) warnRunning(contexts)
    const hasFailed = programEnd.status !== 0 || record.shown.length > 0
    // Before all other frames of the recording, for which there may be no time.
    if (record.file !== undefined) record.symbols.prepare?.(stacksOf(record.shown))
    const isRecorded =
      (await record.file?.end(joined.client, hasFailed, recordedEnd(program, programEnd), record.symbols)) ?? true
    if (host !== undefined) peers.warnUnchecked(host.file)
    return {
      programEnd,
      counts: finding => peers.countOf(finding) ?? counts[finding.number - 1],
      omissions: omissionsSince(omissions, before?.omissions),
      hasCalls: calls > (before?.calls ?? 0) || contexts > 0,
      isRecorded,
    }
  } finally {
    peers.close()
    await joined.leave()
  }
}

/** Whether the options need a daemon with settings of their own. */
const needsOwnDaemon = ({
  private: isPrivate,
  device,
  fault,
  link,
  path,
  ignoreMemlock,
  torment,
  like,
  buffers,
}: CheckOptions): boolean =>
  isPrivate === true ||
  ignoreMemlock === true ||
  [device, fault, link, path, torment, like, buffers].some(value => value !== undefined)

const omissionsSince = (now: readonly Omission[], before: readonly Omission[] = []): readonly Omission[] =>
  now.flatMap(({ id, count }) => {
    const added = count - (before.find(other => other.id === id)?.count ?? 0)
    return added > 0 ? [{ id, count: added }] : []
  })

const checkOnHost = async (
  { Observer, runObserved }: typeof import('../program/host-program.ts'),
  program: string,
  args: readonly string[],
  onFinding: (finding: Finding) => void,
  faults: ObservedFaults | undefined,
): Promise<Checked> => {
  const observer = new Observer(onFinding, { direct: directMessages('check') }, faults)
  const programEnd = await runObserved(program, args, observer, { stacks: true, faults })
  observer.checker.settle()
  const { counts, omissions, calls } = observer.checker
  const countOf = ({ number }: Finding): number | undefined => counts[number - 1]
  return { programEnd, counts: countOf, omissions, hasCalls: calls > 0 || observer.openContexts > 0, isRecorded: true }
}

/** Warns if programs still run, in the background for example: the private daemon that serves them ends now. */
const warnRunning = (contexts: number): void => {
  if (contexts > 0)
    process.stderr.write(
      `userdma check: ${counted(contexts, 'device context')} still open in processes that are still running; their devices are removed now\n`,
    )
}

/** The hidden findings, with the options that show them: ` (3 notes: --notes; 1 leak: --leaks)`; empty: none. */
const hiddenText = (hidden: readonly Finding[]): string => {
  const notes = hidden.filter(({ severity }) => severity === 'note').length
  const leaks = hidden.length - notes
  const texts = [
    ...(notes > 0 ? [`${counted(notes, 'note')}: \`--notes\``] : []),
    ...(leaks > 0 ? [`${counted(leaks, 'leak')} of programs that a signal ended: \`--leaks\``] : []),
  ]
  return texts.length === 0 ? '' : ` (${texts.join('; ')})`
}

/**
 * The last lines of the output. `blocks`: the severities of the printed blocks, of which one may have many leaks. `hasCalls`: a
 * program has made a call, or has a device open.
 */
const summary = (
  blocks: readonly Severity[],
  reported: readonly (readonly [Finding, number])[],
  hidden: readonly Finding[],
  suppressed: ReadonlyMap<string | undefined, number>,
  omissions: readonly Omission[],
  hasCalls: boolean,
  end: EndBySignal | undefined,
  paint: Paint,
): string => {
  const severityTexts = [...severities].reverse().flatMap(severity => {
    const count = blocks.filter(one => one === severity).length
    return count === 0 ? [] : [paint(severity, counted(count, severity))]
  })
  // A program that made no calls was not checked, so the summary must not look like a success.
  const noFindings = hasCalls ? 'no findings' : 'no findings: no program made a call of verbs'
  const repeated = reported.filter(([, count]) => count > 1)
  const byFiles = suppressed.get(undefined) ?? 0
  const byDefault = [...suppressed].flatMap(([library, count]) =>
    library === undefined ? [] : [[library, count] as const],
  )
  return [
    `userdma check: ${severityTexts.join(', ') || noFindings}${hiddenText(hidden)}${byFiles === 0 ? '' : `, ${byFiles} suppressed`}`,
    ...repeated.map(([{ id, text }, count]) => `  ${count} times ${id}: ${printable(text)}`),
    ...byDefault.map(([library, count]) => `  ${suppressedText(library, count)}`),
    ...omissions.map(omission => `  left out: ${omissionText(omission)}`),
    ...(end === undefined ? [] : [`  ${endText(end)}`]),
    '',
  ].join('\n')
}
