/*
 * `userdma explain` of logs: why RDMA failed, from what programs and the kernel wrote. Exit status 65 if RDMA failed.
 */
import { bytesText } from '../../spec/byte-count.ts'
import { jsonText, printable } from '../../spec/printable.ts'
import { LogAnalysis } from '../../tools/logs/analysis.ts'
import { HostNames, Redactor } from '../../tools/logs/redact.ts'
import { quietLine, reportLines, reportObjects, reportOf } from '../../tools/logs/report.ts'
import { explainNumber, explainText } from '../../tools/logs/words.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { explainOptions } from '../command-line/options.ts'
import { UsageError } from '../fail.ts'
import { type NamedFile, openLogs, type Unread } from '../log-files.ts'
import { createProgress } from '../progress.ts'

type ExplainOptions = OptionsOf<typeof explainOptions>

/** EX_DATAERR of sysexits.h: the logs tell of a failure. */
const FAILED = 65

const print = (lines: readonly string[]): void =>
  void process.stdout.write(lines.map(line => `${printable(line).trimEnd()}\n`).join(''))

/** Reads logs, with progress. */
const read = async (analysis: LogAnalysis, files: readonly NamedFile[], unread: Unread[]): Promise<void> => {
  /** The last log of each file: damage is of that one. */
  const ends = new Map<() => string | undefined, string>()
  const progress = createProgress('userdma explain')
  try {
    for await (const { name, host, chunks, read, size, damage } of openLogs(files, unread)) {
      const log = analysis.begin(name, host)
      progress.show(
        () => `${name}: ${bytesText(read())}${size > 0 ? ` of ${bytesText(size)}` : ''}, ${log.lines} lines`,
        () => (size > 0 ? read() / size : 0),
      )
      for await (const chunk of chunks) log.push(chunk)
      log.end()
      ends.set(damage, name)
    }
    for (const [damage, name] of ends) if (damage() !== undefined) analysis.cut(name)
  } finally {
    progress.end()
  }
}

/** `--redact`: the logs themselves, without names and addresses. Reads them twice: first for the names of hosts. */
const redact = async (files: readonly NamedFile[], unread: Unread[]): Promise<void> => {
  if (files.some(({ name }) => name === '-'))
    throw new UsageError('--redact reads logs twice: give files, not - (standard input)')
  const hosts = new HostNames()
  for await (const { chunks } of openLogs(files, []))
    await eachLine(chunks, (text, isStart) => {
      if (isStart) hosts.add(text)
    })
  const redactor = new Redactor([...hosts.names, ...files.flatMap(({ host }) => host ?? [])])
  for await (const { name, chunks } of openLogs(files, unread)) {
    if (files.length > 1) print([redactor.line(`==> ${name} <==`)])
    let written = ''
    await eachLine(chunks, (text, _, end) => {
      written += `${redactor.line(text)}${end}`
      if (written.length < WRITTEN) return
      const isTaken = process.stdout.write(written)
      written = ''
      return isTaken ? undefined : new Promise(resolve => process.stdout.once('drain', resolve))
    })
    process.stdout.write(written)
  }
}

/** Characters that are written at once. */
const WRITTEN = 1 << 16

/** Characters of a line that are held. */
const PIECE = 1 << 20

/**
 * Calls `use` with each line, and with a longer one in pieces of about PIECE that end between words; waits for its
 * promise. `isStart`: the text begins a line. `end`: what follows it in the log, a line feed after a last line too.
 */
const eachLine = async (
  chunks: AsyncIterable<Uint8Array>,
  use: (text: string, isStart: boolean, end: '' | '\n') => Promise<void> | undefined | void,
): Promise<void> => {
  const decoder = new TextDecoder()
  let rest = ''
  let isStart = true
  const take = async (text: string, end: '' | '\n'): Promise<void> => {
    await use(text, isStart, end)
    isStart = end !== ''
  }
  for await (const chunk of chunks) {
    const [first = '', ...others] = decoder.decode(chunk, { stream: true }).split('\n')
    rest += first
    for (const line of others) {
      await take(rest, '\n')
      rest = line
    }
    if (rest.length > PIECE) {
      const end = rest.lastIndexOf(' ') + 1 || rest.length
      await take(rest.slice(0, end), '')
      rest = rest.slice(end)
    }
  }
  if (rest !== '' || !isStart) await take(rest, '\n')
}

/** The command. Throws UsageError. */
export const explainLogs = async (
  files: readonly NamedFile[],
  options: ExplainOptions,
  unread: Unread[],
): Promise<void> => {
  if (options.redact) return await redact(files, unread)
  const analysis = new LogAnalysis()
  await read(analysis, files, unread)
  for (const { name, isBinary, lines } of analysis.sources)
    if (isBinary && !analysis.failures.some(({ source }) => source === name))
      unread.push({ name, reason: `it is neither a log nor a capture: it is binary (${lines} lines)` })
  const names = new Set(unread.map(({ name }) => name))
  if (names.size > 0 && analysis.sources.every(({ name }) => names.has(name))) return
  const report = reportOf(analysis)
  if (report.hasFailed) process.exitCode = FAILED
  if (options.json)
    for (const object of reportObjects(report, options.top, unread)) process.stdout.write(`${jsonText(object)}\n`)
  else print(options.quiet ? [quietLine(report)] : reportLines(report, options.top))
}

/** Prints what a bare number may be besides what it is to userdma, or a text; false if nothing in it is understood. */
export const explainWords = (text: string, isKnown: boolean): boolean => {
  const lines = explainNumber(text)
  if (lines.length > 0) {
    print([
      ...(isKnown ? ['', 'As a value of other software and adapters:'] : [`${text} may be:`]),
      ...lines.map(line => `  ${line}`),
    ])
    return true
  }
  if (isKnown) return true
  const found = explainText(text)
  if (found === undefined) return false
  print(found)
  return true
}
