/*
 * The door of this folder: programs on the machine's own devices, observed (`--host`). `observe` makes the file that
 * programs record into and the environment that makes them record (shim/host/), passes their records on while they run,
 * and answers their questions about fault rules. `Observer` makes findings and the trace of records. The caller runs
 * the programs.
 */
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { type ObservedFaults, type ObservedQuestion, questionOf } from './faults.ts'
import { ObservationFile } from './file.ts'
import { ObserveEnv } from './file-layout.ts'
import type { ObservedRecord } from './records.ts'

export { ObservedFaults } from './faults.ts'
export { type Dump, FlightRecorder } from './flight.ts'
export { FlightFiles } from './flight-files.ts'
export type { ObserverOutput } from './observation.ts'
export { Observer } from './observer.ts'
export { OBSERVED_CHECK, observedRecorder, RECORDING_ORIGIN } from './recording.ts'

/** Milliseconds between two readings of the file. A ring holds some thousands of records. */
const INTERVAL = 10

/** Receives records in the order of their time, and answers questions about fault rules. */
export interface RecordReader {
  answer(question: ObservedQuestion): Uint8Array
  take(records: readonly ObservedRecord[]): void
  lostThreads(count: number): void
}

/** How programs are observed. */
export interface Observing {
  /** Calls and posts have stacks. */
  readonly stacks?: boolean
  readonly faults?: ObservedFaults | undefined
  /** Posts and polls go to files of a flight recorder: how their paths begin, and their bytes. */
  readonly flight?: { readonly prefix: string; readonly bytes: number }
}

/** What observing needs of the caller. */
interface ObservePlace {
  /** A folder for the file of records and the socket of questions. */
  readonly folder: string
  /** The preload library of shim/host/, and with stacks that of shim/frees/. */
  readonly libraries: readonly string[]
}

/** Programs that are observed, from now on. */
interface Observed {
  /** The environment that makes a program record. */
  readonly environment: NodeJS.ProcessEnv
  /** All programs have ended: passes the last records on. */
  finish(): void
  /** Stops without the last records. */
  close(): void
}

/** The environment of an observed program. A shim in LD_PRELOAD stays: its devices are those that the program finds. */
const observedEnvironment = (
  file: string,
  libraries: readonly string[],
  stacks: boolean,
  questions: string | undefined,
  flight: Observing['flight'],
): NodeJS.ProcessEnv => {
  const { file: fileName, stacks: stacksName, faults: faultsName, flight: flightName } = ObserveEnv
  const { [fileName]: _, [stacksName]: _stacks, [faultsName]: _faults, LD_PRELOAD: preloads = '', ...env } = process.env
  return {
    ...env,
    LD_PRELOAD: [...libraries, ...preloads.split(/[\s:]+/).filter(Boolean)].join(':'),
    [fileName]: file,
    ...(stacks && { [stacksName]: '1' }),
    ...(questions !== undefined && { [faultsName]: questions }),
    [flightName]: flight === undefined ? undefined : `${flight.bytes}:${flight.prefix}`,
  }
}

/** Answers questions at the socket `path`, one of each connection. Fulfilled when programs can ask. */
const answerQuestions = (path: string, answer: (question: ObservedQuestion) => Uint8Array): Promise<() => void> => {
  const connections = new Set<Socket>()
  const server = createServer(connection => {
    connections.add(connection)
    let bytes = new Uint8Array()
    connection.on('close', () => connections.delete(connection))
    // The program was killed.
    connection.on('error', () => connection.destroy())
    connection.on('data', part => {
      bytes = new Uint8Array([...bytes, ...part])
      try {
        const question = questionOf(bytes)
        if (question !== undefined) connection.end(answer(question))
      } catch (error) {
        if (!(error instanceof RangeError)) throw error
        connection.destroy()
      }
    })
  })
  return new Promise((resolve, reject) => {
    server.on('error', reject)
    server.listen(path, () =>
      resolve(() => {
        server.close()
        for (const connection of connections) connection.destroy()
      }),
    )
  })
}

/** Passes the records of all programs that get the environment to `reader`. */
export const observe = async (
  { folder, libraries }: ObservePlace,
  reader: RecordReader,
  { stacks = false, faults, flight }: Observing,
): Promise<Observed> => {
  const path = join(folder, 'observed')
  const file = new ObservationFile(path)
  const read = (): void => reader.take(file.read(process.hrtime.bigint()))
  const timer = setInterval(read, INTERVAL)
  const questions = faults && join(folder, 'questions')
  let closeQuestions: (() => void) | undefined
  const close = (): void => {
    clearInterval(timer)
    closeQuestions?.()
    file.close()
  }
  try {
    if (faults !== undefined && questions !== undefined) {
      let asks = faults.asks
      file.asks = asks
      closeQuestions = await answerQuestions(questions, question => {
        read()
        const bytes = reader.answer(question)
        if (faults.asks !== asks) {
          asks = faults.asks
          file.asks = asks
        }
        return bytes
      })
    }
  } catch (error) {
    close()
    throw error
  }
  return {
    environment: observedEnvironment(path, libraries, stacks, questions, flight),
    finish() {
      // The second reading tells of the ends of processes whose last records the first has read.
      read()
      read()
      if (file.lostThreads > 0) reader.lostThreads(file.lostThreads)
    },
    close,
  }
}
