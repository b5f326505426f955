/*
 * examples/tests: projects of pytest, GoogleTest and cargo whose tests set faults and have findings, run as their documents say
 * (docs/how-to/test-faults.md).
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync } from 'node:fs'
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
const hasPytest = (): string | false =>
  spawnSync('python3', ['-m', 'pytest', '--version']).status === 0 ? false : 'python3-pytest is missing'
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
  const checked = (words: readonly string[], env = {}) =>
    run(scope, userdma, ['check', '--private', '--fail-on', 'never', '--', ...words], {
      env: cleanEnvironment({ LD_LIBRARY_PATH: folder, ...env }),
      limit: 300_000,
    })

  it('pytest: 114 cases, a finding fails its test', { skip: hasPytest() }, async () => {
    cpSync(join(examples, 'pytest'), folder, { recursive: true })
    const pytest = (env = {}) =>
      run(scope, 'python3', ['-m', 'pytest', '-q', '-p', 'no:cacheprovider'], {
        cwd: folder,
        limit: 600_000,
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
    const late = await pytest({ HANG: '1' })
    assert.match(late.stdout, /- userdma stat --health -+\nprocess \d+ \(ibv_rc_pingpong\): 1 queue pair/)
    assert.match(late.stdout, /^1 failed, 117 passed/m)
    const absent = await pytest({ USERDMA_COMMAND: 'no-such-command' })
    assert.match(absent.stdout, /^119 skipped/m)
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
})
