/*
 * Runs rdma-core's tests of pyverbs, which Debian ships in /usr/share/doc, in a userland
 * (test/project/catalogue/userland.ts).
 */
import assert from 'node:assert/strict'
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { fixture, repoRoot } from '../../paths.ts'
import { ONE_DEVICE, run, type Scope, startDaemon, type TestDaemon, temporaryFolder } from '../programs.ts'

export const SHIPPED = '/usr/share/doc/rdma-core/tests'
/** Debian compiles the modules for this interpreter; another one may come first in PATH. */
export const PYTHON = '/usr/bin/python3'

/** Fixtures that list the tests that must pass. */
const LISTS = { 'Debian 12': 'pyverbs-debian12.txt', 'Debian 13': 'pyverbs-debian13.txt' } as const

export interface PyverbsResult {
  readonly kind: 'pass' | 'skip' | 'fail'
  readonly test: string
  readonly reason: string
}

/** Unpacks the suite, whose larger files Debian compresses. Returns the folder that contains `tests`. */
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
  readonly root: string
  /** The command that runs a program of the userland. */
  command(words: readonly [string, ...string[]]): readonly string[]
  /** A daemon with device `device` at 127.0.0.1; default: a new one. */
  readonly daemon?: TestDaemon
  /** Default rxe0. */
  readonly device?: string
  /** Whether the tests of the connection manager look for the device's network interface in sysfs. */
  readonly looksForInterface?: boolean
  /** Only the modules of tests whose names begin so. */
  readonly modules?: string
  /** Without the tests whose names match this regular expression. */
  readonly omitted?: string
}

/** Rejects if the interpreter crashes. */
export const runPyverbs = async (
  scope: Scope,
  {
    root,
    command,
    daemon: runningDaemon,
    device = 'rxe0',
    looksForInterface = false,
    modules = 'test_',
    omitted = '',
  }: PyverbsOptions,
): Promise<PyverbsResult[]> => {
  const daemon = runningDaemon ?? (await startDaemon(scope, { devices: ONE_DEVICE }))
  const suite = join(repoRoot, 'test', 'system', 'suites', 'run-pyverbs.py')
  const [program, ...args] = command([
    ...([PYTHON, suite, unpack(scope, join(root, SHIPPED)), looksForInterface ? '-' : '127.0.0.1', modules] as const),
    ...['--dev', device, '--gid', device === 'rxe0' ? '1' : '0'],
  ])
  const { status, signal, stdout, stderr } = await run(scope, program!, args, {
    env: { ...daemon.env, PYVERBS_OMITTED: omitted },
  })
  const lines = stdout.trim().split('\n')
  assert.deepEqual([status, signal], [0, null], `it ended after "${lines.at(-1)}"\n${stderr}`)
  return lines.flatMap(line => {
    const [, kind, test, reason] = RESULT.exec(line) ?? []
    return kind === undefined ? [] : [{ kind: kind as PyverbsResult['kind'], test: test!, reason: reason! }]
  })
}

/**
 * Asserts that no test failed and every listed test passed. Listed tests that this version of rdma-core lacks are
 * ignored.
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
