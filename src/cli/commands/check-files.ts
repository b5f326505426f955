/*
 * `userdma check FILE`: the findings of recordings, without running their programs again. Of a capture: what its
 * packets show, in the words of `userdma explain`.
 */
import { statSync } from 'node:fs'
import { counted } from '../../base/text.ts'
import { parseWho } from '../../settings/who.ts'
import type { Finding } from '../../spec/check/finding.ts'
import { findingIds, findings } from '../../spec/check/findings.ts'
import { type Frame, NATIVE_FRAME } from '../../spec/check/frames.ts'
import { LACKING, type Need } from '../../spec/check/needs.ts'
import type { ProducerFacts } from '../../spec/check/probes.ts'
import type { RecordedFinding, SessionEvent } from '../../spec/session-events.ts'
import { Checker } from '../../tools/check/checker.ts'
import { findingText, type Symbols, stacksOf, v8Frame } from '../../tools/check/finding-text.ts'
import { RACES } from '../../tools/check/findings/races.ts'
import { WHO } from '../../tools/check/who.ts'
import { SessionFileError } from '../../tools/record/error.ts'
import { ReplayTogether } from '../../tools/record/program/together.ts'
import { openSession, type Session } from '../../tools/record/reader.ts'
import { readSymbols } from '../../tools/record/symbols.ts'
import type { ProgramEnd as RecordedEnd } from '../../uapi/tool.ts'
import { isCaptureFile } from '../capture-file.ts'
import { isSessionFile, openedSession } from '../capture-session.ts'
import type { CheckOptions } from '../check/judge.ts'
import { findingJson } from '../check/report.ts'
import { type Checked, openReportOf } from '../check/reporting.ts'
import { flagOf } from '../command-line/option.ts'
import { findingOptions } from '../command-line/options.ts'
import { UsageError } from '../fail.ts'
import { openSessionFile } from '../session-file.ts'

/** Whether `userdma check` reads a file rather than run it: a session file, or a capture. */
export const isRecordingFile = (name: string): boolean => {
  const isFile = statSync(name, { throwIfNoEntry: false })?.isFile() === true
  return isFile && (isSessionFile(name) || isCaptureFile(name))
}

/** Throws UsageError for options that say how a program is run. */
const requireFileOptions = (given: Iterable<string>, file: string): void => {
  for (const name of given)
    if (!Object.hasOwn(findingOptions, name))
      throw new UsageError(`${flagOf(name)} is for a program that runs; "${file}" is a recording, which is read`)
}

/** What a session lacks. */
const lackedBy = ({ header: { check, isObserved } }: Session): readonly Need[] => [
  ...(isObserved ? LACKING.observed : []),
  ...(check === undefined ? LACKING.plain : []),
]

/** The findings that need what is lacking. */
const findingsWith = (lacking: readonly Need[]): string =>
  findingIds.filter(id => lacking.some(need => findings[id].needs.includes(need))).join(', ')

type Read = Omit<Checked, 'isRecorded' | 'file'>

const plainFrames: Symbols = { framesOf: stack => stack.map(text => v8Frame(text, path => path)) }

/** False if values of a finding have other types than ours: others may have made the recording. */
const isPrintable = (finding: Finding): boolean => {
  try {
    findingText(finding, plainFrames)
    JSON.stringify(findingJson(finding, plainFrames))
    return true
  } catch {
    return false
  }
}

/** What recordings lack, a line each. */
const lacksOf = (
  sessions: readonly Session[],
  { lost, damaged }: { readonly lost: number; readonly damaged: number },
  options: CheckOptions,
): string[] => {
  const recordings = sessions.filter(({ header }) => header.isCapture !== true)
  const sum = (of: (session: Session) => number): number => recordings.reduce((all, session) => all + of(session), 0)
  const overwritten = sum(session => session.overwritten)
  const unreadable = sum(session => session.damaged) + damaged
  const missing = 'findings may be missing'
  return [
    ...(recordings.some(({ header }) => header.check === undefined)
      ? [
          `not of a recording that was made without \`--record-depth check\`: ${findingsWith(LACKING.plain)}; and what libraries refuse themselves`,
        ]
      : []),
    ...(recordings.some(({ header }) => header.isObserved)
      ? [`not of programs on the machine's own adapters (\`--host\`): ${findingsWith(LACKING.observed)}`]
      : []),
    ...(options.races && recordings.some(({ header }) => header.check?.probes.includes('readLog') !== true)
      ? ['no races: a recording has no log of posts and polls']
      : []),
    ...(overwritten > 0 ? [`${counted(overwritten, 'event')} were overwritten (--record-limit): ${missing}`] : []),
    ...(lost > 0 ? [`${counted(lost, 'event')} were lost by the recorder: ${missing}`] : []),
    ...(unreadable > 0 ? [`${counted(unreadable, 'part')} of the recording could not be read: ${missing}`] : []),
  ]
}

/** The events of a session, first those of a checkpoint, if its beginning was overwritten. */
const eventsOf = async function* (session: Session): AsyncGenerator<SessionEvent> {
  if (session.overwritten > 0) yield* (await session.checkpointBefore(session.start)).events
  yield* session.eventsIn()
}

/** The facts that hold for all recordings: a finding needs what each of them has. */
const commonFacts = (sessions: readonly Session[]): ProducerFacts => {
  const facts: readonly ProducerFacts[] = sessions.map(({ header }) => header.check ?? {})
  const lacks = sessions.flatMap(lackedBy)
  return {
    ...(lacks.length > 0 && { lacks }),
    findsWaits: facts.every(({ findsWaits }) => findsWaits === true),
    // A net goes beyond each of its hosts.
    isClosed: facts.length === 1 && facts[0]!.isClosed === true,
  }
}

/** Reads recordings, whose events are merged by their times. */
const readSessions = async (
  sessions: readonly Session[],
  options: CheckOptions,
  onFinding: (finding: Finding) => void,
): Promise<Read> => {
  const { adapters, buffers, lent: recorded } = sessions[0]!.header.check ?? {}
  const { like = adapters, lent = recorded } = options
  const who = options.who === undefined ? undefined : parseWho(options.who)
  const consumer: { checker?: Checker } = {}
  let unprintable = 0
  const found = (finding: Finding): void => {
    if (isPrintable(finding)) onFinding(finding)
    else unprintable++
  }
  const replay = new ReplayTogether(
    sessions.map(({ header }) => header),
    probes => {
      consumer.checker = new Checker(found, {
        ...commonFacts(sessions),
        ...probes,
        ...(like && { adapters: like }),
        ...(buffers && { buffers }),
        ...(lent && { lent }),
        ...(who && { who }),
      })
      return consumer.checker
    },
  )
  const checker = consumer.checker!
  if (options.races) checker.ask(RACES)?.begin()
  let end: RecordedEnd | undefined
  const ofCaptures: RecordedFinding[] = []
  const readers = sessions.map(eventsOf)
  const next = await Promise.all(readers.map(reader => reader.next()))
  for (let place = 0; ; ) {
    const at = (one: number): number => {
      const { done, value } = next[one]!
      return done ? Number.POSITIVE_INFINITY : replay.timeOf(one, value)
    }
    // Of equal times, first those of the recording that was read last: an event and the answers about it.
    const earliest = Math.min(...next.map((_, one) => at(one)))
    if (earliest === Number.POSITIVE_INFINITY) break
    if (at(place) !== earliest) place = next.findIndex((_, one) => at(one) === earliest)
    const event = next[place]!.value as SessionEvent
    if (event.kind === 'programEnd' && (end === undefined || end.status === 0)) end = event
    if (event.kind === 'finding' && sessions[place]!.header.isCapture) ofCaptures.push(event.finding)
    replay.take(place, event)
    next[place] = await readers[place]!.next()
  }
  replay.finish()
  checker.settle()
  for (const finding of ofCaptures) found(finding as Finding)
  const { counts, omissions } = checker
  const story = checker.ask(WHO)
  return {
    programEnd: { status: end?.status ?? 0, signal: (end?.signal || null) as NodeJS.Signals | null, pid: end?.pid },
    counts: ({ number }) => counts[number - 1],
    omissions,
    hasCalls: checker.calls > 0 || sessions.some(({ header }) => header.isCapture === true),
    ...(story && { who: story() }),
    lacks: lacksOf(sessions, { lost: replay.lost, damaged: replay.damaged + unprintable }, options),
  }
}

/** The command, of files. `given`: the names of the options that were given. */
export const checkFiles = async (
  files: readonly string[],
  options: CheckOptions,
  given: Iterable<string>,
): Promise<void> => {
  requireFileOptions(given, files[0]!)
  const known = new Map<string, readonly Frame[]>()
  const report = openReportOf(
    options,
    files.map(file => ['a recording', file]),
    known,
  )
  const closes: (() => void)[] = []
  /** Files whose recorder has looked up no symbols: of `--host`, of a daemon, or it was killed. */
  const unnamed: string[] = []
  const sessions: Session[] = []
  try {
    for (const file of files) {
      const { path, remove } = await openedSession(file, undefined, 'check')
      closes.push(remove)
      const source = openSessionFile(path)
      closes.push(() => source.close())
      try {
        const session = await openSession(source)
        let hasSymbols = false
        await readSymbols(session, event => {
          if (event.kind !== 'symbol') return
          hasSymbols = true
          // Lines of source are for the page.
          known.set(
            event.frame,
            event.frames.map(({ source: _, ...frame }) => frame),
          )
        })
        if (!hasSymbols) unnamed.push(file)
        sessions.push(session)
      } catch (error) {
        if (error instanceof SessionFileError) throw new UsageError(`${file}: ${error.message}`)
        throw error
      }
    }
    const checked = await readSessions(sessions, options, report.onFinding)
    const hasUnknown = stacksOf(await report.shown()).some(stack =>
      stack.some(frame => NATIVE_FRAME.test(frame) && !known.has(frame)),
    )
    const lacks =
      unnamed.length > 0 && hasUnknown && options.symbols !== true
        ? [
            `no lines: none are in ${unnamed.join(', ')}; \`--symbols\` looks them up in the files that it names, on this machine`,
          ]
        : []
    await report.finish({
      ...checked,
      lacks: [...(checked.lacks ?? []), ...lacks],
      isRecorded: true,
      file: files.join(', '),
    })
  } finally {
    for (const close of closes) close()
  }
}
