/*
 * The benchmarks, see `USAGE`. A row that throws ends the run; earlier results are printed and saved.
 */
import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { measure, type Outcome, type Row, table } from './harness/harness.ts'
import { createNoiseProbe, noProbe } from './harness/noise.ts'
import { rows } from './rows.ts'

const USAGE = `npm run bench -- [WORD…] [--rounds N] [--json FILE]

WORD           only rows whose name contains one of the words
--rounds N     at most N rounds per row, noisy ones not counted
--json FILE    saves every round

Rows: ${rows.map(row => row.name).join(', ')}`

const print = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

const machine = () => ({ cpu: cpus()[0]?.model ?? 'unknown', cores: cpus().length, node: process.version })

const select = (words: readonly string[]): readonly Row[] => {
  for (const word of words) {
    if (word.startsWith('-')) throw new Error(`option "${word}" is unknown; --help lists the options`)
    if (!rows.some(row => row.name.includes(word))) {
      throw new Error(`no row is named "${word}"; there are: ${rows.map(row => row.name).join(', ')}`)
    }
  }
  return words.length === 0 ? rows : rows.filter(row => words.some(word => row.name.includes(word)))
}

/** Removes an option and its value from `args`; returns the value. `description` describes the value in messages. */
const takeOption = (args: string[], option: string, description: string): string | undefined => {
  const index = args.indexOf(option)
  if (index < 0) return undefined
  const [, value] = args.splice(index, 2)
  if (value === undefined) throw new Error(`${option} needs ${description}`)
  return value
}

const main = async (args: string[]): Promise<void> => {
  if (args.includes('--help') || args.includes('-h')) {
    print(USAGE)
    return
  }
  const jsonFile = takeOption(args, '--json', 'a file name')
  const rounds = takeOption(args, '--rounds', 'a number')
  const maxRounds = rounds === undefined ? Number.POSITIVE_INFINITY : Number(rounds)
  if (!(maxRounds >= 1)) throw new Error(`--rounds needs a number from 1 on, not ${rounds}`)
  const selected = select(args)

  const { cpu, cores, node } = machine()
  print(`${cpu}, ${cores} cores, Node ${node}`)
  const outcomes: Outcome[] = []
  const oneCore = await createNoiseProbe(1)
  const twoCores = await createNoiseProbe(2)
  /** The index is the number of cores that a row needs. */
  const probes = [noProbe, oneCore.probe, twoCores.probe]
  try {
    for (const row of selected) {
      print('')
      outcomes.push(await measure(row, probes[row.cores], print, maxRounds))
    }
  } finally {
    await twoCores.close()
    print('')
    for (const line of table(outcomes)) print(line)
    if (jsonFile !== undefined)
      writeFileSync(jsonFile, `${JSON.stringify({ machine: machine(), outcomes }, undefined, 2)}\n`)
  }
}

try {
  await main(process.argv.slice(2))
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : error}\n`)
  process.exitCode = 1
}
