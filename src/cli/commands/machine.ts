/*
 * `userdma machine`: writes a machine file of this machine, and lists and prints those that userdma has
 * (docs/how-to/machines.md).
 */
import { readFileSync } from 'node:fs'
import { functionsOf, machineText, parseMachine, readMachine } from '../../tools/topology/machine-file.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { machineCaptureOptions } from '../command-line/options.ts'
import { captureMachine } from '../machine/capture.ts'
import { machineFile, shippedMachines } from '../machine/shipped.ts'
import { createResult, writeAll } from '../output-file.ts'

/** The first sentence of the comment at the start of a machine file. */
const aboutOf = (file: string): string => {
  const words = [...readFileSync(file, 'utf8').matchAll(/^# (.*)$/gm)].map(([, text]) => text).join(' ')
  return words.replace(/\. .*$/s, '')
}

/** `machine list`. */
export const listMachines = (): void => {
  const rows = [...shippedMachines()].map(([name, file]) => {
    const adapters = functionsOf(readMachine(file)).filter(({ rdma }) => rdma !== undefined).length
    return [name, adapters === 1 ? '1 adapter' : `${adapters || 'no'} adapters`, aboutOf(file)] as const
  })
  const widths = [0, 1].map(i => Math.max(...rows.map(row => row[i]!.length)))
  for (const [name, adapters, about] of rows)
    process.stdout.write(`${name.padEnd(widths[0]!)}  ${adapters.padEnd(widths[1]!)}  ${about}\n`)
}

/** `machine capture`. Throws an Error. */
export const capture = ({ output }: OptionsOf<typeof machineCaptureOptions>): void => {
  const { machine, notes } = captureMachine()
  const text = machineText(machine)
  // What cannot be read back is told here, and not to the person who gets the file.
  parseMachine(text, 'this machine')
  const result = output === undefined ? undefined : createResult(output)
  try {
    writeAll(result?.open() ?? 1, text)
    result?.commit()
  } catch (error) {
    result?.discard()
    throw error
  }
  for (const note of notes) process.stderr.write(`userdma: ${note}\n`)
}

/** `machine show`. Throws an Error. */
export const showMachine = (name: string): void => {
  const file = machineFile(name)
  readMachine(file)
  process.stdout.write(readFileSync(file))
}
