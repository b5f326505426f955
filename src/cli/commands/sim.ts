/*
 * `userdma sim FILE`: simulates devices and a network in virtual time (src/tools/sim/), and prints what was measured.
 */
import type { Result } from '../../tools/sim/scenario.ts'
import { simulate } from '../../tools/sim/scenario.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { simOptions } from '../command-line/options.ts'
import { openReport, requireDifferentFiles } from '../output-file.ts'
import { createProgress } from '../progress.ts'
import { csvText, jsonText, tableText } from '../sim/output.ts'
import { plotHtml } from '../sim/plot.ts'
import { readScenario } from '../sim/scenario-file.ts'

type SimOptions = OptionsOf<typeof simOptions>

/** Lets the line of the progress be drawn, and signals act. */
const nextTurn = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

export const sim = async (file: string, { json = false, csv, html }: SimOptions): Promise<void> => {
  const { scenario, controls } = readScenario(file)
  requireDifferentFiles(
    [
      ['--csv', csv],
      ['--html', html],
    ],
    [['the scenario', file]],
  )
  const reports = [
    { report: csv === undefined ? undefined : openReport(csv), textOf: csvText },
    { report: html === undefined ? undefined : openReport(html), textOf: plotHtml },
  ]
  const progress = createProgress('userdma sim')
  const results: Result[] = []
  let done = 0
  progress.show(
    () =>
      `${scenario.name} with ${controls[Math.floor(done)] ?? 'all'}: ${Math.round((100 * done) / controls.length)} %`,
    () => done / controls.length,
  )
  for (const control of controls) {
    const run = simulate(scenario, control, () => performance.now())
    let step = run.next()
    while (!step.done) {
      done = results.length + step.value
      progress.refresh()
      await nextTurn()
      step = run.next()
    }
    results.push(step.value)
  }
  progress.end()
  process.stdout.write(json ? jsonText(results) : tableText(results))
  for (const { report, textOf } of reports) {
    report?.write(textOf(results))
    if (report?.hasFailed) process.exitCode = 1
  }
}
