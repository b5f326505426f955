/*
 * Runs shell scripts under `userdma check --notes --json`, and reads the findings; the programs of docs/findings.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { FindingId } from '../../../src/spec/check/findings.ts'
import type { OmissionId } from '../../../src/spec/check/omissions.ts'
import { scaled } from '../../limits.ts'
import { repoRoot } from '../../paths.ts'
import { findTool } from '../../tools.ts'
import { cleanEnvironment, freePort, runUserdma, type Scope, temporaryFolder } from '../programs.ts'

interface FrameJson {
  readonly function: string
  readonly object?: string
  readonly file?: string
  readonly line?: number
}
/** A call, a request, or an event in the history of an object. */
interface MomentJson {
  readonly action: string
  readonly frames: readonly FrameJson[]
}
export interface FindingJson {
  readonly number: number
  readonly id: FindingId
  readonly severity: string
  readonly follows?: number
  readonly text: string
  readonly details: readonly string[]
  readonly advice?: string
  readonly count: number
  readonly program: { readonly command: string }
  readonly moments: readonly MomentJson[]
  readonly objects: readonly { readonly history: readonly MomentJson[] }[]
  readonly story?: readonly { readonly text: string }[]
}

interface OmissionJson {
  readonly omission: OmissionId
}

/** Findings whose programs need another daemon, rights, `--like` or a sanitizer (../suites/sanitizers.test.ts). */
export const NEED_MORE: readonly FindingId[] = [
  'peer-refused',
  'slow-memory',
  'adapter-limit',
  'adapter-operation',
  'adapter-memlock',
  'fork-unsafe',
  'touched-in-flight',
  'unordered-access',
  'outside-objects',
]

/** Debian compiles the modules for this interpreter. */
export const PYTHON = '/usr/bin/python3'
export const PYVERBS = '/usr/lib/python3/dist-packages/pyverbs'

/** The command of a Python program whose function `register`, called by the module, makes a call that is refused. */
export const refusedRegistration = (scope: Scope): string => {
  const program = join(temporaryFolder(scope), 'program.py')
  const lines = [
    'from pyverbs.device import Context',
    'from pyverbs.pd import PD',
    'from pyverbs.mr import MR',
    'def register(ctx):',
    '    try:',
    '        raise ValueError("while an exception is handled")',
    '    except ValueError:',
    '        MR(PD(ctx), 100, 2)',
    'try:',
    '    with Context(name="rxe0") as ctx:',
    '        register(ctx)',
    'except Exception as error:',
    '    print(type(error).__name__)',
  ]
  writeFileSync(program, lines.join('\n'))
  return `${PYTHON} ${program}`
}

/** The outermost two frames of its refused call. */
export const pythonFramesOf = (found: readonly FindingJson[]): readonly string[] | undefined =>
  found
    .find(({ id }) => id === 'refused-call')
    ?.moments[0]?.frames.slice(-2)
    .map(({ function: name, line }) => `${name}:${line}`)

/**
 * A shell script that runs a command as server, and as client when `ss` shows that the server listens. Its status is
 * not 0 if one of them fails.
 */
export const serverAndClient = async (command: string): Promise<string> => {
  const port = await freePort()
  const line = `${command} -p ${port}`
  return `${line} > /dev/null & until ss -Htln "sport = :${port}" | grep -q .; do :; done; ${line} localhost > /dev/null || { kill $!; exit 1; }; wait $!`
}

/** Programs that hang until an alarm (test/patience.c) do so for at most so many times as long: a minute, mostly. */
const MAX_PATIENCE = 8

/** `omitted`: what the report leaves out because of a bound. */
export const checkScript = async (scope: Scope, script: string, options: readonly string[] = [], env = {}) => {
  const output = join(temporaryFolder(scope), 'findings')
  const { status, stdout, stderr } = await runUserdma(
    scope,
    ['check', '--notes', '--json', '-o', output, ...options, '--', 'sh', '-c', script],
    { env: cleanEnvironment({ PATIENCE: `${Math.min(scaled(1), MAX_PATIENCE)}`, ...env }) },
  )
  const lines = readFileSync(output, 'utf8').split('\n').filter(Boolean)
  const records = lines.map(line => JSON.parse(line) as FindingJson | OmissionJson)
  return {
    status,
    stdout,
    stderr,
    found: records.filter(one => 'id' in one),
    omitted: records.filter(one => 'omission' in one),
  }
}

export const sources = join(repoRoot, 'docs', 'findings')
/** Programs of docs/findings, compiled with their fault and without. */
export const faulty = (name: string): string => join(repoRoot, 'build', 'findings', name)
export const fixed = (name: string): string => join(repoRoot, 'build', 'findings', 'fixed', name)

/** The names of the programs. */
export const programNames = readdirSync(sources)
  .filter(name => name.endsWith('.c'))
  .map(name => name.slice(0, -2))
/** Whether the program hangs, and ends by a signal after seconds. */
export const isHanging = (name: string): boolean => readFileSync(join(sources, `${name}.c`), 'utf8').includes('alarm(')

/** The options of `userdma check` with which a program shows its fault: a fault rule, for what happens to a device. */
export const optionsOf = (name: string): readonly string[] =>
  /^ \* Options: (.*)$/m.exec(readFileSync(join(sources, `${name}.c`), 'utf8'))?.[1]?.split(' ') ?? []
export const withOptions = programNames.filter(name => optionsOf(name).length > 0)

/** Exit status of `userdma check` with findings. */
export const EX_DATAERR = 65

/** Bytes that Linux keeps of a command's name (TASK_COMM_LEN - 1). */
const COMM_BYTES = 15

/** Whether a finding is of a program with this file name. */
export const isOf =
  (name: string) =>
  ({ program: { command } }: FindingJson): boolean =>
    command === name.slice(0, COMM_BYTES)

/** FILE:LINE of the frames in a finding's stacks. */
export const linesOf = ({ moments, objects }: FindingJson): string[] =>
  [...moments, ...objects.flatMap(({ history }) => history)].flatMap(({ frames }) =>
    frames.map(({ file, line }) => `${file?.split('/').at(-1)}:${line}`),
  )

/** FILE:LINE of the lines that are marked FAULT. */
const markedLines = (id: string): string[] =>
  readFileSync(join(sources, `${id}.c`), 'utf8')
    .split('\n')
    .flatMap((text, i) => (text.includes('/* FAULT */') ? [`${id}.c:${i + 1}`] : []))

/**
 * What is lacking of a program's finding, with a marked line in the stacks if there is a symbolizer; undefined:
 * nothing. `name`: the finding's id, or ID--VARIANT. Long names of commands are cut: those of variants are the same.
 */
export const lackOf = (name: string, found: readonly FindingJson[]): string | undefined => {
  const [id] = name.split('--')
  const ofProgram = found.filter(isOf(name))
  const named = ofProgram.filter(one => one.id === id)
  if (named.length === 0) return `${name}: found ${ofProgram.map(one => one.id).join(', ') || 'nothing'}`
  const marked = markedLines(name)
  const lines = named.flatMap(linesOf)
  const isSymbolized = findTool('addr2line') ?? findTool('llvm-symbolizer')
  if (isSymbolized === undefined || lines.some(line => marked.includes(line))) return undefined
  return `${name}: ${lines.join(' ')} has no line of ${marked.join(' ')}`
}

export const assertFound = (name: string, found: readonly FindingJson[]): void =>
  assert.equal(lackOf(name, found), undefined)
