/*
 * The page of the documentation's site where one pastes or drops logs: `userdma explain LOG` in a browser. Nothing
 * leaves it: the page has no network (its policy forbids it), and works from a file too. scripts/site/logs-page.mjs
 * makes it one file.
 */
import { printable } from '../../src/spec/printable.ts'
import { LogAnalysis } from '../../src/tools/logs/analysis.ts'
import { reportLines, reportOf } from '../../src/tools/logs/report.ts'
import { explainNumber, explainText } from '../../src/tools/logs/words.ts'
import { readFiles } from './files.ts'

/** Chains of failures that are shown, and failures of each. */
const TOP = 5

const element = <E extends Element>(selector: string): E => {
  const found = document.querySelector<E>(selector)
  if (found === null) throw new Error(`the page has no ${selector}`)
  return found
}
const pasted = element<HTMLTextAreaElement>('textarea')
const chosen = element<HTMLInputElement>('input')
const report = element<HTMLPreElement>('pre')
const state = element<HTMLElement>('#state')

const show = (lines: readonly string[]): void => {
  report.textContent = lines.map(line => printable(line).trimEnd()).join('\n')
  state.textContent = ''
}

/** A number or a line says as much as on the command line; more lines are a log. */
const explainPasted = (): void => {
  const text = pasted.value.trim()
  const numbers = explainNumber(text)
  if (text === '') show([])
  else if (numbers.length > 0) show(numbers)
  else show((text.includes('\n') ? undefined : explainText(text)) ?? reportOfText(text))
}

const reportOfText = (text: string): readonly string[] => {
  const analysis = new LogAnalysis()
  const log = analysis.begin('the text')
  log.push(new TextEncoder().encode(`${text}\n`))
  log.end()
  return reportLines(reportOf(analysis), TOP)
}

const explainFiles = async (files: readonly File[]): Promise<void> => {
  const analysis = new LogAnalysis()
  const unread = await readFiles(analysis, files, text => {
    state.textContent = text
  })
  show([
    ...unread.map(({ name, reason }) => `not read: ${name}: ${reason}`),
    ...(analysis.sources.length > 0 ? reportLines(reportOf(analysis), TOP) : []),
  ])
}

pasted.addEventListener('input', explainPasted)
chosen.addEventListener('change', () => void explainFiles([...(chosen.files ?? [])]))
document.addEventListener('dragover', event => event.preventDefault())
document.addEventListener('drop', event => {
  event.preventDefault()
  const files = [...(event.dataTransfer?.files ?? [])]
  if (files.length > 0) void explainFiles(files)
})
