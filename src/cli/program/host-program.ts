/*
 * Runs a program on the machine's own devices, observed (`--host`): no daemon, and no path is redirected. The door to
 * what observes it is src/tools/observe/observe.ts.
 */
import { createProgramFaults } from '../../faults/program-faults.ts'
import { parseFaults } from '../../faults/rules.ts'
import { roleOf } from '../../host/process-status.ts'
import { ObservedFaults, type Observing, observe, type RecordReader } from '../../tools/observe/observe.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { traceOptions } from '../command-line/options.ts'
import { orUsageError } from '../config.ts'
import { freesLibrary, hostLibrary, privateFolder, removeFolder } from '../paths.ts'
import { checkHostRule } from './host-rules.ts'
import { type ProgramEnd, runProgram } from './program.ts'

export type { RecordReader } from '../../tools/observe/observe.ts'
export { Observer } from '../../tools/observe/observe.ts'

/** The fault rules of the options, and what they need. Throws UsageError. */
export const hostFaults = ({
  fault: texts,
  allowHostFaults = false,
}: Pick<OptionsOf<typeof traceOptions>, 'fault' | 'allowHostFaults'>): Promise<Observing> =>
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
  ending?: Parameters<typeof runProgram>[3],
): Promise<ProgramEnd> => {
  const folder = privateFolder()
  try {
    const libraries = [hostLibrary(), ...(observing.stacks ? [freesLibrary()] : [])]
    const observed = await observe({ folder, libraries }, reader, observing)
    try {
      const end = await runProgram(program, args, observed.environment, ending)
      observed.finish()
      return end
    } finally {
      observed.close()
    }
  } finally {
    removeFolder(folder)
  }
}
