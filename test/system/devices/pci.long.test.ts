/*
 * Programs that look for adapters by their PCI functions: hwloc's lstopo, lspci, UCX, and rdma-core's tests of pyverbs,
 * which find the address of a device by its network interface.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { assertGood, lacking, run, startDaemon, suiteScope, type TestDaemon } from '../programs.ts'
import { PYTHON, runPyverbs, SHIPPED } from '../suites/pyverbs.ts'

describe('a device with a PCI function is found by', () => {
  const scope = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    const devices = ['rxe0@127.0.0.1,pci=0000:81:00.0,numa=0,model=mlx5', 'rdmap0@127.0.0.2,pci=82:00.0,model=efa']
    daemon = await startDaemon(scope, { devices })
  })

  const outputOf = async (program: string, ...args: readonly string[]): Promise<string> => {
    const finished = await run(scope, program, args, { env: daemon.env })
    assertGood(finished)
    return finished.stdout
  }

  it('lstopo', { skip: lacking('lstopo-no-graphics') }, async () => {
    const stdout = await outputOf('lstopo-no-graphics', '--of', 'console')
    assert.match(stdout, /PCI 81:00\.0 \(Ethernet\)\n\s+OpenFabrics "rxe0"/)
    assert.match(stdout, /PCI 82:00\.0 \(Ethernet\)\n\s+OpenFabrics "rdmap0"/)
  })

  it('lspci', { skip: lacking('lspci') }, async () => {
    const stdout = await outputOf('lspci', '-Dnnkv', '-s', '81:00.0')
    assert.match(stdout, /^0000:81:00\.0 Ethernet controller \[0200\]: .*\[15b3:1017\]/)
    assert.match(stdout, /NUMA node 0[\s\S]*Kernel driver in use: mlx5_core/)
    const summary = await outputOf('lspci', '-n')
    assert.match(summary, /^82:00\.0 0200: 1d0f:efa1$/m)
  })

  it('UCX, which places it in the topology of the machine', { skip: lacking('ucx_info') }, async () => {
    const stdout = await outputOf('ucx_info', '-d')
    assert.match(stdout, /Transport: rc_verbs\n#\s+Device: rxe0:1\n#\s+Type: network\n#\s+System device: rxe0 \(\d+\)/)
  })

  it('the connection manager’s tests of pyverbs', { skip: lacking(PYTHON, SHIPPED, 'ip') }, async t => {
    const options = { daemon, looksForInterface: true, modules: 'test_rdmacm' }
    const tests = await runPyverbs(t, { root: '/', command: words => words, ...options })
    assert.ok(tests.length >= 10)
    assert.deepEqual(
      tests.filter(({ kind }) => kind !== 'pass'),
      [],
    )
  })
})
