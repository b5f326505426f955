/*
 * Scripts under `userdma check`, and their findings.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { FindingId } from '../../../src/spec/check/findings.ts'
import type { OmissionId } from '../../../src/spec/check/omissions.ts'
import { cleanEnvironment, freePort, runUserdma, type Scope, temporaryFolder } from '../programs.ts'

export interface FrameJson {
  readonly function: string
  readonly object?: string
  readonly file?: string
  readonly line?: number
}
export interface MomentJson {
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

export interface OmissionJson {
  readonly omission: OmissionId
  readonly count: number
  readonly text: string
}

/** A shell script that runs a command as server and client of one port; `ss` says when the server listens. */
export const serverAndClient = async (command: string): Promise<string> => {
  const port = await freePort()
  const server = `${command} -p ${port}`
  return `${server} > /dev/null & until ss -Htln "sport = :${port}" | grep -q .; do :; done; ${server} localhost > /dev/null; wait`
}

/** Runs a shell script under `userdma check`, and returns its findings of all severities. */
export const checkScript = async (scope: Scope, script: string, options: readonly string[] = [], env = {}) => {
  const output = join(temporaryFolder(scope), 'findings')
  const { status, stdout, stderr } = await runUserdma(
    scope,
    ['check', '--notes', '--json', '-o', output, ...options, '--', 'sh', '-c', script],
    { env: cleanEnvironment(env) },
  )
  const lines = readFileSync(output, 'utf8').split('\n').filter(Boolean)
  const all = lines.map(line => JSON.parse(line) as FindingJson | OmissionJson)
  return {
    status,
    stdout,
    stderr,
    found: all.filter(one => 'id' in one),
    omitted: all.filter(one => 'omission' in one),
  }
}
