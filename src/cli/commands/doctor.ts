/*
 * `userdma doctor`: looks at the machine and at programs, and says what works, what does not, and what to do.
 */
import type { Severity } from '../../spec/check/severity.ts'
import { jsonText } from '../../spec/printable.ts'
import { type Paint, paintFor } from '../colors.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { doctorOptions } from '../command-line/options.ts'
import { type CheckName, type Diagnosis, doctorChecks, pageOf, type Verdict } from '../doctor/diagnosis.ts'
import {
  checkAdapters,
  checkContainer,
  checkEnvironment,
  checkKernel,
  checkLibraries,
  checkLimits,
  checkNode,
  checkUdp,
} from '../doctor/machine.ts'
import { checkDaemon, checkLibrary, checkProgramNamed, checkPrograms, checkProviders } from '../doctor/programs.ts'

type DoctorOptions = OptionsOf<typeof doctorOptions>

const MARKS: Readonly<Record<Verdict, string>> = {
  ok: 'ok     ',
  note: 'note   ',
  limited: 'limited',
  fails: 'FAILS  ',
}

/** Whose color a verdict has. */
const severityOf: Partial<Record<Verdict, Severity>> = { note: 'note', limited: 'warning', fails: 'error' }

type Check = () => readonly Diagnosis[] | Promise<readonly Diagnosis[]>

const machineChecks: Readonly<Record<Exclude<CheckName, 'program'>, Check>> = {
  node: checkNode,
  libraries: checkLibraries,
  library: checkLibrary,
  programs: checkPrograms,
  providers: checkProviders,
  limits: checkLimits,
  kernel: checkKernel,
  container: checkContainer,
  udp: checkUdp,
  environment: checkEnvironment,
  daemon: checkDaemon,
  adapters: checkAdapters,
}

const lineOf = ({ check, verdict, text, advice }: Diagnosis, paint: Paint): string => {
  const severity = severityOf[verdict]
  const mark = severity === undefined ? MARKS[verdict] : paint(severity, MARKS[verdict])
  const indent = ' '.repeat(MARKS.ok.length + 2 + WIDTH + 2)
  const head = `${mark}  ${check.padEnd(WIDTH)}  ${text.replaceAll('\n', `\n${indent}`)}\n`
  const page = verdict === 'fails' || verdict === 'limited' ? ` (userdma help ${pageOf(check)})` : ''
  return advice === undefined && page === '' ? head : `${head}${indent}${advice ?? 'more'}${page}\n`
}
const WIDTH = Math.max(...Object.keys(doctorChecks).map(name => name.length))

/** The command. The exit status is 1 if a check fails. */
export const doctor = async (programs: readonly string[], options: DoctorOptions): Promise<void> => {
  const { json = false } = options
  const paint = paintFor(options, process.stdout)
  const found: Diagnosis[] = []
  const report = (diagnoses: readonly Diagnosis[]): void => {
    found.push(...diagnoses)
    if (!json) for (const diagnosis of diagnoses) process.stdout.write(lineOf(diagnosis, paint))
  }
  for (const check of Object.values(machineChecks)) report(await check())
  for (const program of programs) report(checkProgramNamed(program))
  const works = found.every(({ verdict }) => verdict !== 'fails')
  if (json) {
    const diagnoses = found.map(diagnosis => ({ ...diagnosis, page: pageOf(diagnosis.check) }))
    process.stdout.write(`${jsonText({ works, diagnoses }, 2)}\n`)
  }
  if (!works) process.exitCode = 1
}
