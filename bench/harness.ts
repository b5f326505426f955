/*
 * How a quantity is measured: ours and a reference beside it, in turn, round by round, and judged by the median of the
 * rounds' ratios, since absolute times mean little on shared machines (docs/reference/performance.md). Before and after
 * each round a probe looks whether the machine is quiet; noisy rounds are marked and repeated a few times, and every
 * round is printed. Nothing here fails on time.
 *
 * A row without a reference is judged by its own value. This file knows neither rows nor how the probe works.
 */

/** One measurement of one side, in the row's unit. */
export type Measure = () => number | Promise<number>

/** A row made ready: its two sides, what to mention in the table, and how to clean up. */
export interface Bench {
  readonly ours: Measure
  readonly beside?: Measure
  readonly note?: string
  readonly close?: () => void | Promise<void>
}

export interface Row {
  /** What `npm run bench -- WORD` selects by. */
  readonly name: string
  readonly quantity: string
  readonly unit: string
  readonly better: 'lower' | 'higher'
  /** What ours is compared with; the limit itself for a row without a reference. */
  readonly reference: string
  /** Limits of ours ÷ reference, or of the value itself without a reference and `byValue`. */
  readonly floor: number
  readonly aim: number
  /** Cores that a measurement needs for itself, which the probe looks at; 0 if other processes do not disturb it. */
  readonly cores: 0 | 1 | 2
  /** Limits are of ours; what is beside it is for comparison. */
  readonly byValue?: true
  /** Rounds that count; 5, unless one round is long. */
  readonly rounds?: number
  /** Throws `Unavailable` if this machine lacks what it needs. */
  readonly prepare: () => Bench | Promise<Bench>
}

/** A row that cannot be measured here, and why. */
export class Unavailable extends Error {}

export interface Round {
  readonly ours: number
  readonly beside?: number
  /** ours ÷ beside, or ours without a reference. */
  readonly ratio: number
  readonly quiet: boolean
  /** What the probe saw. */
  readonly noise: string
}

export type Verdict = 'aim reached' | 'floor held' | 'floor missed' | 'not measured'

export interface Outcome {
  readonly row: Row
  readonly verdict: Verdict
  readonly rounds: readonly Round[]
  /** Medians over the rounds that counted; undefined when not measured. */
  readonly ours?: number
  readonly beside?: number
  readonly ratio?: number
  /** Rounds that counted although the machine was noisy. */
  readonly noisy: number
  readonly note: string
}

export interface NoiseSample {
  readonly quiet: boolean
  readonly text: string
}

/** Looks for a few milliseconds whether the machine is quiet. */
export type NoiseProbe = () => NoiseSample | Promise<NoiseSample>

const ROUNDS = 5
/** How many times as many rounds as wanted are tried to find quiet ones. */
const PATIENCE = 2

/** The middle value, or the mean of the two middle ones. At least one value. */
export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** Which limit a ratio keeps. */
export const judge = ({ better, floor, aim }: Pick<Row, 'better' | 'floor' | 'aim'>, ratio: number): Verdict => {
  const keeps = (limit: number): boolean => (better === 'lower' ? ratio <= limit : ratio >= limit)
  return keeps(aim) ? 'aim reached' : keeps(floor) ? 'floor held' : 'floor missed'
}

/** Three significant digits, without exponent. */
export const digits = (value: number): string => {
  const rounded = Number(value.toPrecision(3))
  return rounded === 0 ? '0' : rounded.toFixed(Math.max(0, 2 - Math.floor(Math.log10(Math.abs(rounded)))))
}

const measureRound = async (bench: Bench, probe: NoiseProbe, oursFirst: boolean): Promise<Round> => {
  const before = await probe()
  let ours = oursFirst ? await bench.ours() : 0
  const beside = await bench.beside?.()
  if (!oursFirst) ours = await bench.ours()
  const after = await probe()
  return {
    ours,
    ...(beside === undefined ? {} : { beside }),
    ratio: beside === undefined ? ours : ours / beside,
    quiet: before.quiet && after.quiet,
    noise: `${before.text} / ${after.text}`,
  }
}

const roundText = (row: Row, number: number, round: Round): string => {
  const sides =
    round.beside === undefined
      ? `${digits(round.ours)} ${row.unit}`
      : `ours ${digits(round.ours)} ${row.unit}, beside ${digits(round.beside)} ${row.unit}, ratio ${digits(round.ratio)}`
  return `  round ${number}: ${sides}${round.quiet ? '' : '  NOISY'}  [${round.noise}]`
}

const measureRounds = async (
  bench: Bench,
  row: Row,
  wanted: number,
  probe: NoiseProbe,
  log: (line: string) => void,
) => {
  // the first run of each side compiles, maps and fills caches
  await bench.ours()
  await bench.beside?.()
  const rounds: Round[] = []
  for (let quiet = 0; quiet < wanted && rounds.length < wanted * PATIENCE; ) {
    const round = await measureRound(bench, probe, rounds.length % 2 === 0)
    rounds.push(round)
    if (round.quiet) quiet++
    log(roundText(row, rounds.length, round))
  }
  return rounds
}

/**
 * Measures one row. Every round goes to `log`; what keeps a row from running is an outcome, not an error. `most`:
 * rounds at most, for a short look.
 */
export const measure = async (
  row: Row,
  probe: NoiseProbe,
  log: (line: string) => void,
  most = Number.POSITIVE_INFINITY,
): Promise<Outcome> => {
  const wanted = Math.min(row.rounds ?? ROUNDS, most)
  log(`${row.quantity}, beside ${row.reference}`)
  let bench: Bench | undefined
  try {
    bench = await row.prepare()
    if (bench.note) log(`  ${bench.note}`)
    const rounds = await measureRounds(bench, row, wanted, probe, log)
    const quiet = rounds.filter(round => round.quiet)
    const counted = quiet.length >= wanted ? quiet : rounds
    const ratio = median(counted.map(round => round.ratio))
    const ours = median(counted.map(round => round.ours))
    const beside = counted.flatMap(round => round.beside ?? [])
    return {
      row,
      verdict: judge(row, row.byValue ? ours : ratio),
      rounds,
      ours,
      ...(beside.length === 0 ? {} : { beside: median(beside) }),
      ratio,
      noisy: counted.filter(round => !round.quiet).length,
      note: bench.note ?? '',
    }
  } catch (error) {
    if (!(error instanceof Unavailable)) throw error
    log(`  not measured: ${error.message}`)
    return { row, verdict: 'not measured', rounds: [], noisy: 0, note: error.message }
  } finally {
    await bench?.close?.()
  }
}

const tableCells = ({ row, verdict, ours, beside, ratio, noisy, note, rounds }: Outcome): string[] => {
  const limit = (value: number): string => `${row.better === 'lower' ? '≤' : '≥'} ${value}`
  const withUnit = (value: number | undefined): string => (value === undefined ? '–' : `${digits(value)} ${row.unit}`)
  const noise = noisy > 0 ? `, ${noisy} of ${rounds.length} rounds noisy` : ''
  const remark = note ? ` (${note})` : ''
  const shown = beside === undefined ? '–' : ratio === undefined ? '–' : digits(ratio)
  return [
    row.quantity,
    withUnit(ours),
    withUnit(beside),
    shown,
    limit(row.floor),
    limit(row.aim),
    verdict + noise + remark,
  ]
}

/** The final table, as lines of text. */
export const table = (outcomes: readonly Outcome[]): string[] => {
  const head = ['quantity', 'ours', 'beside', 'ratio', 'floor', 'aim', 'verdict']
  const rows = [head, ...outcomes.map(tableCells)]
  const widths = head.map((_, column) => Math.max(...rows.map(cells => cells[column].length)))
  return rows.map(cells =>
    cells
      .map((cell, column) => cell.padEnd(widths[column]))
      .join('  ')
      .trimEnd(),
  )
}
