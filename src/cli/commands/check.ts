/*
 * `userdma check`: runs a program and reports its mistakes with verbs, with the stacks of its calls and posts; or reads
 * recordings (check-files.ts). Exits with 65 (EX_DATAERR) if it reports a finding of severity --fail-on or above, else
 * ends as the program, but with 1 instead of 0 if an output file could not be written entirely. If Ctrl-C ended the
 * program, findings do not change the status; if --time-limit did, it is 124.
 */
import { counted } from '../../base/text.ts'
import { adapters } from '../../spec/check/adapters.ts'
import type { Finding } from '../../spec/check/finding.ts'
import type { Omission } from '../../spec/check/omissions.ts'
import type { ObservedFaults } from '../../tools/observe/observe.ts'
import type { CheckOptions } from '../check/judge.ts'
import { type Checked, openReportOf, type Report } from '../check/reporting.ts'
import { DEADLOCK_HEAD, watchDeadlock } from '../clock.ts'
import { joinDaemon } from '../join.ts'
import { hostOfNet } from '../net/on-host.ts'
import { checksPrograms, onHost, PeerFindings } from '../net/peer-findings.ts'
import { programFiles } from '../output-file.ts'
import { type ProgramEnd, preloadedLibraries, type Recording, recordedEnd } from '../program/program.ts'
import { isForCheck, openRecordFile, type RecordFile } from '../record.ts'
import { watchLoops } from '../waits/loops.ts'
import { withUnseenThreads } from '../waits/unseen.ts'
import { checkProgram, crashesBeside, directMessages, runUnder } from './run.ts'

/** Signals at which the report begins with what the program waits for. */
const REPORTED = ['SIGINT', 'SIGTERM'] as const

/** Milliseconds for which programs wait for each other before they are ended: the daemon has looked before. */
const STEADY = 600

/** The command. */
export const check = async (program: string, args: readonly string[], options: CheckOptions): Promise<void> => {
  checkProgram(program, args)
  const host = options.host ? await import('../program/host-program.ts') : undefined
  const faults = (await host?.hostFaults(options))?.faults
  const events: boolean | 'record' = options.races === true || (isForCheck(options) && 'record')
  const recording = { stacks: true, events }
  // Throws if a library is missing, before a daemon is started.
  if (host === undefined) preloadedLibraries(recording)
  const report = openReportOf(options, programFiles(program, args))
  const record = openRecordFile(options)
  const checked = host
    ? await checkOnHost(host, program, args, report.onFinding, faults, options.timeLimit)
    : await checkUnderDaemon(program, args, options, recording, report, record).finally(report.progress.end)
  await report.finish(checked)
}

const checkUnderDaemon = async (
  program: string,
  args: readonly string[],
  options: CheckOptions,
  recording: Recording,
  { onFinding, programEnded, progress, describe, has, shown, symbols }: Report,
  record: RecordFile | undefined,
): Promise<Checked> => {
  const { hang, timeLimit: seconds } = options
  const host = options.socket === undefined ? await hostOfNet() : undefined
  // Without --socket the daemon is private, so that findings are those of this program and its children only. On a host
  // whose daemon checks programs, several programs may be checked at once, unless they need other settings.
  const isShared = host !== undefined && !needsOwnDaemon(options) && (await checksPrograms(host.socket))
  const isPrivate = options.private === true || (options.socket === undefined && !isShared)
  const peers = new PeerFindings(onFinding)
  const own = (finding: Finding): void =>
    onFinding(withUnseenThreads(host === undefined ? finding : onHost(finding, host.name)))
  const all = { ...options, private: isPrivate, check: true }
  const joined = await joinDaemon(all, { onFinding: own }, 'check', async (...daemon) =>
    (await import('../start-inside.ts')).startInside(...daemon),
  )
  try {
    await record?.start(joined.client)
    const { buffers, adapters: like = [] } = await joined.client.config()
    const freesAtPoll = like.some(name => adapters[name].freesAtPoll !== undefined)
    const before = isShared ? await joined.client.counts() : undefined
    await joined.client.subscribeFindings(hang, isShared)
    if (host !== undefined) await peers.open(host.others, hang)
    // The program gets the signal too, and may handle it.
    const reached = async (isDeadlock: boolean, isLate: boolean): Promise<void> => {
      try {
        if (isLate && !options.json) {
          const { processText } = await import('../waits/health.ts')
          process.stderr.write(`userdma check: after ${seconds} s:\n${await processText(joined.client)}`)
        }
        await joined.client.reportWaits()
        if (!isDeadlock || has('deadlock')) return
        const { deadlockReport } = await import('../waits/report.ts')
        const text = await deadlockReport(joined.client, joined.client.daemon, crashes)
        process.stderr.write(`userdma check: ${DEADLOCK_HEAD}\n${text}`)
      } catch {
        // The daemon has ended.
      }
    }
    const onSignal = (): void => void reached(false, false)
    for (const signal of REPORTED) process.on(signal, onSignal)
    // The world of a private daemon is known, unless it sends packets.
    const isAlone = isPrivate && options.link !== 'udp'
    const tellsDeadlocks = isAlone && options.clock === 'skip'
    const crashes = tellsDeadlocks ? crashesBeside(joined.client.socket) : ''
    const watch = (found: () => void) =>
      watchDeadlock(joined.client.socket, { milliseconds: STEADY, world: false }, found)
    const endLoops = watchLoops(joined.client)
    let programEnd: ProgramEnd
    try {
      programEnd = await runUnder(
        joined,
        program,
        args,
        { ...recording, freesAtPoll, ...(buffers && { buffers }), ...(tellsDeadlocks && { crashes }) },
        {
          limit: { seconds, reached: isDeadlock => reached(isDeadlock, !isDeadlock), ...(tellsDeadlocks && { watch }) },
          isKilled: true,
          ...(options.verbose && { verbose: true }),
        },
      )
    } finally {
      endLoops()
      programEnded()
      for (const signal of REPORTED) process.off(signal, onSignal)
    }
    // While the program runs, the terminal is the program's.
    progress.show(describe)
    // Messages of the session stay in order: all findings have arrived before this reply.
    const { counts, omissions, calls, missed = [] } = await joined.client.counts()
    const who = options.who === undefined ? undefined : await joined.client.who()
    await peers.end()
    const { contexts } = await joined.client.stat()
    progress.clear()
    if (isPrivate) warnRunning(contexts)
    // The frames of findings first: for all others of the recording there may be no time.
    const endRecord = async (recording: RecordFile): Promise<boolean> => {
      const hasFailed = programEnd.status !== 0 || (await shown()).length > 0
      return recording.end(joined.client, hasFailed, recordedEnd(program, programEnd), symbols)
    }
    const isRecorded = record === undefined || (await endRecord(record))
    if (host !== undefined) peers.warnUnchecked(host.file)
    return {
      programEnd,
      counts: finding => peers.countOf(finding) ?? counts[finding.number - 1],
      omissions: omissionsSince(omissions, before?.omissions),
      hasCalls: calls > (before?.calls ?? 0) || contexts > 0,
      isRecorded,
      lacks: missedText(missed),
      ...(who && { who }),
    }
  } finally {
    peers.close()
    await joined.leave()
  }
}

/** A line about the decisions of `--torment SEED:only=` that have not occurred. */
const missedText = (missed: readonly string[]): string[] =>
  missed.length === 0 ? [] : [`${counted(missed.length, 'decision')} of --torment did not occur: ${missed.join(', ')}`]

/** Whether the options need a daemon with settings of their own. */
const needsOwnDaemon = ({
  private: isPrivate,
  device,
  fault,
  link,
  path,
  ignoreMemlock,
  allowFaults,
  torment,
  tormentKinds,
  like,
  buffers,
  lent,
  who,
  clock,
}: CheckOptions): boolean =>
  isPrivate === true ||
  ignoreMemlock === true ||
  allowFaults === true ||
  [device, fault, link, path, torment, tormentKinds, like, buffers, lent, who, clock].some(value => value !== undefined)

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
  seconds: number | undefined,
): Promise<Checked> => {
  const observer = new Observer(onFinding, { direct: directMessages('check') }, faults)
  const limit = seconds === undefined ? undefined : { seconds }
  const programEnd = await runObserved(program, args, observer, { stacks: true, faults }, { limit, isKilled: true })
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
