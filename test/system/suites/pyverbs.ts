/*
 * Runs rdma-core's own pyverbs tests, which Debian ships in /usr/share/doc, in a userland (test/catalogue/userland.ts).
 */
import assert from 'node:assert/strict'
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { fixture, repoRoot } from '../../paths.ts'
import { ONE_DEVICE, run, type Scope, startDaemon, type TestDaemon, temporaryFolder } from '../programs.ts'

export const SHIPPED = '/usr/share/doc/rdma-core/tests'
/** Debian's interpreter, for which its modules are compiled; another one may come first in PATH. */
export const PYTHON = '/usr/bin/python3'

/** Fixtures that list the tests that must pass, by the userland of the suite. */
const LISTS = { 'Debian 12': 'pyverbs-debian12.txt', 'Debian 13': 'pyverbs-debian13.txt' } as const

/** Milliseconds for all tests. */
const LIMIT = 300_000

export interface PyverbsResult {
  readonly kind: 'pass' | 'skip' | 'fail'
  readonly test: string
  /** The reason of a skip or failure. */
  readonly reason: string
}

/**
 * Unpacks the suite so that Python can import it: Debian compresses the larger files. Returns the folder that contains
 * `tests`.
 */
const unpack = (scope: Scope, shipped: string): string => {
  const folder = temporaryFolder(scope)
  const tests = join(folder, 'tests')
  cpSync(shipped, tests, { recursive: true })
  for (const name of readdirSync(tests).filter(name => name.endsWith('.gz'))) {
    writeFileSync(join(tests, name.slice(0, -3)), gunzipSync(readFileSync(join(tests, name))))
    rmSync(join(tests, name))
  }
  return folder
}

const RESULT = /^(pass|skip|fail) (\S+) ?(.*)$/

interface PyverbsOptions {
  /** The root folder of the userland. */
  readonly root: string
  /** The command that runs a program of the userland. */
  command(words: readonly [string, ...string[]]): readonly string[]
  /** Has the device rxe0 with address 127.0.0.1, which the tests use; default: a new daemon with this device. */
  readonly daemon?: TestDaemon
}

/** Runs all tests; rejects if the Python interpreter crashes or exceeds LIMIT. */
export const runPyverbs = async (
  scope: Scope,
  { root, command, daemon: runningDaemon }: PyverbsOptions,
): Promise<PyverbsResult[]> => {
  const daemon = runningDaemon ?? (await startDaemon(scope, { devices: ONE_DEVICE }))
  const suite = join(repoRoot, 'test', 'system', 'suites', 'run-pyverbs.py')
  const [program, ...args] = command([
    ...([PYTHON, suite, unpack(scope, join(root, SHIPPED)), '127.0.0.1'] as const),
    ...['--dev', 'rxe0', '--gid', '1'],
  ])
  const { status, signal, stdout, stderr } = await run(scope, program!, args, { env: daemon.env, limit: LIMIT })
  const lines = stdout.trim().split('\n')
  assert.deepEqual([status, signal], [0, null], `it ended after "${lines.at(-1)}"\n${stderr}`)
  return lines.flatMap(line => {
    const [, kind, test, reason] = RESULT.exec(line) ?? []
    return kind === undefined ? [] : [{ kind: kind as PyverbsResult['kind'], test: test!, reason: reason! }]
  })
}

/**
 * Asserts that no test failed, and that every listed test passed: all that pass with Linux's soft device, and more.
 * Listed tests that this version of rdma-core does not have are ignored.
 */
export const assertGoodPyverbs = (tests: readonly PyverbsResult[], userland: keyof typeof LISTS): void => {
  assert.deepEqual(
    tests.filter(({ kind }) => kind === 'fail'),
    [],
  )
  const results = new Map(tests.map(({ test, kind }) => [test, kind]))
  const listed = readFileSync(fixture(LISTS[userland]), 'utf8').trim().split('\n')
  const present = listed.filter(name => results.has(name))
  assert.ok(present.length > listed.length / 2, `of ${listed.length} listed tests the suite has only ${present.length}`)
  assert.deepEqual(
    present.filter(name => results.get(name) !== 'pass'),
    [],
  )
}
