/*
 * Calls counted instead of printed, as `strace -c` does: per method how often, how long, how often refused, the
 * longest in sum first.
 */
import type { TraceRecord } from '../uapi/tool.ts'
import { decodeRecord } from './decode.ts'
import { hasFailed } from './select.ts'

interface Count {
  calls: number
  errors: number
  /** Microseconds. */
  duration: number
}

export interface SummaryRow {
  /** class.method, or of a call that was not decoded its dialect with Linux's name for it. */
  readonly name: string
  readonly calls: number
  readonly errors: number
  readonly seconds: number
  /** Share of all calls' time, 0 to 100. */
  readonly percent: number
  /** Microseconds, rounded. */
  readonly perCall: number
}

export interface Summary {
  /** Counts a call if it is `selected`, and in any case those that were lost before it. */
  add(record: TraceRecord, selected?: boolean): void
  /** Longest first. */
  rows(): SummaryRow[]
  /** Of all calls; its name is `total`. */
  total(): SummaryRow
  /** Calls that the tool was too slow for. */
  readonly lost: number
}

const nameOf = (record: TraceRecord): string => {
  const decoded = decodeRecord(record, 0)
  return decoded === undefined ? `${record.dialect}(${record.attempt ?? '?'})` : `${decoded.class.name}.${decoded.name}`
}

export const createSummary = (): Summary => {
  const counts = new Map<string, Count>()
  const all: Count = { calls: 0, errors: 0, duration: 0 }
  let lost = 0
  const row = (name: string, { calls, errors, duration }: Count): SummaryRow => ({
    name,
    calls,
    errors,
    seconds: duration / 1e6,
    percent: all.duration === 0 ? 0 : (100 * duration) / all.duration,
    perCall: calls === 0 ? 0 : Math.round(duration / calls),
  })
  return {
    add(record, selected = true) {
      lost += record.lost ?? 0
      if (!selected) return
      const name = nameOf(record)
      const failed = hasFailed(record) ? 1 : 0
      const count = counts.get(name) ?? { calls: 0, errors: 0, duration: 0 }
      counts.set(name, count)
      for (const one of [count, all]) {
        one.calls++
        one.errors += failed
        one.duration += record.duration
      }
    },
    rows: () =>
      [...counts]
        .map(([name, count]) => row(name, count))
        .sort((a, b) => b.seconds - a.seconds || (a.name < b.name ? -1 : 1)),
    total: () => row('total', all),
    get lost() {
      return lost
    },
  }
}

const COLUMNS = [6, 11, 11, 9, 9] as const

const line = ({ percent, seconds, perCall, calls, errors, name }: SummaryRow): string =>
  [percent.toFixed(2), seconds.toFixed(6), String(perCall), String(calls), errors === 0 ? '' : String(errors)]
    .map((text, i) => text.padStart(COLUMNS[i]))
    .join(' ')
    .concat(` ${name}`)

/** The table, with a line for all calls at its end. */
export const summaryText = (summary: Summary): string => {
  const head = ['% time', 'seconds', 'usecs/call', 'calls', 'errors']
  const rule = [...COLUMNS, 24].map(width => '-'.repeat(width)).join(' ')
  const lost = summary.lost === 0 ? [] : [`${summary.lost} calls were not traced: the reader was too slow`]
  return [
    `${head.map((text, i) => text.padStart(COLUMNS[i])).join(' ')} method`,
    rule,
    ...summary.rows().map(line),
    rule,
    line(summary.total()),
    ...lost,
  ].join('\n')
}

/** The same for `JSON.stringify`, one object per method, then the total. */
export const summaryJson = (summary: Summary): Record<string, unknown>[] =>
  [...summary.rows(), summary.total()].map(({ name, calls, errors, seconds, percent, perCall }) => ({
    method: name,
    calls,
    errors,
    seconds,
    percent: Number(percent.toFixed(2)),
    usecsPerCall: perCall,
    ...(name === 'total' && summary.lost > 0 && { lost: summary.lost }),
  }))
