/*
 * Captures as session files, for commands that read these: a capture is written as a session into a temporary file.
 */
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FileHeader } from '../spec/session-file.ts'
import { type AnalysisOptions, CaptureAnalysis } from '../tools/captures/analysis.ts'
import { CaptureSession } from '../tools/captures/session.ts'
import { SessionWriter } from '../tools/record/writer.ts'
import { openCapture } from './capture-file.ts'
import { UsageError } from './fail.ts'
import { packageVersion } from './paths.ts'
import { createProgress } from './progress.ts'

/** Most bytes of the session file: of a longer capture it has the last part. */
const LIMIT = 2 ** 30

/** Whether a file begins as a session file does; true if it cannot be read, so that its reader says why. */
export const isSessionFile = (name: string): boolean => {
  const start = Buffer.alloc(FileHeader.start.length)
  try {
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

export interface SessionOfCapture {
  /** Of the session file. */
  readonly path: string
  /** Removes the file. */
  remove(): void
}

type Settings = Pick<AnalysisOptions, 'port' | 'filter'>

const read = async (name: string, analysis: CaptureAnalysis, command: string, pass: number): Promise<void> => {
  const { reader } = analysis
  const source = await openCapture(name, reason => reader.fail(reason))
  const progress = createProgress(`userdma ${command}`)
  progress.show(
    () => `reading ${name}, ${pass === 1 ? 'first' : 'second'} time`,
    () => (source.size > 0 ? source.read() / source.size : 0),
  )
  try {
    for await (const chunk of source.chunks) {
      reader.push(chunk)
      if (reader.damage !== undefined) break
    }
  } finally {
    progress.end()
  }
}

/** Writes a capture as a session file. Throws UsageError if it is none. */
export const sessionOfCapture = async (
  name: string,
  command: string,
  settings: Settings = {},
): Promise<SessionOfCapture> => {
  const analysis = new CaptureAnalysis(settings)
  await read(name, analysis, command, 1)
  analysis.finish()
  const { reader, startSeconds, startNanoseconds, end } = analysis
  if (reader.format === undefined)
    throw new UsageError(`${name} is neither a session file nor a capture: ${reader.damage?.reason}`)
  if (reader.damage !== undefined)
    process.stderr.write(`userdma: ${name}: read up to byte ${reader.damage.offset}: ${reader.damage.reason}\n`)
  const folder = mkdtempSync(join(tmpdir(), 'userdma-capture-'))
  const path = join(folder, 'session.udr')
  const remove = (): void => rmSync(folder, { recursive: true, force: true })
  try {
    const fd = openSync(path, 'wx', 0o600)
    try {
      const write = (position: number, bytes: Uint8Array, done: () => void): void => {
        for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, position + at)
        done()
      }
      const writer = new SessionWriter(
        { write },
        {
          application: `userdma ${packageVersion()}`,
          machine: `a capture, ${name}`,
          origin: startSeconds * 1000 + startNanoseconds / 1e6,
          payload: 0,
          isCapture: true,
          limit: LIMIT,
        },
      )
      const session = new CaptureSession(analysis, writer)
      const again = new CaptureAnalysis({
        ...settings,
        addresses: analysis.addresses,
        onPacket: (packet, located, _kind, time) => session.add(packet, located, time),
      })
      await read(name, again, command, 2)
      again.reader.end()
      session.finish()
      await writer.end(end / 1000, 'the capture ends')
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    remove()
    throw error
  }
  return { path, remove }
}
