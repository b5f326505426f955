/*
 * Measures rows: our side and a reference alternate, round by round. The median of the rounds' ratios is judged,
 * because absolute times mean little on shared machines (docs/reference/performance.md). A row without a reference, or
 * with `isJudgedByValue`, is judged by the median of its values.
 *
 * A probe before and after each round checks that the machine is quiet. Further rounds replace noisy ones, up to a
 * maximum. A reference shares the noise of its round; rows without one are repeated longer, until they are quiet. A
 * missed floor does not fail the run.
 */

/** One measurement of one side, in the row's unit. */
export type Measure = () => number | Promise<number>

export interface Bench {
  readonly ours: Measure
  readonly reference?: Measure
  readonly note?: string
  readonly close?: () => void | Promise<void>
}

export interface Row {
  /** `npm run bench -- WORD` selects rows by words of their names. */
  readonly name: string
  readonly quantity: string
  readonly unit: string
  readonly better: 'lower' | 'higher'
  /** A description of the reference, or "none". */
  readonly reference: string
  /**
   * Limits of the ratio ours ÷ reference, or of our value without a reference or with `isJudgedByValue`. `floor` must
   * be met, `aim` is what the design allows. If lower is better, the limits are upper limits, otherwise lower limits.
   */
  readonly floor: number
  readonly aim: number
  /** Free cores that a measurement needs; 0 if other processes do not matter. */
  readonly cores: 0 | 1 | 2
  /** The limits are for our value; the reference is only shown. */
  readonly isJudgedByValue?: true
  /** Number of rounds, by default 5. */
  readonly rounds?: number
  /** Throws `Unavailable` if this machine lacks a prerequisite. */
  readonly prepare: () => Bench | Promise<Bench>
}

/** The reason why a row cannot be measured on this machine. */
export class Unavailable extends Error {}

interface Round {
  readonly ours: number
  readonly reference?: number
  /** ours ÷ reference, or ours without a reference. */
  readonly ratio: number
  readonly quiet: boolean
  /** The probe's result. */
  readonly noise: string
}

type Verdict = 'aim reached' | 'floor met' | 'floor missed' | 'not measured'

export interface Outcome {
  readonly row: Row
  readonly verdict: Verdict
  readonly rounds: readonly Round[]
  /** Medians of the quiet rounds, or of all rounds if too few are quiet. Undefined if not measured. */
  readonly ours?: number
  readonly reference?: number
  readonly ratio?: number
  /** The number of noisy rounds in the medians. */
  readonly noisy: number
  readonly note: string
}

export interface NoiseSample {
  readonly quiet: boolean
  readonly text: string
}

export type NoiseProbe = () => NoiseSample | Promise<NoiseSample>

const ROUNDS = 5
/** Maximum rounds, noisy ones included, as a multiple of the wanted number. */
const MAX_ROUNDS_FACTOR = 2
const MAX_ROUNDS_FACTOR_WITHOUT_REFERENCE = 8

/** The median. At least one value. */
export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** The verdict on `value`, a ratio or our value. */
export const judge = ({ better, floor, aim }: Pick<Row, 'better' | 'floor' | 'aim'>, value: number): Verdict => {
  const meets = (limit: number): boolean => (better === 'lower' ? value <= limit : value >= limit)
  if (meets(aim)) return 'aim reached'
  return meets(floor) ? 'floor met' : 'floor missed'
}

/** Three significant digits, without exponent. */
export const digits = (value: number): string => {
  const rounded = Number(value.toPrecision(3))
  return rounded === 0 ? '0' : rounded.toFixed(Math.max(0, 2 - Math.floor(Math.log10(Math.abs(rounded)))))
}

const measureRound = async (bench: Bench, probe: NoiseProbe, isOursFirst: boolean): Promise<Round> => {
  const before = await probe()
  let ours = isOursFirst ? await bench.ours() : 0
  const reference = await bench.reference?.()
  if (!isOursFirst) ours = await bench.ours()
  const after = await probe()
  return {
    ours,
    ...(reference === undefined ? {} : { reference }),
    ratio: reference === undefined ? ours : ours / reference,
    quiet: before.quiet && after.quiet,
    noise: `${before.text} / ${after.text}`,
  }
}

const roundText = (row: Row, number: number, round: Round): string => {
  const sides =
    round.reference === undefined
      ? `${digits(round.ours)} ${row.unit}`
      : `ours ${digits(round.ours)} ${row.unit}, reference ${digits(round.reference)} ${row.unit}, ` +
        `ratio ${digits(round.ratio)}`
  return `  round ${number}: ${sides}${round.quiet ? '' : '  NOISY'}  [${round.noise}]`
}

const measureRounds = async (
  bench: Bench,
  row: Row,
  wantedRounds: number,
  probe: NoiseProbe,
  log: (line: string) => void,
) => {
  // The first run of each side is not counted: it compiles, maps memory and fills caches.
  await bench.ours()
  await bench.reference?.()
  const rounds: Round[] = []
  const hasReference = bench.reference !== undefined && row.isJudgedByValue !== true
  const maxRounds = wantedRounds * (hasReference ? MAX_ROUNDS_FACTOR : MAX_ROUNDS_FACTOR_WITHOUT_REFERENCE)
  let quietRounds = 0
  while (quietRounds < wantedRounds && rounds.length < maxRounds) {
    const round = await measureRound(bench, probe, rounds.length % 2 === 0)
    rounds.push(round)
    if (round.quiet) quietRounds++
    log(roundText(row, rounds.length, round))
  }
  return rounds
}

/** Measures one row, and logs every round. `maxRounds` bounds the wanted number of rounds. */
export const measure = async (
  row: Row,
  probe: NoiseProbe,
  log: (line: string) => void,
  maxRounds = Number.POSITIVE_INFINITY,
): Promise<Outcome> => {
  const wantedRounds = Math.min(row.rounds ?? ROUNDS, maxRounds)
  log(`${row.quantity}, reference ${row.reference}`)
  let bench: Bench | undefined
  try {
    bench = await row.prepare()
    if (bench.note) log(`  ${bench.note}`)
    const rounds = await measureRounds(bench, row, wantedRounds, probe, log)
    const quietRounds = rounds.filter(round => round.quiet)
    const counted = quietRounds.length >= wantedRounds ? quietRounds : rounds
    const ratio = median(counted.map(round => round.ratio))
    const ours = median(counted.map(round => round.ours))
    const reference = counted.flatMap(round => round.reference ?? [])
    return {
      row,
      verdict: judge(row, row.isJudgedByValue ? ours : ratio),
      rounds,
      ours,
      ...(reference.length === 0 ? {} : { reference: median(reference) }),
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

const tableCells = ({ row, verdict, ours, reference, ratio, noisy, note, rounds }: Outcome): string[] => {
  const limit = (value: number): string => `${row.better === 'lower' ? '≤' : '≥'} ${value}`
  const withUnit = (value: number | undefined): string => (value === undefined ? '–' : `${digits(value)} ${row.unit}`)
  const noise = noisy > 0 ? `, ${noisy} of ${rounds.length} rounds noisy` : ''
  const remark = note ? ` (${note})` : ''
  const ratioText = reference === undefined || ratio === undefined ? '–' : digits(ratio)
  return [
    row.quantity,
    withUnit(ours),
    withUnit(reference),
    ratioText,
    limit(row.floor),
    limit(row.aim),
    verdict + noise + remark,
  ]
}

/** The final table, as lines of text. */
export const table = (outcomes: readonly Outcome[]): string[] => {
  const head = ['quantity', 'ours', 'reference', 'ratio', 'floor', 'aim', 'verdict']
  const rows = [head, ...outcomes.map(tableCells)]
  const widths = head.map((_, column) => Math.max(...rows.map(cells => cells[column].length)))
  return rows.map(cells =>
    cells
      .map((cell, column) => cell.padEnd(widths[column]))
      .join('  ')
      .trimEnd(),
  )
}
