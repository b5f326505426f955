/*
 * `userdma explain --slow FILE`: where the time of the sends of a recording went, by queue pair and by request.
 *
 * The file may be from somebody else: its texts are made printable, and records that cannot be read are counted.
 */

import { bytesText } from '../../spec/byte-count.ts'
import { frameText } from '../../spec/check/frames.ts'
import { durationText } from '../../spec/duration.ts'
import { nameIn } from '../../spec/enums.ts'
import { jsonText, printable } from '../../spec/printable.ts'
import type { SessionEvent } from '../../spec/session-events.ts'
import { WcStatus, WrOpcode } from '../../spec/work.ts'
import { SessionFileError } from '../../tools/record/error.ts'
import { openSession } from '../../tools/record/reader.ts'
import { callersLine, SessionSymbols } from '../../tools/record/symbols.ts'
import { adviceOf } from '../../tools/record/times/advice.ts'
import { LongestRequests } from '../../tools/record/times/longest.ts'
import { phases, rankedPhases, sumOfPhases, timesOfSpans } from '../../tools/record/times/phases.ts'
import {
  lostText,
  type QueueTimes,
  type RequestTimes,
  TimesOfRequests,
} from '../../tools/record/times/request-times.ts'
import { programEndText, SessionWaits } from '../../tools/record/waits.ts'
import { openedSession } from '../capture-session.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { explainOptions } from '../command-line/options.ts'
import { UsageError } from '../fail.ts'
import { createProgress } from '../progress.ts'
import { openSessionFile } from '../session-file.ts'

/** Options of `explain --slow`. */
type SlowOptions = Pick<OptionsOf<typeof explainOptions>, 'top' | 'json' | 'capture'>

const hex = (value: number): string => `0x${value.toString(16)}`
const percent = (part: number, whole: number): string =>
  `${((100 * part) / whole).toFixed(part < whole / 10 ? 1 : 0)} %`

/** Phases below this share of the time have no line. */
const MIN_SHARE = 0.005

const createTexts = ({ objects }: TimesOfRequests, symbols: SessionSymbols, start: number) => {
  const queueName = ({ qp: { object, qpn, peerQpn } }: QueueTimes): string => {
    const owner = object.program === undefined ? '' : ` of ${object.program.command} (${object.program.pid})`
    const to = peerQpn === undefined ? '' : `, to QP ${hex(peerQpn)}`
    return `QP ${hex(qpn)} at ${objects.deviceName(object.device)}${owner}${to}`
  }
  const queueLines = (queue: QueueTimes): string[] => {
    const { durations, bytes, idle, repeated, lost, unrepaired, notReady } = queue
    const busy = sumOfPhases(queue.phases)
    const counts = [
      `${durations.count} sends`,
      bytesText(bytes),
      ...(lost > 0 ? [lostText({ lost, repaired: lost - unrepaired })] : []),
      ...(repeated > 0 ? [`${repeated} packets sent again`] : []),
      ...(notReady > 0 ? [`${notReady} RNR NAKs`] : []),
    ]
    const shown = rankedPhases(queue.phases).filter(([, time]) => time >= MIN_SHARE * busy)
    const advice = adviceOf(queue)
    return [
      queueName(queue),
      `  ${counts.join(', ')}; a send took ${durationText(durations.percentile(0.5))} in the middle, ${durationText(durations.percentile(0.99))} at 99 %, ${durationText(durations.longest)} at most`,
      `  sends were outstanding for ${durationText(busy)}, none for ${durationText(idle)}; they waited for`,
      ...shown.map(
        ([phase, time]) =>
          `    ${percent(time, busy).padStart(6)}  ${durationText(time).padStart(8)}  ${phases[phase].title}`,
      ),
      ...(advice === undefined ? [] : [`  what to do: ${advice}`]),
    ]
  }
  const requestLines = (times: RequestTimes): string[] => {
    const { request, queue, from, to, spans, status, isOpen, stack } = times
    const end = isOpen
      ? ', not complete'
      : status !== undefined && status !== 0
        ? `, ${nameIn(WcStatus.values, status)}`
        : ''
    const parts = rankedPhases(timesOfSpans(spans)).slice(0, 3)
    return [
      `  ${durationText(to - from).padStart(8)}  ${nameIn(WrOpcode.values, request.opcode)} ${bytesText(request.length)}, wr_id ${request.wrId}, QP ${hex(queue.qp.qpn)}, at ${((from - start) / 1e6).toFixed(6)} s${end}`,
      ...parts.map(([phase, time]) => `            ${durationText(time).padStart(8)}  ${phases[phase].title}`),
      ...(stack[0] === undefined ? [] : [`            posted in ${callersLine(symbols, stack)}`]),
    ]
  }
  return { queueName, queueLines, requestLines }
}

const queueJson = (queue: QueueTimes, name: string) => {
  const { qp, phases: times, idle, bytes, repeated, lost, unrepaired, notReady, durations } = queue
  return {
    kind: 'queuePair',
    name,
    object: qp.object.id,
    qpn: qp.qpn,
    peerQpn: qp.peerQpn,
    sends: durations.count,
    bytes,
    lost,
    repaired: lost - unrepaired,
    repeated,
    notReady,
    idle,
    times,
    median: durations.percentile(0.5),
    percentile99: durations.percentile(0.99),
    longest: durations.longest,
  }
}

/** `start`: time 0. */
const requestJson = (
  { request, queue, from, to, spans, status, isOpen, stack }: RequestTimes,
  symbols: SessionSymbols,
  start: number,
) => ({
  kind: 'request',
  request: request.id,
  object: queue.qp.object.id,
  qpn: queue.qp.qpn,
  opcode: nameIn(WrOpcode.values, request.opcode),
  wrId: request.wrId.toString(),
  bytes: request.length,
  from: from - start,
  to: to - start,
  status: status === undefined ? undefined : nameIn(WcStatus.values, status),
  isOpen,
  spans: spans.map(span => ({ phase: span.phase, from: span.from - start, to: span.to - start })),
  stack: symbols.framesOf(stack).map(frameText),
})

/** As objects what `waitLines` has as text. `start`: time 0. */
const waitsJson = (waits: SessionWaits, start: number) => [
  ...waits.lasting.map(({ id, facts: { command, pid, device, text, since, objects }, state, end }) => ({
    kind: 'wait',
    id,
    pid,
    command,
    device,
    text,
    objects,
    from: since - start,
    to: end === undefined ? undefined : end - start,
    isOpen: state === 'waits',
  })),
  ...waits.programEnds.map(({ pid, command, status, signal }) => ({
    kind: 'programEnd',
    pid,
    command,
    status,
    signal,
  })),
]

/** What programs wait for, and how those ended that failed. Time that these wait has no end, so it comes first. */
const waitLines = (waits: SessionWaits, end: number): string[] => {
  const lines = [
    ...waits.lasting.map(({ facts: { command, pid, device, text, since }, state, end: until = end }) => {
      const verb = state === 'closed' ? 'waited until it ended' : 'waits'
      return `  ${command} (${pid}) ${verb}, for ${durationText(until - since)}, at ${device}: ${text}`
    }),
    ...waits.programEnds
      .filter(({ status }) => status !== 0)
      .map(one => `  ${one.command} (${one.pid}) ${programEndText(one)}`),
  ]
  return lines.length === 0 ? [] : ['what programs wait for', ...lines, '']
}

/** The command. Throws UsageError. */
const explainSession = async (name: string, options: SlowOptions, path: string): Promise<void> => {
  const { top } = options
  const source = openSessionFile(path)
  const progress = createProgress('userdma explain')
  try {
    const session = await openSession(source)
    const longest = new LongestRequests(top)
    const times = new TimesOfRequests(one => longest.add(one))
    const waits = new SessionWaits()
    const symbols = new SessionSymbols()
    let unreadable = 0
    const add = (event: SessionEvent): void => {
      try {
        waits.add(event)
        symbols.add(event)
        times.add(event)
      } catch {
        // A file that was made by others may have records of any content.
        unreadable++
      }
    }
    for (const event of (await session.checkpointBefore(session.start)).events) add(event)
    const total = session.blocks.reduce((sum, { events }) => sum + events, 0)
    let read = 0
    progress.show(
      () => `${Math.floor((100 * read) / total)} % of ${bytesText(source.size)}`,
      () => read / total,
    )
    for await (const event of session.eventsIn()) {
      add(event)
      read++
    }
    times.end(session.end)
    progress.end()

    const texts = createTexts(times, symbols, session.start)
    const queues = [...times.queues].sort((a, b) => sumOfPhases(b.phases) - sumOfPhases(a.phases))
    const shown = queues.slice(0, top)
    const write = (line: string): void => void process.stdout.write(`${line}\n`)
    if (options.json) {
      for (const wait of waitsJson(waits, session.start)) write(jsonText(wait))
      for (const queue of shown) write(jsonText(queueJson(queue, texts.queueName(queue))))
      for (const request of longest.list) write(jsonText(requestJson(request, symbols, session.start)))
    } else if (queues.length === 0 && waits.lasting.length === 0) write(`${printable(name)} has no sends`)
    else {
      const lines = [
        ...waitLines(waits, session.end),
        ...shown.flatMap(queue => [...texts.queueLines(queue), '']),
        ...(queues.length > top
          ? [`${queues.length - top} more queue pairs had less time with sends outstanding (--top)`, '']
          : []),
        ...(longest.list.length > 0 ? ['the longest sends', ...longest.list.flatMap(texts.requestLines)] : []),
      ]
      for (const line of lines) write(printable(line))
    }
    if (times.omitted > 0)
      process.stderr.write(
        `userdma: ${times.omitted} sends were left out: too many at once, or of unknown queue pairs\n`,
      )
    const damaged = session.damaged + unreadable
    if (damaged > 0) process.stderr.write(`userdma: ${damaged} damaged parts of ${printable(name)} were left out\n`)
  } catch (error) {
    if (error instanceof SessionFileError) throw new UsageError(`${name}: ${error.message}`)
    throw error
  } finally {
    progress.end()
    source.close()
  }
}

/** The command: of a session file, or of a capture as one. Throws UsageError. */
export const explainSlow = async (name: string, options: SlowOptions): Promise<void> => {
  const { path, remove } = await openedSession(name, options.capture, 'explain')
  try {
    await explainSession(name, options, path)
  } finally {
    remove()
  }
}
