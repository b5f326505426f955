/*
 * Counts calls like `strace -c`: time, calls and errors of each method. A chain is one call. The entries of chains are
 * counted separately, because they have no times.
 */
import type { TraceRecord } from '../../spec/records.ts'
import { decodeChain } from './chain.ts'
import { type DecodedCall, decodeRecord } from './decode.ts'
import { hasFailed } from './select.ts'

interface Count {
  calls: number
  errors: number
  /** Microseconds. */
  duration: number
}

interface SummaryRow {
  /** class.method; for an undecoded call, dialect and `TraceRecord.attempt`. */
  readonly name: string
  readonly calls: number
  readonly errors: number
  readonly seconds: number
  /** Share of the time of all calls, 0 to 100. */
  readonly percent: number
  /** Mean time in microseconds, rounded. */
  readonly perCall: number
}

/** The executed entries of all chains that call one method. */
interface ChainedRow {
  readonly name: string
  readonly entries: number
  readonly errors: number
}

interface Summary {
  /** Counts a call. */
  add(record: TraceRecord): void
  /** Counts lost records. */
  addLost(count: number): void
  /** By method, longest total time first. */
  rows(): SummaryRow[]
  /** Executed entries of chains by method, most frequent first. */
  chained(): ChainedRow[]
  /** Sums over all calls; the name is `total`. */
  total(): SummaryRow
  /** Records that were lost because the tool was too slow. */
  readonly lost: number
}

const nameOf = (record: TraceRecord, decoded: DecodedCall | undefined): string =>
  decoded === undefined ? `${record.dialect}(${record.attempt ?? '?'})` : `${decoded.class.name}.${decoded.name}`

/** Executed entries of a chain. Only the last can have failed. */
const executedEntries = (
  record: TraceRecord,
  decoded: DecodedCall | undefined,
): { name: string; hasFailed: boolean }[] => {
  const chain = decoded && decodeChain(decoded, 0, record)
  if (chain === undefined) return []
  const { entries, done, error } = chain
  return entries.slice(0, done + (error === undefined ? 0 : 1)).map(({ entry, call }, index) => ({
    name: call === undefined ? `class ${entry.classId}, call ${entry.call}` : `${call.class.name}.${call.name}`,
    hasFailed: index === done,
  }))
}

export const createSummary = (): Summary => {
  const counts = new Map<string, Count>()
  const inChains = new Map<string, { entries: number; errors: number }>()
  const total: Count = { calls: 0, errors: 0, duration: 0 }
  let lost = 0
  const rowOf = (name: string, { calls, errors, duration }: Count): SummaryRow => ({
    name,
    calls,
    errors,
    seconds: duration / 1e6,
    percent: total.duration === 0 ? 0 : (100 * duration) / total.duration,
    perCall: calls === 0 ? 0 : Math.round(duration / calls),
  })
  return {
    addLost(count) {
      lost += count
    },
    add(record) {
      const decoded = decodeRecord(record, 0)
      const name = nameOf(record, decoded)
      const errors = hasFailed(record) ? 1 : 0
      const count = counts.get(name) ?? { calls: 0, errors: 0, duration: 0 }
      counts.set(name, count)
      for (const totals of [count, total]) {
        totals.calls++
        totals.errors += errors
        totals.duration += record.duration
      }
      for (const entry of executedEntries(record, decoded)) {
        const chained = inChains.get(entry.name) ?? { entries: 0, errors: 0 }
        inChains.set(entry.name, chained)
        chained.entries++
        if (entry.hasFailed) chained.errors++
      }
    },
    rows: () =>
      [...counts]
        .map(([name, count]) => rowOf(name, count))
        .sort((a, b) => b.seconds - a.seconds || (a.name < b.name ? -1 : 1)),
    chained: () =>
      [...inChains]
        .map(([name, count]) => ({ name, ...count }))
        .sort((a, b) => b.entries - a.entries || (a.name < b.name ? -1 : 1)),
    total: () => rowOf('total', total),
    get lost() {
      return lost
    },
  }
}

/** Widths of the columns before the method, and of the dashes under the heading `method`. */
const COLUMNS = [6, 11, 11, 9, 9] as const
const METHOD_WIDTH = 24

const rowText = ({ percent, seconds, perCall, calls, errors, name }: SummaryRow): string =>
  [percent.toFixed(2), seconds.toFixed(6), String(perCall), String(calls), errors === 0 ? '' : String(errors)]
    .map((text, i) => text.padStart(COLUMNS[i]!))
    .join(' ')
    .concat(` ${name}`)

/** Lines below the table: how often chains called each method. */
const chainedLines = (rows: readonly ChainedRow[]): string[] => {
  if (rows.length === 0) return []
  const columns = [9, 9, METHOD_WIDTH] as const
  const numbers = (entries: string, errors: string): string =>
    `${entries.padStart(columns[0])} ${errors.padStart(columns[1])}`
  return [
    '',
    `${numbers('in chains', 'errors')} method`,
    columns.map(width => '-'.repeat(width)).join(' '),
    ...rows.map(
      ({ name, entries, errors }) => `${numbers(String(entries), errors === 0 ? '' : String(errors))} ${name}`,
    ),
  ]
}

/** The table with totals, then the entries of chains and the number of lost records. */
export const summaryText = (summary: Summary): string => {
  const head = ['% time', 'seconds', 'usecs/call', 'calls', 'errors']
  const rule = [...COLUMNS, METHOD_WIDTH].map(width => '-'.repeat(width)).join(' ')
  const lost = summary.lost === 0 ? [] : [`${summary.lost} records were lost: the reader was too slow`]
  return [
    `${head.map((text, i) => text.padStart(COLUMNS[i]!)).join(' ')} method`,
    rule,
    ...summary.rows().map(rowText),
    rule,
    rowText(summary.total()),
    ...chainedLines(summary.chained()),
    ...lost,
  ].join('\n')
}

/** The summary for `JSON.stringify`: one object per method, one per method in chains, then the total. */
export const summaryJson = (summary: Summary): Record<string, unknown>[] => [
  ...rowsJson(summary, summary.rows()),
  ...summary.chained().map(({ name, entries, errors }) => ({ method: name, inChains: entries, errors })),
  ...rowsJson(summary, [summary.total()]),
]

const rowsJson = (summary: Summary, rows: readonly SummaryRow[]): Record<string, unknown>[] =>
  rows.map(({ name, calls, errors, seconds, percent, perCall }) => ({
    method: name,
    calls,
    errors,
    seconds,
    percent: Number(percent.toFixed(2)),
    usecsPerCall: perCall,
    ...(name === 'total' && summary.lost > 0 && { lost: summary.lost }),
  }))
