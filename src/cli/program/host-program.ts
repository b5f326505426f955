/*
 * Runs a program on the machine's own devices, observed (`--host`): no daemon, and no path is redirected. This process
 * reads what the program records (src/tools/observe/).
 */
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { checkHostRule } from '../../spec/faults/host-rules.ts'
import { createProgramFaults } from '../../spec/faults/program-faults.ts'
import { parseFaults } from '../../spec/faults/rules.ts'
import { ObserveEnv } from '../../spec/observe.ts'
import { ObservedFaults, type ObservedQuestion, questionOf } from '../../tools/observe/faults.ts'
import { ObservationFile } from '../../tools/observe/file.ts'
import type { ObservedRecord } from '../../tools/observe/records.ts'
import { orUsageError } from '../config.ts'
import { UsageError } from '../fail.ts'
import type { JoinOptions } from '../join.ts'
import { freesLibrary, hostLibrary, privateFolder, removeFolder } from '../paths.ts'
import { type ProgramEnd, runProgram } from './program.ts'

export { Observer } from '../../tools/observe/observer.ts'

/** Milliseconds between two readings of the file. A ring holds some thousands of records. */
const INTERVAL = 10

/** Receives records in the order of their time, and answers questions about fault rules. */
export interface RecordReader {
  answer(question: ObservedQuestion): Uint8Array
  take(records: readonly ObservedRecord[]): void
  lostThreads(count: number): void
}

/** Options that configure devices of userdma, of which `--host` has none. */
const DEVICE_OPTIONS = {
  device: '--device',
  link: '--link',
  path: '--path',
  torment: '--torment',
  like: '--like',
  buffers: '--buffers',
  ignoreMemlock: '--ignore-memlock',
  socket: '--socket',
  private: '--private',
  record: '--record',
  payload: '--payload',
  recordLimit: '--record-limit',
  recordOnFailure: '--record-on-failure',
} as const

/** Throws UsageError for options that `--host` excludes. `others`: further ones, by their names in `options`. */
export const requireNoDevices = (
  options: JoinOptions & Readonly<Record<string, unknown>>,
  others: object = {},
): void => {
  for (const [name, option] of Object.entries({ ...DEVICE_OPTIONS, ...others }))
    if (options[name] !== undefined)
      throw new UsageError(
        `--host and ${option} exclude each other: with --host the program keeps the machine's own devices; leave one of them out`,
      )
}

/** With `--host`. */
export interface HostOptions {
  /** The program keeps the machine's own devices, and is observed. */
  readonly host?: boolean
  /** Fault rules may act on it. */
  readonly allowHostFaults?: boolean
}

/** How a program is observed. */
export interface Observing {
  /** Calls and posts have stacks. */
  readonly stacks?: boolean
  readonly faults?: ObservedFaults | undefined
}

/** The fault rules of the options, and what they need. Throws UsageError. */
export const hostFaults = ({
  fault: texts,
  allowHostFaults = false,
}: Pick<JoinOptions, 'fault'> & HostOptions): Promise<Observing> =>
  orUsageError(() => {
    if (texts === undefined) return {}
    if (!allowHostFaults)
      throw new Error(
        `--fault ${texts[0]} with --host would act on a program that uses the machine's own devices; add --allow-host-faults to allow that, or leave out --fault`,
      )
    const rules = parseFaults(texts.join(';'))
    for (const rule of rules) checkHostRule(rule)
    // Call sites are known of recorded stacks only.
    return { faults: new ObservedFaults(createProgramFaults(rules)), stacks: rules.some(({ site }) => site.length > 0) }
  })

/** The environment of an observed program. A shim in LD_PRELOAD stays: its devices are those that the program finds. */
const observedEnvironment = (file: string, stacks: boolean, questions: string | undefined): NodeJS.ProcessEnv => {
  const { file: fileName, stacks: stacksName, faults: faultsName } = ObserveEnv
  const { [fileName]: _, [stacksName]: _stacks, [faultsName]: _faults, LD_PRELOAD: preloads = '', ...env } = process.env
  return {
    ...env,
    LD_PRELOAD: [hostLibrary(), ...(stacks ? [freesLibrary()] : []), ...preloads.split(/[\s:]+/).filter(Boolean)].join(
      ':',
    ),
    [fileName]: file,
    ...(stacks && { [stacksName]: '1' }),
    ...(questions !== undefined && { [faultsName]: questions }),
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

/** Runs the program to its end, and passes all of its records to `reader`. Throws ProgramError, or an Error. */
export const runObserved = async (
  program: string,
  args: readonly string[],
  reader: RecordReader,
  { stacks = false, faults }: Observing,
): Promise<ProgramEnd> => {
  const folder = privateFolder()
  const path = join(folder, 'observed')
  const file = new ObservationFile(path)
  const read = (): void => reader.take(file.read(process.hrtime.bigint()))
  const timer = setInterval(read, INTERVAL)
  const questions = faults && join(folder, 'questions')
  let close: (() => void) | undefined
  try {
    if (faults !== undefined && questions !== undefined) {
      let asks = faults.asks
      file.asks = asks
      close = await answerQuestions(questions, question => {
        read()
        const bytes = reader.answer(question)
        if (faults.asks !== asks) {
          asks = faults.asks
          file.asks = asks
        }
        return bytes
      })
    }
    const end = await runProgram(program, args, observedEnvironment(path, stacks, questions))
    // The second reading tells of the ends of processes whose last records the first has read.
    read()
    read()
    if (file.lostThreads > 0) reader.lostThreads(file.lostThreads)
    return end
  } finally {
    clearInterval(timer)
    close?.()
    file.close()
    removeFolder(folder)
  }
}
