/*
 * `userdma export`: writes a session file (`--record`) in another format, event by event.
 *
 * The file may be from somebody else. So its texts are made printable, records of any content are left out and counted,
 * and the output is bounded: a record can stand for many packets, and many records for one text.
 */
import { fstatSync } from 'node:fs'
import { basename } from 'node:path'
import { isatty } from 'node:tty'
import { bytesText } from '../../spec/byte-count.ts'
import type { Severity } from '../../spec/check/severity.ts'
import { jsonText, printable } from '../../spec/printable.ts'
import { isForChecker, type SessionEvent } from '../../spec/session-events.ts'
import { writeHtml } from '../../tools/inspect/html.ts'
import { readPage } from '../../tools/inspect/page-files.ts'
import { copyEvent } from '../../tools/record/copy.ts'
import { SessionFileError } from '../../tools/record/error.ts'
import { isOfLends } from '../../tools/record/lends.ts'
import { bytesSource, openSession, type Session, type SessionSource } from '../../tools/record/reader.ts'
import { createRedactor } from '../../tools/record/redact.ts'
import { readSymbols, SessionSymbols } from '../../tools/record/symbols.ts'
import { SessionWriter } from '../../tools/record/writer.ts'
import { type Paint, paintedWord, paintFor } from '../colors.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { exportFormats, exportOptions } from '../command-line/options.ts'
import { beforeEndBySignal } from '../end-signals.ts'
import { createCapture } from '../export/packets.ts'
import { createPerfetto } from '../export/perfetto.ts'
import { eventJson, eventLine } from '../export/text.ts'
import { UsageError } from '../fail.ts'
import { createResult, requireDifferentFiles, writeAll } from '../output-file.ts'
import { pageFolder } from '../paths.ts'
import { createProgress, NO_PROGRESS } from '../progress.ts'
import { openSessionFile } from '../session-file.ts'

type ExportOptions = OptionsOf<typeof exportOptions>

/** Formats with lent memory, which a redacted file does not have: it would tell of the program's words. */
const WITH_LENDS: ReadonlySet<string> = new Set(['text', 'json', 'html'])

type Write = (data: string | Uint8Array) => void

/** What a format needs of a session. */
interface Exporting {
  /** Of the file. */
  readonly name: string
  readonly source: SessionSource
  /** Without its events, which `existing` and `forEach` redact if asked for. */
  readonly session: Omit<Session, 'read' | 'eventsIn' | 'checkpointBefore'>
  readonly isRedacted: boolean
  /** Calls `use` for the events of the checkpoint before `time`, as `forEach`. */
  existing(time: number, use: (event: SessionEvent) => void): Promise<void>
  /** The symbols of the stacks, redacted if asked for. */
  symbols(): Promise<SessionSymbols>
  /** Calls `use` for all events in order of time, redacted if asked for. Events that `use` cannot read are counted. */
  forEach(use: (event: SessionEvent) => void): Promise<void>
  readonly write: Write
  /** Writes a line of text, made printable. `severity`: of the finding in it. */
  writeLine(text: string, severity?: Severity): void
  /** How far the exporter is, 0 to 1, beside `forEach`, which reports itself. */
  report(share: number): void
}

type Exporter = (exporting: Exporting) => Promise<void>

/** Times count from the first event of the file, as in the page: microseconds. */
const fromStart =
  (start: number, use: (event: SessionEvent) => void): ((event: SessionEvent) => void) =>
  event =>
    use(
      event.kind === 'posted'
        ? { ...event, time: event.time - start, request: { ...event.request, time: event.request.time - start } }
        : { ...event, time: event.time - start },
    )

const toText: Exporter = async ({ session, symbols: read, forEach, writeLine }) => {
  const symbols = await read()
  const { application, machine, origin } = session.header
  writeLine(`recorded by ${application} on ${machine}, ${new Date(origin + session.start / 1000).toISOString()}`)
  await forEach(
    fromStart(session.start, event =>
      writeLine(eventLine(event, symbols), event.kind === 'finding' ? event.finding.severity : undefined),
    ),
  )
}

const toJson: Exporter = async ({ session, forEach, write }) => {
  const origin = session.header.origin + session.start / 1000
  write(`${jsonText({ kind: 'session', ...session.header, origin })}\n`)
  await forEach(fromStart(session.start, event => write(`${jsonText(eventJson(event))}\n`)))
}

const toPcapng: Exporter = async ({ session, existing, forEach, write }) => {
  const devices = new Map<number, string>()
  const noteDevice = (event: SessionEvent): void => {
    if (event.kind === 'device' && event.change !== 'removed') devices.set(event.device, event.name)
  }
  // The interfaces stand at the start of a capture.
  await existing(Number.POSITIVE_INFINITY, noteDevice)
  await forEach(noteDevice)
  const capture = createCapture(write, session.header, devices)
  await forEach(event => {
    if (event.kind === 'packets') capture.add(event.time, event)
  })
  capture.end()
}

const toPerfetto: Exporter = async ({ session, existing, forEach, write }) => {
  const perfetto = createPerfetto(write)
  // Objects that were created before the first event of a file with a limit.
  await existing(0, event => perfetto.add({ ...event, time: 0 }))
  await forEach(fromStart(session.start, event => perfetto.add(event)))
}

/** The events in a session file in memory. */
const inMemory = async ({ session, existing, forEach }: Exporting): Promise<Uint8Array> => {
  let bytes = new Uint8Array(2 ** 20)
  let size = 0
  const write = (position: number, part: Uint8Array, done: () => void): void => {
    const end = position + part.length
    if (end > bytes.length) {
      const longer = new Uint8Array(Math.max(end, 2 * bytes.length))
      longer.set(bytes)
      bytes = longer
    }
    bytes.set(part, position)
    size = Math.max(size, end)
    done()
  }
  const { application, machine, origin, payload } = session.header
  const writer = new SessionWriter({ write }, { application, machine, origin, payload })
  const copy = (event: SessionEvent): void => copyEvent(writer, event.time, event)
  await existing(session.start, copy)
  await forEach(copy)
  await writer.end(session.end, 'the session was exported')
  return bytes.subarray(0, size)
}

const toHtml: Exporter = async exporting => {
  const { name, source, isRedacted, write, report } = exporting
  const { size, read } = isRedacted ? bytesSource(await inMemory(exporting)) : source
  const reported = (offset: number, length: number): Promise<Uint8Array> => {
    report(offset / size)
    return read(offset, length)
  }
  await writeHtml(readPage(pageFolder), basename(name), { size, read: reported }, write)
}

const exporters: Readonly<Record<keyof typeof exportFormats, Exporter>> = {
  text: toText,
  json: toJson,
  pcapng: toPcapng,
  perfetto: toPerfetto,
  html: toHtml,
}
/** How often an exporter reads the whole session, if not once. */
const PASSES: Readonly<Record<string, number>> = { pcapng: 2 }
const BINARY: readonly string[] = ['pcapng', 'perfetto']

/**
 * The output has at most so many times the bytes of the session's blocks: it is bounded, whatever a file says. Captures
 * need more, since one record stands for a run of packets (transport/phy/runs/limits.ts), of which a capture has all
 * bytes.
 */
const MAX_RATIO = 512
const MAX_CAPTURE_RATIO = 16_384
/** The output may always have so many bytes. */
const LEAST_MAX_SIZE = 16 * 2 ** 20

/** The output cannot be written, or would be too long. */
class OutputError extends Error {
  override readonly name = 'OutputError'
}

/** Bytes that are collected for one write. */
const CHUNK = 2 ** 16

/** Collects output into larger writes. `open`: returns the descriptor, and throws an Error. `limit`: bytes in total. */
const createBuffer = (name: string, open: () => number, limit: number, limitText: string, paint: Paint) => {
  const chunk = new Uint8Array(CHUNK)
  let length = 0
  let total = 0
  const put = (bytes: Uint8Array): void => {
    try {
      writeAll(open(), bytes)
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      throw new OutputError(code === undefined ? message : `cannot write to ${name}: ${code}`)
    }
  }
  const flush = (): void => {
    put(chunk.subarray(0, length))
    length = 0
  }
  const spend = (bytes: number): void => {
    total += bytes
    if (total > limit) throw new OutputError(limitText)
  }
  const write = (data: string | Uint8Array): void => {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data
    spend(bytes.length)
    if (length + bytes.length > CHUNK) flush()
    if (bytes.length > CHUNK) put(bytes)
    else {
      chunk.set(bytes, length)
      length += bytes.length
    }
  }
  return {
    flush,
    write,
    writeLine(text: string, severity?: Severity): void {
      const line = printable(text)
      // Characters that are left out have cost time too.
      spend(text.length - line.length)
      write(`${severity === undefined ? line : paintedWord(line, `(${severity})`, severity, paint)}\n`)
    },
  }
}

/** Not if the reader of a pipe may write to the terminal too, as `less`, and not between lines on it. */
const mayShowProgress = (output: string | undefined): boolean => output !== undefined || fstatSync(1).isFile()

/** The most bytes of the output, and the sentence if it would have more. Throws UsageError. */
const limitOf = (limit: number | undefined, to: string, name: string, size: number) => {
  if (limit !== undefined) return { limit, limitText: `the output has more than ${bytesText(limit)}, the --max-size` }
  const ratio = to === 'pcapng' ? MAX_CAPTURE_RATIO : MAX_RATIO
  const least = Math.max(LEAST_MAX_SIZE, ratio * size)
  const reason = least === LEAST_MAX_SIZE ? '' : `, ${ratio} times the events of ${name}`
  return {
    limit: least,
    limitText: `the output has more than ${bytesText(least)}${reason}: if you trust the file, allow more with --max-size`,
  }
}

/** The command. `path`: of the session file, if it was made of the file `name`. Throws UsageError, and OutputError. */
export const exportSession = async (name: string, options: ExportOptions, path = name): Promise<void> => {
  const { to, output, redact, maxSize } = options
  const exporter = exporters[to]
  if (output === undefined && BINARY.includes(to) && isatty(1))
    throw new UsageError(`--to ${to} is not text: name a file with -o FILE`)
  const outputFile =
    output === undefined ? (['standard output', '/dev/stdout'] as const) : (['--output', output] as const)
  requireDifferentFiles([outputFile], [['the session', name]])
  const source = openSessionFile(path)
  const progress = mayShowProgress(output) ? createProgress('userdma export') : NO_PROGRESS
  let discard = (): void => {}
  let removeHandlers = (): void => {}
  try {
    const session = await openSession(source)
    // A file with holes, or whose index names a block often, has fewer bytes of events, or fewer bytes.
    const size = Math.min(
      source.size,
      session.blocks.reduce((sum, { length }) => sum + length, 0),
    )
    const { limit, limitText } = limitOf(maxSize, to, name, size)
    const result = output === undefined ? undefined : createResult(output)
    if (result !== undefined) {
      discard = result.discard
      removeHandlers = beforeEndBySignal(discard)
    }
    const paint = paintFor(options, output === undefined ? process.stdout : undefined)
    const buffer = createBuffer(output ?? 'standard output', () => result?.open() ?? 1, limit, limitText, paint)
    const redactor = redact ? createRedactor() : (event: SessionEvent) => event
    let unreadable = 0
    type Use = (event: SessionEvent) => void
    const redactFor = (use: Use, event: SessionEvent): void => {
      try {
        use(redactor(event))
      } catch (error) {
        // A file that was made by others may have records of any content.
        if (error instanceof OutputError) throw error
        unreadable++
      }
    }
    const existing = async (time: number, use: Use): Promise<void> => {
      for (const event of (await session.checkpointBefore(time)).events) redactFor(use, event)
    }
    const readAllSymbols = async (): Promise<SessionSymbols> => {
      const symbols = new SessionSymbols()
      await readSymbols(session, event => redactFor(one => symbols.add(one), event))
      return symbols
    }
    const passes = (PASSES[to] ?? 1) + (to === 'html' && redact ? 1 : 0)
    const events = session.blocks.reduce((sum, block) => sum + block.events, 0)
    let passed = 0
    let share = 0
    const report = (done: number): void => {
      share = (passed + done) / passes
    }
    const forEach = async (use: Use): Promise<void> => {
      let read = 0
      for await (const event of session.eventsIn()) {
        if (!isForChecker(event) || (WITH_LENDS.has(to) && !redact && isOfLends(event))) redactFor(use, event)
        report(++read / events)
      }
      passed++
    }
    progress.show(
      () => `${Math.floor(share * 100)} % of ${bytesText(source.size)}`,
      () => share,
    )
    await exporter({
      name,
      source,
      session,
      isRedacted: redact === true,
      existing,
      symbols: readAllSymbols,
      forEach,
      write: buffer.write,
      writeLine: buffer.writeLine,
      report,
    })
    progress.end()
    buffer.flush()
    result?.commit()
    discard = () => {}
    const damaged = session.damaged + unreadable
    if (damaged > 0) process.stderr.write(`userdma: ${damaged} damaged parts of ${name} were left out\n`)
  } catch (error) {
    if (error instanceof SessionFileError) throw new UsageError(`${name}: ${error.message}`)
    throw error
  } finally {
    progress.end()
    removeHandlers()
    discard()
    source.close()
  }
}
