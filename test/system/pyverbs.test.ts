/*
 * rdma-core's own tests of pyverbs, as Debian ships them with its documentation: a program that we did not write checks
 * objects, errors, and traffic of every service.
 *
 * What passes today must go on passing (test/fixtures/pyverbs.txt), and nothing may fail. What Linux's soft device
 * lacks too is skipped by the tests themselves.
 */
import assert from 'node:assert/strict'
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { fixture, repoRoot } from '../paths.ts'
import { lacking, ONE_DEVICE, run, type Scope, startDaemon, temporaryFolder } from './programs.ts'

const SHIPPED = '/usr/share/doc/rdma-core/tests'
/** Debian's interpreter, for which its modules are compiled; another one may come first in PATH. */
const PYTHON = '/usr/bin/python3'
const MODULES = '/usr/lib/python3/dist-packages/pyverbs'

/** The suite as Python can import it: Debian compresses the larger files. Answers the folder that `tests` is in. */
const unpack = (scope: Scope): string => {
  const folder = temporaryFolder(scope)
  const tests = join(folder, 'tests')
  cpSync(SHIPPED, tests, { recursive: true })
  for (const name of readdirSync(tests).filter(name => name.endsWith('.gz'))) {
    writeFileSync(join(tests, name.slice(0, -3)), gunzipSync(readFileSync(join(tests, name))))
    rmSync(join(tests, name))
  }
  return folder
}

describe('rdma-core’s tests of pyverbs', { skip: lacking(PYTHON, MODULES, SHIPPED) }, () => {
  it('pass', async t => {
    const daemon = await startDaemon(t, { devices: ONE_DEVICE })
    const args = [
      join(repoRoot, 'test', 'system', 'run-pyverbs.py'),
      unpack(t),
      '127.0.0.1',
      '--dev',
      'rxe0',
      '--gid',
      '1',
    ]
    const { status, signal, stdout, stderr } = await run(t, PYTHON, args, { env: daemon.env })
    const lines = stdout.trim().split('\n')
    assert.deepEqual([status, signal], [0, null], `it ended after "${lines.at(-1)}"\n${stderr}`)
    assert.deepEqual(
      lines.filter(line => line.startsWith('fail ')),
      [],
    )
    const results = new Map(lines.map(line => line.split(' ').slice(0, 2).reverse() as [string, string]))
    const listed = readFileSync(fixture('pyverbs.txt'), 'utf8').trim().split('\n')
    // Another version of rdma-core has other tests.
    const known = listed.filter(name => results.has(name))
    assert.ok(known.length > listed.length / 2, `of ${listed.length} tests there are ${known.length}`)
    assert.deepEqual(
      known.filter(name => results.get(name) !== 'pass'),
      [],
    )
  })
})
