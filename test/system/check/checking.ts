/*
 * Runs shell scripts under `userdma check --notes --json`, and reads the findings; the programs of docs/findings.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { FindingId } from '../../../src/spec/check/findings.ts'
import type { OmissionId } from '../../../src/spec/check/omissions.ts'
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
  readonly id: FindingId
  readonly severity: string
  readonly text: string
  readonly details: readonly string[]
  readonly count: number
  readonly program: { readonly command: string }
  readonly moments: readonly MomentJson[]
  readonly objects: readonly { readonly history: readonly MomentJson[] }[]
}

interface OmissionJson {
  readonly omission: OmissionId
}

/**
 * A shell script that runs a command as server, and as client when `ss` shows that the server listens. Its status is
 * not 0 if one of them fails.
 */
export const serverAndClient = async (command: string): Promise<string> => {
  const port = await freePort()
  const line = `${command} -p ${port}`
  return `${line} > /dev/null & until ss -Htln "sport = :${port}" | grep -q .; do :; done; ${line} localhost > /dev/null || { kill $!; exit 1; }; wait $!`
}

/** `omitted`: what the report leaves out because of a bound. */
export const checkScript = async (scope: Scope, script: string, options: readonly string[] = [], env = {}) => {
  const output = join(temporaryFolder(scope), 'findings')
  const { status, stdout, stderr } = await runUserdma(
    scope,
    ['check', '--notes', '--json', '-o', output, ...options, '--', 'sh', '-c', script],
    { env: cleanEnvironment(env) },
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

/** Exit status of `userdma check` with findings. */
export const EX_DATAERR = 65

/** Bytes that Linux keeps of a command's name (TASK_COMM_LEN - 1). */
const COMM_BYTES = 15

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
 * Asserts that a program has its finding, with a marked line in the stacks if there is a symbolizer. `name`: the
 * finding's id, or ID--VARIANT.
 */
export const assertFound = (name: string, found: readonly FindingJson[]): void => {
  const [id] = name.split('--')
  const ofProgram = found.filter(({ program: { command } }) => command === name.slice(0, COMM_BYTES))
  const named = ofProgram.filter(one => one.id === id)
  assert.ok(named.length > 0, `${name}: found ${ofProgram.map(one => one.id).join(', ') || 'nothing'}`)
  const marked = markedLines(name)
  const lines = named.flatMap(linesOf)
  if (findTool('addr2line') || findTool('llvm-symbolizer'))
    assert.ok(
      lines.some(line => marked.includes(line)),
      `${name}: ${lines.join(' ')} has no line of ${marked.join(' ')}`,
    )
}
