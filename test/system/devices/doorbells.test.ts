/*
 * A driver with doorbell pages (docs/decisions/doorbell-pages.md): programs that store to them wake the sleeping
 * daemon.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { lacking, ownProgram, run, type Scope, startDaemon, suiteScope, type TestDaemon } from '../programs.ts'

const program = ownProgram('doorbells')
const ownMmap = ownProgram('own_mmap')
const DRIVER = 'test/system/devices/doorbells.mjs'

describe('a store to a doorbell page', { skip: lacking(program) }, () => {
  const start = (scope: Scope): Promise<TestDaemon> =>
    startDaemon(scope, { devices: [], options: ['--driver', DRIVER, '--device', 'doorbells0'] })
  const scope = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await start(scope)
  })

  /** Runs a case of test/programs/memory/doorbells.c; returns its output. */
  const runCase = async (t: Scope, { env, pid }: TestDaemon, name: string): Promise<string> => {
    const { stdout, stderr, status } = await run(t, program, [name, `${pid}`], { env })
    assert.equal(stderr, '')
    assert.match(stdout, /^good$/m)
    assert.equal(status, 0)
    return stdout
  }

  for (const [name, what] of [
    ['wake', 'wakes the daemon'],
    ['threads', 'wakes it for each of several threads'],
    ['unmap', 'wakes it after other pages were unmapped or replaced'],
    ['move', 'does not wait for ever on a page that was moved'],
    ['fork', 'wakes it from a child, too'],
    ['exec', 'wakes it after exec'],
    ['many', 'wakes it on each of many pages'],
  ] as const)
    it(`${what} (${name})`, async t => {
      await runCase(t, daemon, name)
      assert.doesNotMatch(daemon.running.output(), /polls every|error/i)
    })

  it('wakes it at each address at which a program maps the page by its own mmap', {
    skip: lacking(ownMmap),
  }, async t => {
    const { env, running } = await startDaemon(t, { devices: ['efa0@127.0.0.1,driver=efa'] })
    const { stdout, stderr } = await run(t, ownMmap, ['efa0'], { env })
    assert.deepEqual([stdout, stderr], ['good\n', ''])
    assert.doesNotMatch(running.output(), /polls every|error/i)
  })

  it('returns when the daemon dies', async t => {
    await runCase(t, await start(t), 'dies')
  })

  it('reaches a daemon that polls every 10 ms, if the program has no userfaultfd', async t => {
    assert.match(await runCase(t, daemon, 'refused'), /^20 unprotected$/m)
    const lines = daemon.running.output().match(/.*polls every.*/g)
    assert.equal(lines?.length, 1)
    assert.match(
      lines[0],
      /^userdma daemon: polls every 10 ms while process \d+ \(doorbells\) has device doorbells0 open: .* \((userfaultfd: EPERM|it has no userfaultfd); a container's seccomp filter may forbid it\)$/,
    )
    // The daemon sleeps without a timer again: it protects pages of another program.
    await runCase(t, daemon, 'wake')
  })
})
