/*
 * examples/tests: projects of pytest, GoogleTest, cargo, go and vitest whose tests set faults and have findings, run as
 * their documents say (docs/how-to/test-faults.md).
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { cleanEnvironment, lacking, run, suiteScope, temporaryFolder, userdma } from '../../system/programs.ts'
import { findTool } from '../../tools.ts'

const examples = join(repoRoot, 'examples', 'tests')
const inShim = (...names: readonly string[]): string => join(repoRoot, 'shim', ...names)
const STALE = /userdma check: error stale-rkey: /

/** Not every machine has it. */
const without = (tool: string): string | false => findTool(tool) === undefined && `${tool} is missing`
/** The interpreter that has these modules. */
const pythonWith = (...modules: readonly string[]): string | undefined =>
  ['python3', '/usr/bin/python3'].find(name => spawnSync(name, ['-c', `import ${modules.join(', ')}`]).status === 0)
const python = pythonWith('pytest', 'xdist') ?? pythonWith('pytest')
const hasGtest = (): string | false => !existsSync('/usr/include/gtest/gtest.h') && 'libgtest-dev is missing'

describe('test projects with faults and findings', { skip: lacking('cc', 'python3') }, () => {
  const scope = suiteScope()
  let folder = ''
  before(async () => {
    folder = temporaryFolder(scope)
    const library = join(folder, 'libtransfer.so')
    const words = ['-shared', '-fPIC', '-o', library, join(examples, 'transfer.c'), '-libverbs']
    assert.equal((await run(scope, 'cc', words)).status, 0)
  })
  const checked = (words: readonly string[], env = {}, cwd = repoRoot) =>
    run(scope, userdma, ['check', '--private', '--fail-on', 'never', '--', ...words], {
      cwd,
      env: cleanEnvironment({ LD_LIBRARY_PATH: folder, ...env }),
    })

  it('pytest: 114 cases, a finding fails its test', {
    skip: python === undefined && 'python3-pytest is missing',
  }, async () => {
    cpSync(join(examples, 'pytest'), folder, { recursive: true })
    const pytest = (env = {}, ...words: readonly string[]) =>
      run(scope, python ?? '', ['-m', 'pytest', '-q', '-p', 'no:cacheprovider', ...words], {
        cwd: folder,
        env: cleanEnvironment({
          USERDMA_COMMAND: userdma,
          PYTHONPATH: inShim('languages'),
          PYTHONDONTWRITEBYTECODE: '1',
          ...env,
        }),
      })
    const good = await pytest()
    assert.match(good.stdout, /^117 passed, 2 skipped/m, good.stderr)
    assert.equal(good.status, 0)
    const bad = await pytest({ MISTAKE: '1' })
    assert.equal(bad.status, 1)
    assert.match(bad.stdout, STALE)
    assert.match(bad.stdout, /transfer_write_stale/)
    assert.match(bad.stdout, /^1 failed, 117 passed/m)
    if (pythonWith('xdist') === python) {
      const beside = await pytest({ MISTAKE: '1' }, '-n', '3', '-k', 'stale or mistake or reconnects')
      assert.match(beside.stdout, /^1 failed, 2 passed/m)
      assert.doesNotMatch(beside.stdout, /findings after/)
    }
    const late = await pytest({ HANG: '1' })
    assert.match(late.stdout, /- userdma stat --health -+\nprocess \d+ \(ibv_rc_pingpong\): 1 queue pair/)
    assert.match(late.stdout, /^1 failed, 117 passed/m)
    const absent = await pytest({ USERDMA_COMMAND: 'no-such-command' })
    assert.match(absent.stdout, /^119 skipped/m)
  })

  it('pytest: signals end it once, and leave nothing', {
    skip: python === undefined && 'python3-pytest is missing',
  }, async () => {
    const cwd = join(folder, 'signals')
    const TMPDIR = join(cwd, 'tmp')
    mkdirSync(TMPDIR, { recursive: true })
    writeFileSync(
      join(cwd, 'test_signals.py'),
      `import os, signal, pytest
@pytest.fixture
def after():
    yield
    os.kill(os.getpid(), signal.SIGINT)
    open("after", "w").close()
def test_interrupts(after):
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
def test_terminates(userdma):
    os.kill(os.getppid(), signal.SIGTERM)
    signal.pause()
`,
    )
    const pytest = (name: string) =>
      run(scope, python ?? '', ['-m', 'pytest', '-p', 'pytest_userdma', '-p', 'no:cacheprovider', '-k', name], {
        cwd,
        env: cleanEnvironment({
          TMPDIR,
          USERDMA_COMMAND: userdma,
          PYTHONPATH: inShim('languages'),
          PYTHONDONTWRITEBYTECODE: '1',
        }),
      })
    const interrupted = await pytest('interrupts')
    assert.match(interrupted.stdout, /KeyboardInterrupt/)
    assert.ok(existsSync(join(cwd, 'after')), interrupted.stdout)
    const terminated = await pytest('terminates')
    assert.equal(terminated.signal, 'SIGTERM', terminated.stderr)
    assert.deepEqual(readdirSync(TMPDIR), [])
  })

  it('GoogleTest', { skip: hasGtest() || without('g++') }, async () => {
    const program = join(folder, 'transfer_test')
    const source = join(examples, 'gtest', 'transfer_test.cc')
    const flags = ['-g', '-Wall', '-Werror', `-I${inShim('include')}`, '-o', program]
    const built = await run(scope, 'g++', [...flags, source, '-lgtest', '-libverbs', '-lpthread'])
    assert.equal(built.status, 0, built.stderr)
    const good = await checked([program])
    assert.equal(good.status, 0, good.stdout)
    const bad = await checked([program, '--gtest_also_run_disabled_tests'])
    assert.equal(bad.status, 1)
    assert.match(bad.stdout, STALE)
    assert.match(bad.stdout, /\[ {2}PASSED {2}\] 2 tests/)
    const alone = await run(scope, program, [], { env: cleanEnvironment() })
    assert.match(alone.stdout, /\[ {2}SKIPPED \] 2 tests/)
  })

  it('cargo test', { skip: without('cargo') }, async () => {
    const env = { CARGO_TARGET_DIR: join(folder, 'target'), CARGO_HOME: undefined, TRANSFER_FOLDER: folder }
    const project = join(examples, 'cargo')
    const manifest = ['--manifest-path', join(project, 'Cargo.toml'), '--offline']
    const good = await checked(['cargo', 'test', ...manifest], env)
    assert.equal(good.status, 0, good.stdout + good.stderr)
    assert.match(good.stdout, /2 passed; 0 failed; 1 ignored/)
    const bad = await checked(['cargo', 'test', ...manifest, '--', '--include-ignored'], env)
    assert.notEqual(bad.status, 0)
    assert.match(bad.stdout, STALE)
    assert.match(bad.stdout, /2 passed; 1 failed/)
  })

  it('go test', { skip: without('go') }, async () => {
    const project = join(folder, 'go')
    cpSync(join(examples, 'go'), project, { recursive: true })
    cpSync(join(examples, 'transfer.h'), join(project, 'transfer.h'))
    cpSync(inShim('languages', 'userdma.go'), join(project, 'userdma', 'userdma.go'))
    const test = ['go', 'test', '-count=1', '-v']
    const env = { HOME: folder, GOFLAGS: '-mod=mod', GOPATH: join(folder, 'gopath') }
    const good = await checked(test, env, project)
    assert.equal(good.status, 0, good.stdout + good.stderr)
    assert.match(good.stdout, /PASS: TestReconnects/)
    assert.match(good.stdout, /PASS: TestSurvivesAStaleKey/)
    const bad = await checked(test, { ...env, MISTAKE: '1' }, project)
    assert.notEqual(bad.status, 0)
    assert.match(bad.stdout, STALE)
    assert.match(bad.stdout, /FAIL: TestWithAMistake/)
  })

  it('vitest', { skip: without('npm') }, async () => {
    const project = join(folder, 'vitest')
    cpSync(join(examples, 'vitest'), project, { recursive: true })
    const options = { cwd: project, env: cleanEnvironment() }
    const installed = await run(scope, 'npm', ['install', '--no-package-lock', '--no-audit', '--no-fund'], options)
    assert.equal(installed.status, 0, installed.stderr)
    symlinkSync(repoRoot, join(project, 'node_modules', 'userdma'))
    const good = await run(scope, 'npx', ['vitest', 'run'], options)
    assert.equal(good.status, 0, good.stdout + good.stderr)
    assert.match(good.stdout, /3 passed/)
    const env = cleanEnvironment({ MISTAKE: '1' })
    const bad = await run(scope, 'npx', ['vitest', 'run'], { ...options, env })
    assert.equal(bad.status, 1)
    assert.match(bad.stdout + bad.stderr, /FAIL {2}transfer.test.mts > fails: the finding of the check/)
  })
})
