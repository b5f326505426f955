/*
 * What several captures show together, as text for people and as objects for programs: their clocks, and what was lost
 * and how long it took between the points.
 */
import { counted, hex } from '../../base/text.ts'
import { captureCause } from '../../spec/captures.ts'
import { durationText } from '../../spec/duration.ts'
import type { AddressTable } from './addresses.ts'
import type { LostReport, PathReport } from './paths.ts'
import type { ReportLine } from './report.ts'
import type { Point, PointClock, Together } from './together.ts'

const nanoText = (nanoseconds: number): string => durationText(nanoseconds / 1000)
/** A part of a million as percent or ppm. */
const driftText = (drift: number): string =>
  Math.abs(drift) >= 1e-4 ? `${(100 * drift).toFixed(4)} %` : `${(1e6 * drift).toFixed(2)} ppm`
/** A drift that is not above its error is none. */
const hasDrift = ({ clock: { drift, driftError } }: PointClock): boolean => Math.abs(drift) > 2 * driftError

const clockText = (points: readonly Point[], point: number, known: PointClock): string => {
  const { offset, offsetError, drift, driftError, packets } = known.clock
  const name = points[known.to].name
  const error =
    offsetError === undefined
      ? `, with the delay between the points: only one direction has packets, so its error is not known`
      : ` ± ${nanoText(offsetError)}`
  const gain = hasDrift(known)
    ? `, and ${drift > 0 ? 'gains' : 'loses'} ${driftText(Math.abs(drift))} ± ${driftText(driftError)}`
    : ''
  const distance =
    Math.round(offset) === 0 ? 'agrees with' : `is ${nanoText(Math.abs(offset))} ${offset < 0 ? 'behind' : 'ahead of'}`
  return `the clock of ${points[point].name} ${distance} that of ${name}${error}${gain}, by ${counted(packets, 'packet')} that both have`
}

const pathText = (points: readonly Point[], addresses: AddressTable, path: PathReport): string => {
  const steps = path.points.map(({ point, seen, lost, late, missed, delays, delaySum, delayMax }, i) => {
    const after = i > 0 && delays > 0 ? `${nanoText(delaySum / delays)} later (at most ${nanoText(delayMax)}) ` : ''
    const parts = [
      ...(lost > 0 ? [`${lost} did not come`] : []),
      ...(late > 0 ? [`${late} did not come after its last packet`] : []),
      ...(missed > 0 ? [`${missed} are missing in the capture`] : []),
    ]
    return `${after}${seen} at ${points[point].name}${parts.length > 0 ? ` (${parts.join(', ')})` : ''}`
  })
  return `${addresses.text(path.source)} → ${addresses.text(path.destination)}, ${counted(path.packets, 'packet')}: ${steps.join(', ')}`
}

const lostText = (points: readonly Point[], { from, to, isLate, count }: LostReport): string =>
  `${counted(count, 'packet')} left ${points[from].name} and never came to ${points[to].name}${isLate ? ', whose capture may have ended before' : ''}`

const worst = (lost: readonly LostReport[]): LostReport[] =>
  [...lost].sort((a, b) => Number(a.isLate) - Number(b.isLate) || b.count - a.count)

/** The report in lines. */
export const togetherLines = (
  points: readonly Point[],
  addresses: AddressTable,
  { clocks, paths, lost }: Together,
  top: number,
): ReportLine[] => {
  const lines: ReportLine[] = ['', `together: ${points.map(({ name }) => name).join(', ')}`]
  for (const [point, known] of clocks.entries()) {
    if (known !== undefined) lines.push(`  ${clockText(points, point, known)}`)
    else if (point > 0)
      lines.push(
        `  ${points[point].name} has no packets of the others: it is not compared (was an address translated?)`,
      )
  }
  const { severity, title, why, unknown, advice } = captureCause('lost-between')
  if (lost.length > 0) {
    lines.push('', { text: `${severity}: ${title}`, severity })
    const sorted = worst(lost)
    for (const one of sorted.slice(0, top)) {
      const { source, destination, qpn, from, frames } = one
      lines.push(
        `   ${addresses.text(source)} → ${addresses.text(destination)} QP ${hex(qpn)}`,
        `     ${lostText(points, one)}`,
        `     ${frames.length === 1 ? 'frame' : 'frames'} ${frames.join(', ')} of ${points[from].name}`,
      )
    }
    if (sorted.length > top) lines.push(`   and ${sorted.length - top} more (--top)`)
    lines.push(
      `   why: ${unknown === undefined ? why : `unknown, because ${unknown}: ${why}`}`,
      `   what to do: ${advice}`,
    )
  }
  if (paths.length > 0) {
    lines.push('', 'packets from point to point')
    const busiest = [...paths].sort((a, b) => b.packets - a.packets)
    for (const path of busiest.slice(0, top)) lines.push(`  ${pathText(points, addresses, path)}`)
    if (busiest.length > top) lines.push(`  and ${busiest.length - top} more (--top)`)
  }
  return lines
}

/** The report as objects. Times are nanoseconds. */
export const togetherObjects = function* (
  points: readonly Point[],
  addresses: AddressTable,
  { clocks, paths, lost }: Together,
): Generator<Record<string, unknown>> {
  for (const [point, known] of clocks.entries()) {
    if (known === undefined) continue
    const { offset, offsetError, drift, driftError, packets } = known.clock
    yield {
      kind: 'clock',
      name: points[point].name,
      comparedTo: points[known.to].name,
      offset,
      offsetError,
      drift,
      driftError,
      packets,
    }
  }
  const { severity, title, why, unknown, advice, findings } = captureCause('lost-between')
  for (const one of worst(lost)) {
    const { source, destination, qpn, from, to, isLate, count, frames } = one
    yield {
      kind: 'problem',
      cause: 'lost-between',
      severity,
      title,
      evidence: lostText(points, one),
      frames,
      flow: { source: addresses.text(source), destination: addresses.text(destination), qpn },
      left: points[from].name,
      neverCameTo: points[to].name,
      isLate,
      count,
      why,
      unknown,
      advice,
      findings,
    }
  }
  for (const { source, destination, packets, points: reports } of paths)
    yield {
      kind: 'path',
      source: addresses.text(source),
      destination: addresses.text(destination),
      packets,
      points: reports.map(({ point, seen, lost: count, late, missed, delays, delaySum, delayMax }) => ({
        name: points[point].name,
        seen,
        lost: count,
        late,
        missed,
        delay: delays === 0 ? undefined : { count: delays, mean: delaySum / delays, longest: delayMax },
      })),
    }
}
