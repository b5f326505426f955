/*
 * Runs a program on the machine's own devices, observed (`--host`): no daemon, and no path is redirected. The door to
 * what observes it is src/tools/observe/observe.ts.
 */
import { roleOf } from '../../host/process-status.ts'
import { checkHostRule } from '../../spec/faults/host-rules.ts'
import { createProgramFaults } from '../../spec/faults/program-faults.ts'
import { parseFaults } from '../../spec/faults/rules.ts'
import { ObservedFaults, type Observing, observe, type RecordReader } from '../../tools/observe/observe.ts'
import { orUsageError } from '../config.ts'
import { UsageError } from '../fail.ts'
import type { JoinOptions } from '../join.ts'
import { freesLibrary, hostLibrary, privateFolder, removeFolder } from '../paths.ts'
import { type ProgramEnd, runProgram } from './program.ts'

export type { RecordReader } from '../../tools/observe/observe.ts'
export { Observer } from '../../tools/observe/observe.ts'

/** Options that configure devices of userdma, of which `--host` has none. */
const DEVICE_OPTIONS = {
  device: '--device',
  link: '--link',
  path: '--path',
  torment: '--torment',
  like: '--like',
  buffers: '--buffers',
  timers: '--timers',
  ignoreMemlock: '--ignore-memlock',
  socket: '--socket',
  private: '--private',
  payload: '--payload',
} as const

/** Options of recordings, which some commands cannot make of observed programs. */
export const RECORDINGS = {
  record: '--record',
  recordLimit: '--record-limit',
  recordOnFailure: '--record-on-failure',
  recordDepth: '--record-depth',
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

/** With `run --host`. */
export interface FlightOptions {
  /** The bytes of a process's file, as text. */
  readonly flightRecorder?: string | true
  readonly flightFolder?: string
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
    return {
      faults: new ObservedFaults(createProgramFaults(rules, roleOf)),
      stacks: rules.some(({ site }) => site.length > 0),
    }
  })

/** Runs the program to its end, and passes all of its records to `reader`. Throws ProgramError, or an Error. */
export const runObserved = async (
  program: string,
  args: readonly string[],
  reader: RecordReader,
  observing: Observing,
): Promise<ProgramEnd> => {
  const folder = privateFolder()
  try {
    const libraries = [hostLibrary(), ...(observing.stacks ? [freesLibrary()] : [])]
    const observed = await observe({ folder, libraries }, reader, observing)
    try {
      const end = await runProgram(program, args, observed.environment)
      observed.finish()
      return end
    } finally {
      observed.close()
    }
  } finally {
    removeFolder(folder)
  }
}
