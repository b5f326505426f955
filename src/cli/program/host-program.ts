/*
 * Runs a program on the machine's own devices, observed (`--host`): no daemon, and no path is redirected. This process
 * reads what the program records (src/observe/).
 */
import { join } from 'node:path'
import { ObservationFile } from '../../observe/file.ts'
import type { ObservedRecord } from '../../observe/records.ts'
import { ObserveEnv } from '../../spec/observe.ts'
import { UsageError } from '../fail.ts'
import type { JoinOptions } from '../join.ts'
import { hostLibrary, privateFolder, removeFolder } from '../paths.ts'
import { type ProgramEnd, runProgram } from './program.ts'

export { Observer } from '../../observe/observer.ts'

/** Milliseconds between two readings of the file. A ring holds some thousands of records. */
const INTERVAL = 10

/** Receives records in the order of their time. */
export interface RecordReader {
  take(records: readonly ObservedRecord[]): void
  lost(pid: number, count: number): void
}

/** Options that configure devices of userdma, of which `--host` has none. */
const DEVICE_OPTIONS = {
  device: '--device',
  fault: '--fault',
  link: '--link',
  path: '--path',
  torment: '--torment',
  like: '--like',
  buffers: '--buffers',
  ignoreMemlock: '--ignore-memlock',
  socket: '--socket',
  private: '--private',
  record: '--record',
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

/** The environment of an observed program. A shim in LD_PRELOAD stays: its devices are those that the program finds. */
const observedEnvironment = (file: string, stacks: boolean): NodeJS.ProcessEnv => {
  const { [ObserveEnv.file]: _, [ObserveEnv.stacks]: _stacks, LD_PRELOAD: preloads = '', ...env } = process.env
  return {
    ...env,
    LD_PRELOAD: [hostLibrary(), ...preloads.split(/[\s:]+/).filter(Boolean)].join(':'),
    [ObserveEnv.file]: file,
    ...(stacks && { [ObserveEnv.stacks]: '1' }),
  }
}

/** Runs the program to its end, and passes all of its records to `reader`. Throws ProgramError, or an Error. */
export const runObserved = async (
  program: string,
  args: readonly string[],
  reader: RecordReader,
  stacks: boolean,
): Promise<ProgramEnd> => {
  const folder = privateFolder()
  const path = join(folder, 'observed')
  const file = new ObservationFile(path)
  const onLost = (pid: number, count: number): void => reader.lost(pid, count)
  const read = (): void => reader.take(file.read(process.hrtime.bigint(), onLost))
  const timer = setInterval(read, INTERVAL)
  try {
    const end = await runProgram(program, args, observedEnvironment(path, stacks))
    // The second reading tells of the ends of processes whose last records the first has read.
    read()
    read()
    if (file.lostThreads > 0) reader.lost(process.pid, file.lostThreads)
    return end
  } finally {
    clearInterval(timer)
    file.close()
    removeFolder(folder)
  }
}
