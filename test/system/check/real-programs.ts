/*
 * A daemon with --check for real programs, and the comparison of its findings with the table of known findings.
 */
import { createSymbols } from '../../../src/cli/check/symbols.ts'
import { programEnvironment } from '../../../src/cli/program/program.ts'
import { openToolSession } from '../../../src/daemon/client/tool-session.ts'
import type { Finding } from '../../../src/spec/check/finding.ts'
import type { Frame } from '../../../src/spec/check/frames.ts'
import { isFailure } from '../../../src/spec/check/severity.ts'
import { CATALOGUE_DEVICES } from '../../project/catalogue/run.ts'
import { type Scope, startDaemon, type TestDaemon } from '../programs.ts'
import { type KnownFinding, knownFindings } from './known-findings.ts'

interface RealFinding {
  readonly finding: Finding
  readonly command: string
  readonly frames: readonly Frame[]
}

interface CheckedDaemon {
  readonly daemon: TestDaemon
  /** Findings since the last call. `command`: the command line that ran meanwhile. */
  newFindings(command: string): Promise<readonly RealFinding[]>
}

/** `races`: as with `userdma check --races`. */
export const startCheckedDaemon = async (
  scope: Scope,
  {
    races = false,
    devices = CATALOGUE_DEVICES,
  }: { readonly races?: boolean; readonly devices?: readonly string[] } = {},
): Promise<CheckedDaemon> => {
  const daemon = await startDaemon(scope, { devices, options: ['--check'] })
  const unread: Finding[] = []
  const client = await openToolSession(daemon.socket, { onFinding: finding => void unread.push(finding) })
  scope.after(() => client.close())
  await client.subscribeFindings()
  const symbols = createSymbols()
  scope.after(() => symbols.close())
  return {
    daemon: { ...daemon, env: programEnvironment(daemon.socket, { stacks: true, events: races }) },
    async newFindings(command) {
      // Messages stay in order: all findings so far precede this reply.
      await client.counts()
      const found = unread.splice(0)
      return symbols.render(known =>
        found.map(finding => ({
          finding,
          command,
          frames: finding.moments.flatMap(({ stack }) => known.framesOf(stack)),
        })),
      )
    },
  }
}

/** `pattern`: of `KnownFinding.programs`. */
export const isOfProgram = (pattern: string, name: string): boolean =>
  pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern

const matches = (known: KnownFinding, { finding, frames }: RealFinding): boolean =>
  known.id === finding.id &&
  // A row also covers findings of a lower severity.
  isFailure(known.severity, finding.severity) &&
  known.programs.some(pattern => isOfProgram(pattern, finding.program?.command ?? '')) &&
  (known.text?.test(finding.text) ?? true) &&
  (known.stackFunction === undefined || frames.some(frame => frame.function === known.stackFunction))

/** Rows that matched a finding. */
const matched = new Set<KnownFinding>()

const isKnown = (found: RealFinding): boolean => {
  const rows = knownFindings.filter(known => matches(known, found))
  for (const row of rows) matched.add(row)
  return rows.length > 0
}

/** Errors and warnings that are not in the table. */
export const unknownFindings = (found: readonly RealFinding[]): string[] =>
  found
    .filter(one => one.finding.severity !== 'note' && !isKnown(one))
    .map(({ finding, command, frames }) => {
      const { severity, id, program, text } = finding
      const stack = frames.map(({ function: name, object }) => name || object).join(' < ')
      return `${severity} ${id} in ${program?.command} (${command}): ${text}; ${stack}`
    })

/** Rows that matched no finding given to `unknownFindings`. */
export const unmatchedRows = (): string[] =>
  knownFindings
    .filter(row => !matched.has(row))
    .map(
      ({ severity, id, programs, source, text }) =>
        `${severity} ${id} in ${programs.join(' ')}: ${source}${text ? `, ${text}` : ''}`,
    )
