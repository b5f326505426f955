/*
 * Captures as session files, for commands that read these: a capture is written as a session into a temporary file.
 */
import { closeSync, mkdtempSync, openSync, readSync, rmSync, statSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FileHeader } from '../spec/session-file.ts'
import { type AnalysisOptions, CaptureAnalysis } from '../tools/captures/analysis.ts'
import type { CaptureReader } from '../tools/captures/file.ts'
import { PacketsBeside } from '../tools/captures/sessions/beside.ts'
import { CaptureSession } from '../tools/captures/sessions/session.ts'
import { copyEvent } from '../tools/record/copy.ts'
import { SessionFileError } from '../tools/record/error.ts'
import { openSession } from '../tools/record/reader.ts'
import { SessionWriter, type WriterOptions } from '../tools/record/writer.ts'
import { openCapture, readCaptureFile } from './capture-file.ts'
import { beforeEndBySignal } from './end-signals.ts'
import { UsageError } from './fail.ts'
import { packageVersion } from './paths.ts'
import { createProgress } from './progress.ts'
import { openSessionFile } from './session-file.ts'

/** Most bytes of the session file: of a longer capture it has the last part. */
const LIMIT = 2 ** 30

/** Whether a file begins as a session file does; true if it cannot be read, so that its reader says why. */
export const isSessionFile = (name: string): boolean => {
  const start = Buffer.alloc(FileHeader.start.length)
  try {
    // A pipe would wait for a writer.
    if (!statSync(name).isFile()) return true
    const fd = openSync(name, 'r')
    try {
      readSync(fd, start, 0, start.length, 0)
    } finally {
      closeSync(fd)
    }
  } catch {
    return true
  }
  return start.toString('latin1') === FileHeader.start
}

interface SessionOfCapture {
  /** Of the session file. */
  readonly path: string
  /** Removes the file. */
  remove(): void
}

type Settings = Pick<AnalysisOptions, 'port' | 'filter'>

const read = (name: string, reader: CaptureReader, command: string, what: string): Promise<void> =>
  readCaptureFile(name, reader, command, () => `reading ${name}, ${what}`)

/** A new session file, which `fill` writes. */
const temporarySession = async (
  options: Omit<WriterOptions, 'application' | 'payload' | 'limit'>,
  fill: (writer: SessionWriter) => Promise<void>,
): Promise<SessionOfCapture> => {
  let folder: string | undefined
  const clear = (): void => {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true })
  }
  // Before the folder: a signal may come at once.
  const removeHandlers = beforeEndBySignal(clear)
  const remove = (): void => {
    removeHandlers()
    clear()
  }
  let path: string
  try {
    folder = mkdtempSync(join(tmpdir(), 'userdma-capture-'))
    path = join(folder, 'session.udr')
    const fd = openSync(path, 'wx', 0o600)
    try {
      const write = (position: number, bytes: Uint8Array, done: () => void): void => {
        for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, position + at)
        done()
      }
      const application = `userdma ${packageVersion()}`
      await fill(new SessionWriter({ write }, { ...options, application, payload: 0, limit: LIMIT }))
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    remove()
    const { code } = error as NodeJS.ErrnoException
    if (code !== 'ENOSPC' && code !== 'EDQUOT') throw error
    throw new Error(
      `${folder ?? tmpdir()}: ${code}: the capture is written there as a session file, of up to ${LIMIT / 2 ** 30} GiB; free some disk space, or choose another file system with TMPDIR`,
    )
  }
  return { path, remove }
}

/** Writes a capture as a session file. Throws UsageError if it is none. */
export const sessionOfCapture = async (
  name: string,
  command: string,
  settings: Settings = {},
): Promise<SessionOfCapture> => {
  const analysis = new CaptureAnalysis(settings)
  await read(name, analysis.reader, command, 'first time')
  analysis.finish()
  const { reader, startSeconds, startNanoseconds, end } = analysis
  if (reader.format === undefined)
    throw new UsageError(`${name} is neither a session file nor a capture: ${reader.damage?.reason}`)
  if (reader.damage !== undefined)
    process.stderr.write(`userdma: ${name}: read up to byte ${reader.damage.offset}: ${reader.damage.reason}\n`)
  const origin = startSeconds * 1000 + startNanoseconds / 1e6
  return temporarySession({ machine: `a capture, ${name}`, origin, isCapture: true }, async writer => {
    const session = new CaptureSession(analysis, writer)
    const again = new CaptureAnalysis({
      ...settings,
      addresses: analysis.addresses,
      onPacket: (packet, located, _kind, time) => session.add(packet, located, time),
    })
    await read(name, again.reader, command, 'second time')
    again.reader.end()
    session.finish()
    await writer.end(end / 1000, 'the capture ends')
  })
}

/**
 * Writes a recording with the packets of a capture that was made on the same machine at the same time. Throws
 * UsageError.
 */
export const sessionBesideCapture = async (
  name: string,
  captureName: string,
  command: string,
  { port }: Settings = {},
): Promise<SessionOfCapture> => {
  const source = openSessionFile(name)
  try {
    const session = await openSession(source)
    const { machine, origin } = session.header
    return await temporarySession({ machine, origin }, async writer => {
      const packets = new PacketsBeside(writer, origin, port)
      const { reader } = packets
      const capture = await openCapture(captureName, reason => reader.fail(reason))
      const chunks = capture.chunks[Symbol.asyncIterator]()
      let count = 0
      /** Writes the packets before a time. */
      const until = async (time: number): Promise<void> => {
        for (;;) {
          while (packets.queue.length > 0) {
            if (packets.queue[0]!.time > time) return
            packets.queue.shift()!.write()
            count++
          }
          const next = await chunks.next()
          if (next.done || reader.damage !== undefined) return
          reader.push(next.value)
        }
      }
      const { events } = await session.checkpointBefore(session.start)
      for (const event of events) {
        packets.learn(event)
        copyEvent(writer, event.time, event)
      }
      const progress = createProgress(`userdma ${command}`)
      progress.show(
        () => `joining ${captureName} and ${name}`,
        () => 0,
      )
      try {
        for await (const event of session.eventsIn()) {
          packets.learn(event)
          await until(event.time)
          copyEvent(writer, event.time, event)
        }
        await until(Number.POSITIVE_INFINITY)
      } finally {
        progress.end()
        await chunks.return?.()
      }
      reader.end()
      if (reader.format === undefined) throw new UsageError(`${captureName}: ${reader.damage?.reason}`)
      if (reader.damage !== undefined)
        process.stderr.write(
          `userdma: ${captureName}: read up to byte ${reader.damage.offset}: ${reader.damage.reason}\n`,
        )
      if (count === 0) process.stderr.write(`userdma: ${captureName} has no RDMA packets\n`)
      await writer.end(session.end, 'the recording and the capture end')
    })
  } catch (error) {
    if (error instanceof SessionFileError) throw new UsageError(`${name}: ${error.message}`)
    throw error
  } finally {
    source.close()
  }
}

/** What a command shows: a session file, a capture as one, or with `beside` a session file and a capture. */
export const openedSession = async (
  name: string,
  beside: string | undefined,
  command: string,
  settings: Settings = {},
): Promise<SessionOfCapture> => {
  if (beside !== undefined) return sessionBesideCapture(name, beside, command, settings)
  return isSessionFile(name) ? { path: name, remove: () => {} } : sessionOfCapture(name, command, settings)
}
