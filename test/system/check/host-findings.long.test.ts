/*
 * `check --host` finds every mistake of docs/findings whose finding needs no device of userdma, and nothing in the
 * corrected programs.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { type FindingId, findings } from '../../../src/spec/check/findings.ts'
import { LACKING } from '../../../src/spec/check/needs.ts'
import { repoRoot } from '../../paths.ts'
import { cleanEnvironment, lacking, runUserdma, type Scope, temporaryFolder, userdma } from '../programs.ts'
import type { FindingJson } from './checking.ts'

const program = (...path: string[]): string => join(repoRoot, 'build', 'findings', ...path)

/** Not here: the peer must have another observer. */
const WITH_UNKNOWN_PEER: readonly FindingId[] = ['peer-refused']

const IDS = (Object.keys(findings) as FindingId[]).filter(
  id =>
    !LACKING.observed.some(need => findings[id].needs.includes(need)) &&
    !WITH_UNKNOWN_PEER.includes(id) &&
    existsSync(program(id)),
)

const check = async (scope: Scope, programs: readonly string[]) => {
  const output = join(temporaryFolder(scope), 'findings')
  const options = ['--host', '--json', '--notes', '--leaks', '-o', output]
  const inner = [userdma, 'check', ...options, '--', 'sh', '-c', programs.join('; ')]
  await runUserdma(scope, ['run', '--private', '--', ...inner], { env: cleanEnvironment() })
  const lines = readFileSync(output, 'utf8').split('\n').filter(Boolean)
  return lines.map(line => JSON.parse(line) as FindingJson)
}

describe('check --host', { skip: lacking(program('leak')) }, () => {
  it('finds every mistake whose finding needs no device', async t => {
    assert.ok(IDS.length >= 38, IDS.join(', '))
    const found = await check(
      t,
      IDS.map(id => `${program(id)} > /dev/null 2>&1`),
    )
    const isFound = (id: FindingId): boolean =>
      found.some(finding => finding.id === id && finding.program.command === id.slice(0, 15))
    assert.deepEqual(
      IDS.filter(id => !isFound(id)),
      [],
    )
  })

  it('finds nothing in the corrected programs', async t => {
    const found = await check(
      t,
      IDS.map(id => program('fixed', id)),
    )
    assert.deepEqual(
      found.filter(({ severity }) => severity !== 'note'),
      [],
    )
  })
})
