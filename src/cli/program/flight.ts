/*
 * `run --host --flight-recorder`: where the programs' files are, which session files are written of them, and who may
 * ask for one (`userdma dump PID`).
 */
import { closeSync, existsSync, openSync, rmSync, unlinkSync, writeSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { release } from 'node:os'
import { basename, join } from 'node:path'
import {
  type Dump,
  FlightFiles,
  FlightRecorder,
  type ObserverOutput,
  type Observing,
  RECORDING_ORIGIN,
} from '../../tools/observe/observe.ts'
import { SessionWriter } from '../../tools/record/writer.ts'
import { addressText } from '../../transport/wire/address.ts'
import { messageOf, UsageError } from '../fail.ts'
import { flightSocket } from '../flight-sockets.ts'
import { packageVersion, privateFolder, removeFolder } from '../paths.ts'

/** Bytes of a process's file by default. */
const DEFAULT_BYTES = 16 * 2 ** 20
/** Session files that are written without being asked for. */
const MAX_DUMPS = 8
/** Milliseconds between two of them. */
const PAUSE = 1000
/** Longest question. */
const MAX_QUESTION = 64

interface Flight {
  readonly recorder: FlightRecorder
  readonly observing: Observing
  /** The program has ended. */
  close(): void
}

/** Where files are in memory, and not on a disk. */
const memoryFolder = (): string => {
  try {
    return privateFolder('/dev/shm')
  } catch {
    return privateFolder()
  }
}

/** A new file, `userdma-PID-1.udr` or the next number. */
const newFile = (folder: string, pid: number): { readonly path: string; readonly fd: number } => {
  for (let number = 1; ; number++) {
    const path = join(folder, `userdma-${pid}-${number}.udr`)
    try {
      if (!existsSync(path)) return { path, fd: openSync(path, 'wx', 0o600) }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
  }
}

const say = (text: string): void => void process.stderr.write(`userdma run: ${text}\n`)

/** Starts a flight recorder. `size`: bytes of a process's file; true: the default. Throws UsageError, or an Error. */
export const startFlight = async (
  size: number | true,
  dumpFolder: string | undefined,
  output: ObserverOutput,
): Promise<Flight> => {
  const bytes = size === true ? DEFAULT_BYTES : size
  const folder = dumpFolder ?? process.cwd()
  if (!existsSync(folder)) throw new UsageError(`--flight-folder ${folder}: there is no such folder`)
  const memory = memoryFolder()
  const prefix = join(memory, 'flight-')
  const files = new FlightFiles(prefix)
  let dumps = 0
  let last = -PAUSE
  let isAsked = false
  let written: string | undefined
  const open = (pid: number, why: string): Dump | undefined => {
    const now = performance.now()
    if (!isAsked) {
      if (dumps >= MAX_DUMPS || now - last < PAUSE) return undefined
      dumps++
      last = now
    }
    let file: ReturnType<typeof newFile>
    try {
      file = newFile(folder, pid)
    } catch (error) {
      say(`the flight recorder cannot write to ${folder}: ${messageOf(error)}`)
      return undefined
    }
    const { path, fd } = file
    let failure: unknown
    const write = (position: number, part: Uint8Array, done: (error?: Error) => void): void => {
      try {
        for (let at = 0; at < part.length; ) at += writeSync(fd, part, at, part.length - at, position + at)
        done()
      } catch (error) {
        failure ??= error
        done(error as Error)
      }
    }
    const writer = new SessionWriter(
      { write },
      {
        application: `userdma ${packageVersion()}`,
        isObserved: true,
        machine: `${process.platform} ${process.arch}, kernel ${release()}, node ${process.version}`,
        origin: RECORDING_ORIGIN,
        payload: 0,
      },
    )
    return {
      writer,
      end() {
        closeSync(fd)
        if (failure === undefined) {
          written = path
          say(
            `${why}: what happened before is in ${path}${!isAsked && dumps === MAX_DUMPS ? ' (the last file that is written without `userdma dump`)' : ''}`,
          )
          return
        }
        say(`the flight recorder could not write ${path}: ${messageOf(failure)}`)
        try {
          unlinkSync(path)
        } catch {
          // It is gone.
        }
      },
    }
  }
  const recorder = new FlightRecorder({ files, open, addressText, output })
  const dump = (pid: number): { readonly file?: string; readonly reason?: string } => {
    files.scan()
    const known = files.flights.map(flight => flight.pid)
    const wanted = pid === process.pid ? known[0] : known.find(one => one === pid)
    if (wanted === undefined) return { reason: `process ${pid} has no flight recorder` }
    isAsked = true
    written = undefined
    try {
      recorder.dump(wanted, 'it was asked for')
    } finally {
      isAsked = false
    }
    return written === undefined ? { reason: 'the file could not be written' } : { file: written }
  }
  let server: Server
  try {
    server = await listen(flightSocket(process.pid), dump)
  } catch (error) {
    removeFolder(memory)
    throw error
  }
  return {
    recorder,
    observing: { flight: { prefix, bytes } },
    close() {
      server.close()
      files.close()
      removeFolder(memory)
    },
  }
}

/** Answers questions for a file: a line with a PID, answered by a line of JSON. */
const listen = (path: string, dump: (pid: number) => object): Promise<Server> => {
  // Of a process that was killed, and had this PID.
  rmSync(path, { force: true })
  const server = createServer(connection => {
    let text = ''
    connection.on('error', () => connection.destroy())
    connection.on('data', part => {
      text += part.toString('latin1')
      const [line, rest] = text.split('\n')
      if (rest !== undefined) connection.end(`${JSON.stringify(dump(Number(line)))}\n`)
      else if (text.length > MAX_QUESTION) connection.destroy()
    })
  })
  return new Promise((resolve, reject) => {
    server.on('error', reject)
    server.listen(path, () => resolve(server))
    server.unref()
  }).then(() => {
    say(
      `the flight recorder is on: \`userdma dump PID\` writes a file, with the PID of the program or ${process.pid} (${basename(path)})`,
    )
    return server
  })
}
