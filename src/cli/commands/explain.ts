/*
 * `userdma explain` and `userdma check --explain`: explain a finding, a completion status, an event of a device or of
 * rdma_cm, or a cause by its vendor_err or name.
 */
import { existsSync, readdirSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { didYouMean } from '../../base/suggest.ts'
import { type CauseName, causeOfCode, causes } from '../../spec/check/causes.ts'
import { cmEventMeanings, deviceEventMeanings, type EventMeaning } from '../../spec/check/event-meanings.ts'
import {
  adviceOfKind,
  type FindingId,
  findingIds,
  findingOfCause,
  findings,
  isFindingId,
} from '../../spec/check/findings.ts'
import { type EventName, findingsOf, libibverbsTexts, type StatusName, statuses } from '../../spec/check/statuses.ts'
import { AsyncEventType, CmEventType } from '../../spec/enums.ts'
import { WcStatus } from '../../spec/work.ts'
import { type ColorOptions, type Paint, paintFor } from '../colors.ts'
import { UsageError } from '../fail.ts'
import type { NamedFile } from '../log-files.ts'

const print = (lines: readonly string[]): void => void process.stdout.write(`${lines.join('\n')}\n`)

/** The lines about a finding. */
const findingPage = (id: FindingId, paint: Paint): string[] => {
  const { severity, title, why, causes: causeNames = [] } = findings[id]
  const advice = adviceOfKind(id)
  return [
    `${id} (${paint(severity, severity)}): ${title}`,
    '',
    why,
    ...(advice.length === 0 ? [] : ['', ...advice.map(line => `What to do: ${line}.`)]),
    ...(causeNames.length > 0 ? ['', `Causes in log, trace and stat: ${causeNames.join(', ')}`] : []),
  ]
}

/** The line about a cause; placeholders in its text are printed as `<name>`. */
const causeLine = (name: CauseName): string => {
  const { code, text } = causes[name]
  return `  vendor_err 0x${code.toString(16)}  ${name}: ${text.replace(/\{(\w+)(?::\w+)?\}/g, '<$1>')}`
}

const isStatus = (name: StatusName | EventName): name is StatusName => Object.hasOwn(statuses, name)

/** The events of the system-wide device: userdma reports them, without a cause. */
const SYSTEM_EVENTS: readonly string[] = ['DEVICE_ADDED', 'DEVICE_REMOVED'] satisfies EventName[]

const meaningLines = ({ meaning, status, advice }: EventMeaning): readonly string[] => [
  '',
  meaning,
  ...(status === undefined ? [] : ['', `Status of the event: ${status}.`]),
  '',
  `What to do: ${advice}.`,
]

const deviceEventMeaning = (name: string): EventMeaning | undefined =>
  Object.hasOwn(deviceEventMeanings, name) ? deviceEventMeanings[name as keyof typeof deviceEventMeanings] : undefined

/** The lines about a completion status or event: findings that lead to it, likeliest first, and causes. */
const statusPage = (name: StatusName | EventName): string[] => {
  const hasThisResult = (cause: CauseName): boolean => causes[cause].results.some(result => result === name)
  const ids = findingsOf(name)
  const event = deviceEventMeaning(name)
  const withoutFinding = (Object.keys(causes) as CauseName[]).filter(
    cause => hasThisResult(cause) && findingOfCause(cause) === undefined,
  )
  const isReported = withoutFinding.length > 0 || SYSTEM_EVENTS.includes(name)
  const noFindings = isReported ? 'not a mistake of the program' : 'userdma never reports it'
  return [
    `${name}: ${ids.length > 0 ? 'look for these, in this order' : noFindings}`,
    ...(isStatus(name) ? ['', statuses[name]] : []),
    ...(event === undefined ? [] : meaningLines(event)),
    ...ids.flatMap((id, i) => {
      const { title, causes: causeNames = [] } = findings[id]
      return [
        '',
        `${i + 1}. ${id}: ${title}`,
        ...adviceOfKind(id).map(line => `  ${line}`),
        ...causeNames.filter(hasThisResult).map(causeLine),
      ]
    }),
    ...(withoutFinding.length > 0 ? ['', ...withoutFinding.map(causeLine)] : []),
  ]
}

/** `--explain`: prints a finding, or the list of all. Throws UsageError. */
export const explainFinding = (id: string | true, options: ColorOptions): void => {
  const paint = paintFor(options, process.stdout)
  if (id === true) {
    const width = Math.max(...findingIds.map(known => known.length))
    print(
      findingIds.map(
        known =>
          `${known.padEnd(width)}  ${paint(findings[known].severity, findings[known].severity.padEnd(7))}  ${findings[known].title}`,
      ),
    )
  } else if (isFindingId(id)) print(findingPage(id, paint))
  else
    throw new UsageError(
      `--explain "${id}": there is no such finding${didYouMean(id, findingIds) || `; there are ${findingIds.join(', ')}`}`,
    )
}

const isNumber = (word: string): boolean => /^(?:0x[0-9a-f]+|[0-9]+)$/i.test(word)

/**
 * The name of a status or event in any spelling: RETRY_EXC_ERR, IBV_WC_RETRY_EXC_ERR, ibv_wc_retry_exc_err, RETRY_EXC,
 * "transport retry counter exceeded"; or of a status by its number, which many programs print. Every vendor_err is a
 * larger number.
 */
const statusName = (word: string): StatusName | EventName | undefined => {
  if (isNumber(word)) {
    const statusNames = Object.keys(WcStatus.values) as StatusName[]
    return statusNames.find(name => WcStatus.values[name] === Number(word))
  }
  const text = word.toUpperCase().replace(/^IBV_(?:WC|EVENT)_/, '')
  const plain = text.replaceAll(' ', '_')
  const names = [...Object.keys(WcStatus.values), ...Object.keys(AsyncEventType.values)] as (StatusName | EventName)[]
  return names.find(name => name === plain || name === `${plain}_ERR` || libibverbsTexts[name]?.toUpperCase() === text)
}

type CmEventName = keyof typeof CmEventType.values

/** The name of an event of rdma_cm: DISCONNECTED, RDMA_CM_EVENT_DISCONNECTED. */
const cmEventName = (word: string): CmEventName | undefined => {
  const plain = word.toUpperCase().replace(/^RDMA_CM_EVENT_/, '')
  return Object.hasOwn(CmEventType.values, plain) ? (plain as CmEventName) : undefined
}

const cmEventPage = (name: CmEventName): readonly string[] => [
  `${name}: an event of rdma_cm`,
  ...meaningLines(cmEventMeanings[name]),
]

/** Whether `explain` knows a word, which may also be the name of a file. */
export const isExplained = (word: string): boolean =>
  isFindingId(word) ||
  Object.hasOwn(causes, word) ||
  (isNumber(word) && causeOfCode(Number(word)) !== undefined) ||
  statusName(word) !== undefined ||
  cmEventName(word) !== undefined

/** What names of captures, recordings and logs end with, or the whole name of one in another folder. */
const FILE_NAME =
  /^(?:[\w.-]+=)?\S*[/\\]\S*$|^\S+\.(?:pcap(?:ng)?|cap|dmp|erf|ntar|snoop|udr|gz|zst|tgz|tar|log|txt|out|err)(?:\.?\d+)?$/i

/** Names of files in the folder of a file; none if it cannot be read. */
const filesBeside = (name: string): readonly string[] => {
  try {
    return readdirSync(dirname(name))
  } catch {
    return []
  }
}

/** `FILE`, or `HOST=FILE` for a log whose lines do not say their host. */
const namedFile = (word: string): NamedFile => {
  const split = /^([\w.-]+)=(.+)$/s.exec(word)
  return split !== null && !existsSync(word) && (split[2] === '-' || existsSync(split[2]!))
    ? { host: split[1]!, name: split[2]! }
    : { name: word }
}

/**
 * The files that words are; undefined if they are meant as words. `-` is standard input. Throws UsageError if they are
 * meant as files, and one does not exist.
 */
export const filesAmong = (words: readonly string[]): readonly NamedFile[] | undefined => {
  const files = words.map(namedFile)
  const missing = files.filter(({ name }) => name !== '-' && !existsSync(name)).map(({ name }) => name)
  if (missing.length === 0) return files
  const name =
    missing.length < words.length && !words.some(isPart) ? missing[0] : missing.find(word => FILE_NAME.test(word))
  if (name === undefined) return undefined
  throw new UsageError(`explain "${name}": there is no such file${didYouMean(basename(name), filesBeside(name))}`)
}

/** What stands in lines, not in names of files. */
const isPart = (word: string): boolean => /^(?:0x[0-9a-f]+|-?\d+|E[A-Z]{3,}|(?:ibv|rdma)_\w+)$/.test(word)

/** `userdma explain`. Throws UsageError for an unknown word. */
export const explain = (word: string, options: ColorOptions = {}): void => {
  const paint = paintFor(options, process.stdout)
  const status = statusName(word)
  const cmEvent = cmEventName(word)
  const causeByCode = isNumber(word) ? causeOfCode(Number(word)) : undefined
  const cause = causeByCode ?? (Object.keys(causes) as CauseName[]).find(name => name === word)
  if (isFindingId(word)) print(findingPage(word, paint))
  // Before the status: DEVICE_REMOVED is also an event. Logs and traces name the cause.
  else if (cause !== undefined) {
    const finding = findingOfCause(cause)
    const ofEvent = cmEvent === undefined ? [] : ['', ...cmEventPage(cmEvent)]
    print([causeLine(cause).trim(), ...(finding === undefined ? [] : ['', ...findingPage(finding, paint)]), ...ofEvent])
  } else if (status !== undefined) print(statusPage(status))
  else if (cmEvent !== undefined) print(cmEventPage(cmEvent))
  else {
    const events = [...Object.keys(AsyncEventType.values), ...Object.keys(CmEventType.values)]
    const names = [...Object.keys(WcStatus.values), ...events, ...Object.keys(causes)]
    const plain = word
      .toUpperCase()
      .replace(/^IBV_(?:WC|EVENT)_|^RDMA_CM_EVENT_/, '')
      .replaceAll(' ', '_')
    throw new UsageError(
      `explain "${word}": not a status${didYouMean(word, [...names, ...findingIds]) || didYouMean(plain, names) || ` (${Object.keys(WcStatus.values).join(', ')}) nor the number of a status, an event, a cause, a vendor_err, a finding (\`userdma check --explain\` lists the findings), nor a line of a known program, nor a log, nor a capture file`}`,
    )
  }
}
