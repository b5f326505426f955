/*
 * The results of a walk as an HTML page (`--html`): by kind, findings first. Each row opens, and tells where, what the
 * program waited for, how long it took to recover, and the command that repeats it.
 */
import { counted } from '../../base/text.ts'
import { frameText } from '../../spec/check/frames.ts'
import { printable } from '../../spec/printable.ts'
import type { Symbols } from '../../tools/check/finding-text.ts'
import { escapeHtml } from '../../tools/inspect/page-files.ts'
import { htmlDocument } from '../html.ts'
import { quoted } from '../program/quoted.ts'
import { outcomes, type WalkResult } from './outcome.ts'
import {
  endText,
  framesOf,
  isFinding,
  isFindingOutcome,
  outcomeText,
  placeText,
  recordsOf,
  recordTitle,
  whereText,
} from './report.ts'
import type { Stage } from './stage.ts'
import { walkKindNames, walkKinds } from './walk-kinds.ts'

// Rows outside of the screen are not laid out, so 10,000 of them take no time.
const STYLE = `body{max-width:1100px}
pre,code{font:12px ui-monospace,"DejaVu Sans Mono",monospace;white-space:pre-wrap;overflow-wrap:anywhere;margin:0}
h2{font-size:16px;margin:1.6em 0 .3em}p{margin:.3em 0;color:var(--quiet)}
details{border-top:1px solid var(--line);content-visibility:auto;contain-intrinsic-size:auto 2.2em}
summary{display:grid;grid-template-columns:minmax(0,14em) minmax(0,1fr) minmax(0,16em);gap:.2em 1em;padding:.3em;cursor:pointer;overflow-wrap:anywhere}
summary:hover,details[open]{background:var(--raised)}
.finding b{color:var(--bad)}.sometimes b{color:var(--retry)}.recovered b{color:var(--good)}b{font-weight:600}
summary i{font-style:normal;color:var(--quiet)}
dl{display:grid;grid-template-columns:9em minmax(0,1fr);gap:.2em 1em;margin:0;padding:.2em .6em .8em}dt{color:var(--quiet)}dd{margin:0}
.again{user-select:all}p.cut{color:var(--bad);font-weight:600}
@media(max-width:700px){summary,dl{grid-template-columns:minmax(0,1fr)}}
`

const html = (text: string): string => escapeHtml(printable(text))
const code = (lines: readonly string[]): string => `<pre>${lines.map(html).join('\n')}</pre>`

const time = (milliseconds: number): string =>
  milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`

const rank = (result: WalkResult): number =>
  outcomes.indexOf(result.outcome) + (isFinding(result) ? 0 : outcomes.length)

const rowHtml = (result: WalkResult, symbols: Symbols, stage: Stage | undefined): string => {
  const { point, outcome, run, details, message, recovery, confirmed } = result
  const isFound = isFinding(result)
  const rows: readonly (readonly [string, string | false])[] = [
    ['Where', html(whereText(point, symbols))],
    ['Called by', code(framesOf(point, symbols).map(frameText))],
    ['Time to recover', outcome === 'recovered' && time(recovery)],
    ['Run', `${html(endText(run))}${run.result.isTimedOut ? '' : `, ${time(run.result.duration)}`}`],
    ['Message', message !== undefined && html(message)],
    ['Happened in', confirmed !== undefined && `${confirmed.times} of ${confirmed.runs} runs`],
    [outcome === 'hang' ? 'Waits for' : 'Details', details.length > 0 && code(details)],
    ...recordsOf(result).map(
      record => ['Stack', code([recordTitle(record), ...symbols.framesOf(record.stack).map(frameText)])] as const,
    ),
    // As it is: a word may have several lines.
    [
      'Repeat it',
      stage !== undefined &&
        `<code class="again">${escapeHtml(stage.repeatCommand(point).map(quoted).join(' '))}</code>`,
    ],
  ]
  const list = rows.map(([name, value]) =>
    value === false || value === '' || value === '<pre></pre>' ? '' : `<dt>${name}</dt><dd>${value}</dd>`,
  )
  const look = isFound ? 'finding' : isFindingOutcome(outcome) ? 'sometimes' : outcome
  return `<details class="${look}"${isFound ? ' open' : ''}><summary><b>${html(outcomeText(result))}</b><span>${html(point.text)}</span><i>${html(placeText(point, symbols))}</i></summary><dl>${list.join('')}</dl></details>\n`
}

/**
 * `name`: of the program. `summary`: the last lines of the report. `interruptedBy`: the signal that has ended the walk.
 */
export const walkHtml = (
  name: string,
  {
    results,
    summary,
    interruptedBy,
  }: {
    readonly results: readonly WalkResult[]
    readonly summary: string
    readonly interruptedBy: string | undefined
  },
  symbols: Symbols,
  stage: Stage | undefined,
): string => {
  const kinds = walkKindNames.map(kind => {
    const ofKind = results.filter(({ point }) => point.kind === kind).sort((a, b) => rank(a) - rank(b))
    const found = ofKind.filter(isFinding).length
    return { kind, ofKind, found }
  })
  const sections = [...kinds.filter(({ found }) => found > 0), ...kinds.filter(({ found }) => found === 0)].map(
    ({ kind, ofKind, found }) =>
      ofKind.length === 0
        ? ''
        : `<section><h2>${kind}: ${counted(ofKind.length, 'run')}, ${counted(found, 'finding')}</h2><p>${html(walkKinds[kind])}</p>\n${ofKind.map(result => rowHtml(result, symbols, stage)).join('')}</section>\n`,
  )
  const title = `Walk: ${printable(name)}${interruptedBy === undefined ? '' : ' (interrupted)'}`
  const cut =
    interruptedBy === undefined
      ? ''
      : `<p class="cut">The walk was interrupted by ${html(interruptedBy)}: this page has what was tried until then.</p>\n`
  const text = summary.trimEnd().split('\n')
  return htmlDocument(title, STYLE, `<h1>${escapeHtml(title)}</h1>\n${cut}${code(text)}\n${sections.join('')}`)
}
