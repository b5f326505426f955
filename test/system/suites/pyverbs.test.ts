/*
 * rdma-core's tests of pyverbs. docs/reference/programs.md lists the skipped tests with their reasons.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { longOnly } from '../../long-run.ts'
import { PAGE } from '../../project/catalogue/page.ts'
import { shortName } from '../../project/catalogue/pyverbs-section.ts'
import { lacking, startDaemon } from '../programs.ts'
import { assertGoodPyverbs, PYTHON, runPyverbs, SHIPPED } from './pyverbs.ts'

const MODULES = '/usr/lib/python3/dist-packages/pyverbs'

describe('rdma-core’s tests of pyverbs', { skip: lacking(PYTHON, MODULES, SHIPPED) }, () => {
  it('pass', async t => {
    const tests = await runPyverbs(t, { root: '/', command: words => words })
    assertGoodPyverbs(tests, 'Debian 12')
    const page = readFileSync(PAGE, 'utf8')
    const unlisted = tests.filter(({ kind, test }) => kind === 'skip' && !page.includes(`\`${shortName(test)}\``))
    assert.deepEqual(unlisted, [], 'docs/reference/programs.md lists what is skipped: npm run docs:programs')
  })

  it('pass on an InfiniBand port, those of mlx5 too', { skip: longOnly }, async t => {
    const daemon = await startDaemon(t, { devices: ['mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband'] })
    const options = { root: '/', command: (words: readonly [string, ...string[]]) => words, daemon, device: 'mlx5_0' }
    const tests = []
    for (const modules of ['test_', 'test_mlx5']) tests.push(...(await runPyverbs(t, { ...options, modules })))
    const failed = tests.filter(({ kind }) => kind === 'fail').map(({ test }) => test)
    assert.deepEqual(
      failed,
      ['tests.test_mlx5_dc.DCTest.test_dc_send_stream_bad_flow'],
      'docs/reference/applications.md',
    )
    const passed = tests.filter(({ kind }) => kind === 'pass')
    assert.ok(passed.length >= 180, `${passed.length} tests`)
  })

  it('for EFA pass on a device with the driver efa', { skip: longOnly }, async t => {
    const daemon = await startDaemon(t, { devices: ['efa0@127.0.0.1,driver=efa'] })
    const options = { root: '/', command: (words: readonly [string, ...string[]]) => words, daemon, device: 'efa0' }
    const tests = await runPyverbs(t, { ...options, modules: 'test_efa' })
    assert.ok(tests.length >= 16, `${tests.length} tests`)
    assert.deepEqual(
      tests.filter(({ kind }) => kind !== 'pass'),
      [],
    )
  })
})
