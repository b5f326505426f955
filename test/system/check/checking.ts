/*
 * Runs shell scripts under `userdma check --notes --json`, and reads the findings.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { FindingId } from '../../../src/spec/check/findings.ts'
import type { OmissionId } from '../../../src/spec/check/omissions.ts'
import { cleanEnvironment, freePort, runUserdma, type Scope, temporaryFolder } from '../programs.ts'

interface FrameJson {
  readonly function: string
  readonly object?: string
  readonly file?: string
  readonly line?: number
}
/** A call, a request, or an event in the history of an object. */
interface MomentJson {
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
