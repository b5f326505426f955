/*
 * The results of `userdma sim` as a table, CSV and JSON.
 */
import { linkQuantities } from '../../base/quantities.ts'
import type { Result } from '../../tools/sim/scenario.ts'

const significant = (value: number): string => (value >= 100 ? value.toFixed(0) : value.toPrecision(3))

const bitsText = (value: number): string => linkQuantities.rate.write(Number(value.toPrecision(3)))
const bytesText = (value: number): string =>
  value >= 1e6
    ? `${significant(value / 1e6)} MB`
    : value >= 1e3
      ? `${significant(value / 1e3)} kB`
      : `${value.toFixed(0)} B`
const timeText = (micros: number): string =>
  micros >= 1e6
    ? `${significant(micros / 1e6)} s`
    : micros >= 1e3
      ? `${significant(micros / 1e3)} ms`
      : `${significant(micros)} µs`

/** Messages from which on there is a p99.9: of fewer it would be the longest. */
export const MIN_P999_MESSAGES = 1000

/** A latency in the table: of too few messages there is none. */
const latencyText = ({ latency }: Result, name: 'p50' | 'p99' | 'p999'): string =>
  latency.messages < (name === 'p999' ? MIN_P999_MESSAGES : 1) ? '–' : timeText(latency[name])

/** Columns of the table. */
const columns: readonly (readonly [title: string, text: (result: Result) => string])[] = [
  ['control', ({ control }) => control],
  ['goodput', ({ goodput }) => bitsText(goodput)],
  ['fairness', ({ goodput, fairness }) => (goodput === 0 ? '–' : fairness.toFixed(3))],
  ['messages', ({ latency }) => `${latency.messages}`],
  ['p50', result => latencyText(result, 'p50')],
  ['p99', result => latencyText(result, 'p99')],
  ['p99.9', result => latencyText(result, 'p999')],
  ['mean queue', ({ queue }) => bytesText(queue.mean)],
  ['max queue', ({ queue }) => bytesText(queue.max)],
  ['marked', ({ marked }) => `${marked}`],
  ['dropped', ({ overflowed, lost }) => `${overflowed + lost}`],
  ['paused', ({ pauses, pausedTime }) => (pauses === 0 ? '–' : timeText(pausedTime))],
  ['resends', ({ retransmissions }) => `${retransmissions}`],
  ['failed', ({ failedFlows }) => `${failedFlows}`],
  ['packets/s', ({ packetsPerSecond }) => significant(packetsPerSecond)],
  ['s per s', ({ secondsPerSimulated }) => significant(secondsPerSimulated)],
]

export const tableText = (results: readonly Result[]): string => {
  const [first] = results
  if (first === undefined) return ''
  const lines = [columns.map(([title]) => title), ...results.map(result => columns.map(([, text]) => text(result)))]
  const widths = columns.map((_, i) => Math.max(...lines.map(line => line[i]!.length)))
  const padded = (line: readonly string[]): string =>
    line.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  ')
  const title = `${first.scenario}: ${first.hosts} hosts, ${first.flows} flows, ${timeText(first.time)} measured`
  return `${title}\n${lines.map(padded).join('\n')}\n`
}

/** A result without samples, and its groups as single fields. */
const flat = ({ samples: _, latency, queue, ...result }: Result): Record<string, string | number> => ({
  ...result,
  ...Object.fromEntries(Object.entries(latency).map(([name, value]) => [`latency_${name}`, value])),
  ...Object.fromEntries(Object.entries(queue).map(([name, value]) => [`queue_${name}`, value])),
})

const cell = (value: string | number): string => {
  const text = String(value)
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}

/** One line per result, after the names of the fields. */
export const csvText = (results: readonly Result[]): string => {
  const rows = results.map(flat)
  const names = Object.keys(rows[0] ?? {})
  return `${[names, ...rows.map(row => names.map(name => row[name] ?? ''))].map(line => line.map(cell).join(',')).join('\n')}\n`
}

export const jsonText = (results: readonly Result[]): string => `${JSON.stringify(results, null, 2)}\n`
