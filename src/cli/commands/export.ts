/*
 * `userdma export`: writes a session file (`--record`) in another format, event by event.
 */
import { closeSync, fstatSync, openSync, read as readFile } from 'node:fs'
import { basename } from 'node:path'
import { isatty } from 'node:tty'
import { writeHtml } from '../../inspect/html.ts'
import { readPage } from '../../inspect/page.ts'
import { copyEvent } from '../../record/copy.ts'
import { SessionFileError } from '../../record/error.ts'
import type { SessionEvent } from '../../record/events.ts'
import { bytesSource, openSession, type Session, type SessionSource } from '../../record/reader.ts'
import { createRedactor } from '../../record/redact.ts'
import { SessionWriter } from '../../record/writer.ts'
import { createCapture } from '../export/packets.ts'
import { createPerfetto } from '../export/perfetto.ts'
import { eventJson, eventLine } from '../export/text.ts'
import { UsageError } from '../fail.ts'
import { closeOutput, createOutput, keepOutput, writeAll } from '../output-file.ts'
import { pageFolder } from '../paths.ts'
import { createProgress, NO_PROGRESS } from '../progress.ts'
import { bytesText } from './stat.ts'

/** As commander parses them. */
export interface ExportOptions {
  readonly to: string
  readonly output?: string
  readonly redact?: boolean
}

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
  /** Calls `use` for all events in order of time, redacted if asked for. Events that `use` cannot read are counted. */
  forEach(use: (event: SessionEvent) => void): Promise<void>
  readonly write: Write
  /** How far the exporter is, 0 to 1, beside `forEach`, which reports itself. */
  report(share: number): void
}

type Exporter = (exporting: Exporting) => Promise<void>

const toText: Exporter = async ({ session, forEach, write }) => {
  const { application, machine, origin } = session.header
  write(`recorded by ${application} on ${machine}, ${new Date(origin + session.start / 1000).toISOString()}\n`)
  await forEach(event => write(`${eventLine(event)}\n`))
}

const toJson: Exporter = async ({ session, forEach, write }) => {
  write(`${JSON.stringify({ kind: 'session', ...session.header })}\n`)
  await forEach(event => write(`${JSON.stringify(eventJson(event))}\n`))
}

const toPcapng: Exporter = async ({ session, existing, forEach, write }) => {
  const devices = new Map<number, string>()
  const noteDevice = (event: SessionEvent): void => {
    if (event.kind === 'device' && event.change !== 'removed') devices.set(event.device, event.name)
  }
  // The interfaces stand at the start of a capture.
  await existing(Number.POSITIVE_INFINITY, noteDevice)
  await forEach(noteDevice)
  const add = createCapture(write, session.header, devices)
  await forEach(event => {
    if (event.kind === 'packets') add(event.time, event)
  })
}

const toPerfetto: Exporter = async ({ existing, forEach, write }) => {
  const perfetto = createPerfetto(write)
  // Objects that were created before the first event of a file with a limit.
  await existing(0, event => perfetto.add(event))
  await forEach(event => perfetto.add(event))
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

const exporters: Readonly<Record<string, Exporter>> = {
  text: toText,
  json: toJson,
  pcapng: toPcapng,
  perfetto: toPerfetto,
  html: toHtml,
}
/** Formats of `--to`. */
export const formats = Object.keys(exporters)
/** How often an exporter reads the whole session, if not once. */
const PASSES: Readonly<Record<string, number>> = { pcapng: 2 }
const BINARY: readonly string[] = ['pcapng', 'perfetto']

/** Bytes that are collected for one write. */
const CHUNK = 2 ** 16

/** Collects output into larger writes. */
const createBuffer = (fd: number) => {
  const chunk = new Uint8Array(CHUNK)
  let length = 0
  const flush = (): void => {
    writeAll(fd, chunk.subarray(0, length))
    length = 0
  }
  return {
    flush,
    write(data: string | Uint8Array): void {
      const bytes = typeof data === 'string' ? Buffer.from(data) : data
      if (length + bytes.length > CHUNK) flush()
      if (bytes.length > CHUNK) writeAll(fd, bytes)
      else {
        chunk.set(bytes, length)
        length += bytes.length
      }
    },
  }
}

/** A session file on disk. Throws UsageError. */
const openFile = (name: string): SessionSource & { close(): void } => {
  let fd: number
  try {
    fd = openSync(name, 'r')
  } catch (error) {
    throw new UsageError(`cannot read ${name}: ${(error as NodeJS.ErrnoException).code}`)
  }
  const stat = fstatSync(fd)
  if (!stat.isFile()) {
    closeSync(fd)
    throw new UsageError(`cannot read ${name}: it is not a regular file`)
  }
  return {
    size: stat.size,
    read: (offset, length) =>
      new Promise((resolve, reject) => {
        const bytes = new Uint8Array(Math.max(0, Math.min(length, stat.size - offset)))
        readFile(fd, bytes, 0, bytes.length, offset, (error, count) => {
          if (error) reject(error)
          else resolve(bytes.subarray(0, count))
        })
      }),
    close: () => closeSync(fd),
  }
}

/** Not if the reader of a pipe may write to the terminal too, as `less`, and not between lines on it. */
const mayShowProgress = (output: string | undefined): boolean => output !== undefined || fstatSync(1).isFile()

/** The command. Throws UsageError. */
export const exportSession = async (name: string, { to, output, redact }: ExportOptions): Promise<void> => {
  const exporter = exporters[to]
  if (exporter === undefined) throw new UsageError(`--to "${to}" is not one of ${formats.join(', ')}`)
  if (output === undefined && BINARY.includes(to) && isatty(1))
    throw new UsageError(`--to ${to} is not text: name a file with -o FILE`)
  const source = openFile(name)
  const progress = mayShowProgress(output) ? createProgress('userdma export') : NO_PROGRESS
  try {
    const session = await openSession(source)
    const fd = output === undefined ? 1 : createOutput(output)
    const buffer = createBuffer(fd)
    const redactor = redact ? createRedactor() : (event: SessionEvent) => event
    let unreadable = 0
    type Use = (event: SessionEvent) => void
    const redactFor = (use: Use, event: SessionEvent): void => {
      try {
        use(redactor(event))
      } catch (error) {
        // A file that was made by others may have records of any content.
        if (!(error instanceof TypeError) && !(error instanceof RangeError)) throw error
        unreadable++
      }
    }
    const existing = async (time: number, use: Use): Promise<void> => {
      for (const event of (await session.checkpointBefore(time)).events) redactFor(use, event)
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
        redactFor(use, event)
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
      forEach,
      write: buffer.write,
      report,
    })
    progress.end()
    buffer.flush()
    if (output !== undefined) {
      keepOutput(fd)
      closeOutput(fd)
    }
    const damaged = session.damaged + unreadable
    if (damaged > 0) process.stderr.write(`userdma: ${damaged} damaged parts of ${name} were left out\n`)
  } catch (error) {
    if (error instanceof SessionFileError) throw new UsageError(`${name}: ${error.message}`)
    throw error
  } finally {
    progress.end()
    source.close()
  }
}
