/*
 * The results of `userdma sim` as an HTML page that needs nothing else: goodput and longest queue over time, and the
 * percentiles of latency, drawn as SVG.
 */

import { escapeHtml } from '../../tools/inspect/page-files.ts'
import type { Result } from '../../tools/sim/scenario.ts'
import { htmlDocument } from '../html.ts'
import { MIN_P999_MESSAGES, tableText } from './output.ts'

const WIDTH = 760
const HEIGHT = 240
const MARGIN = { left: 70, right: 15, top: 12, bottom: 34 }
/** By control; they differ in lightness too. */
const COLORS = ['var(--data)', 'var(--retry)', 'var(--quiet)']

const STYLE = `body{max-width:800px}svg{width:100%;font-size:11px;fill:currentColor}.grid line{stroke:var(--line)}
figure{margin:1.5em 0}pre{overflow-x:auto;font-size:12px}
${COLORS.map((color, i) => `.line${i}{color:${color}}`).join('')}
`
/** The colour of a line. */
const look = (i: number): string => `class="line${i % COLORS.length}"`

type Point = readonly [x: number, y: number]
interface Line {
  readonly name: string
  readonly points: readonly Point[]
}

/** A round number, at least `value`. */
const roundUp = (value: number): number => {
  const scale = 10 ** Math.floor(Math.log10(value || 1))
  return [1, 2, 2.5, 5, 10].map(factor => factor * scale).find(one => one >= value) ?? 10 * scale
}

const chart = (title: string, xTitle: string, yTitle: string, lines: readonly Line[]): string => {
  const all = lines.flatMap(({ points }) => points)
  const maxX = Math.max(...all.map(([x]) => x), 1e-9)
  const maxY = roundUp(Math.max(...all.map(([, y]) => y), 1e-9))
  const x = (value: number): number => MARGIN.left + (value / maxX) * (WIDTH - MARGIN.left - MARGIN.right)
  const y = (value: number): number => HEIGHT - MARGIN.bottom - (value / maxY) * (HEIGHT - MARGIN.top - MARGIN.bottom)
  const text = (atX: number, atY: number, anchor: string, content: string): string =>
    `<text x="${atX.toFixed(1)}" y="${atY.toFixed(1)}" text-anchor="${anchor}">${escapeHtml(content)}</text>`
  const ticks = [0, 0.25, 0.5, 0.75, 1].map(share => {
    const at = y(share * maxY)
    return `<line x1="${MARGIN.left}" x2="${WIDTH - MARGIN.right}" y1="${at}" y2="${at}"/>${text(MARGIN.left - 6, at + 4, 'end', `${Number((share * maxY).toPrecision(3))}`)}`
  })
  const xTicks = [0, 0.25, 0.5, 0.75, 1].map(share =>
    text(x(share * maxX), HEIGHT - MARGIN.bottom + 15, 'middle', `${Number((share * maxX).toPrecision(3))}`),
  )
  const paths = lines.map(
    ({ points }, i) =>
      `<polyline ${look(i)} points="${points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(' ')}"/>`,
  )
  const legend = lines.map(({ name }, i) => `<span ${look(i)}>&#9644; ${escapeHtml(name)}</span>`)
  return `<figure><figcaption>${escapeHtml(title)} ${legend.join(' ')}</figcaption>
<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeHtml(title)}"><g class="grid">${ticks.join('')}${xTicks.join('')}</g>
${text(WIDTH / 2, HEIGHT - 4, 'middle', xTitle)}${text(MARGIN.left, MARGIN.top - 2, 'start', yTitle)}
<g fill="none" stroke="currentColor" stroke-width="1.5">${paths.join('')}</g></svg></figure>`
}

/** The percentiles of a latency, by number of nines: 0 is p0, 1 is p90, 2 is p99. */
const percentiles = ({ latency: { messages, p50, p90, p99, p999 } }: Result): Point[] => [
  [-Math.log10(0.5), p50],
  [1, p90],
  [2, p99],
  ...(messages < MIN_P999_MESSAGES ? [] : ([[3, p999]] satisfies Point[])),
]

export const plotHtml = (results: readonly Result[]): string => {
  const name = results[0]?.scenario ?? ''
  const overTime = (value: (sample: Result['samples'][number]) => number): Line[] =>
    results.map(({ control, samples }) => ({
      name: control,
      points: samples.map(sample => [sample.time / 1000, value(sample)] as const),
    }))
  const body = `<h1>${escapeHtml(name)}</h1><pre>${escapeHtml(tableText(results))}</pre>
${chart(
  'Goodput',
  'virtual time, ms',
  'Gbit/s',
  overTime(({ goodput }) => goodput / 1e9),
)}
${chart(
  'Longest queue of a switch',
  'virtual time, ms',
  'kB',
  overTime(({ queue }) => queue / 1e3),
)}
${chart(
  'Latency of messages',
  'percentile, as number of nines',
  'µs',
  results.map(result => ({ name: result.control, points: percentiles(result) })),
)}
`
  return htmlDocument(name, STYLE, body)
}
