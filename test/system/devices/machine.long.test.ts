/*
 * Programs that look for adapters, on the machines that userdma has: hwloc's lstopo, lspci, UCX, libfabric. Each
 * machine is captured as its file says.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { shippedMachines } from '../../../src/cli/machine/shipped.ts'
import { assertGood, lacking, runUserdma, type Scope, temporaryFolder, userdma } from '../programs.ts'

const outputOf = async (t: Scope, machine: string, ...command: readonly string[]): Promise<string> => {
  const finished = await runUserdma(t, ['run', '--private', '--machine', machine, '--', ...command])
  assertGood(finished)
  return finished.stdout
}

/** Adapters below one switch, at one host bridge, and at another one. */
const NEAR_AND_FAR = `userdma machine 1
package 0 cores=0..3
node 0 cpus=0-3 memory=16G distances=10
bus 0000:00 node=0
  0000:00:01.0 060400 8086:352a speed=16.0 width=16
    0000:01:00.0 060400 1000:c010 speed=16.0 width=16
      0000:02:00.0 060400 1000:c010 speed=16.0 width=16
        0000:03:00.0 020000 15b3:1017 speed=16.0 width=16 rdma=mlx5_0
      0000:02:01.0 060400 1000:c010 speed=16.0 width=16
        0000:04:00.0 020000 15b3:1017 speed=16.0 width=16 rdma=mlx5_1
  0000:00:02.0 060400 8086:352a speed=16.0 width=16
    0000:05:00.0 020000 15b3:1017 speed=16.0 width=16 rdma=mlx5_2
bus 0000:80 node=0
  0000:80:02.0 060400 8086:352a speed=16.0 width=16
    0000:81:00.0 020000 15b3:1017 speed=16.0 width=16 rdma=mlx5_3
`

describe('another machine is seen by', () => {
  it('lstopo: each adapter beside its GPU, in its package', { skip: lacking('lstopo-no-graphics') }, async t => {
    const stdout = await outputOf(t, 'hgx-h100', 'lstopo-no-graphics', '--of', 'console')
    const [, ...packages] = stdout.split(/^ {2}Package/m)
    assert.equal(packages.length, 2)
    const pairs = [
      ...stdout.matchAll(
        /PCI \S+ \(3D\)\n +PCIBridge\n +PCI \S+ \(InfiniBand\)\n +Net "(\S+)"\n +OpenFabrics "(\S+)"/g,
      ),
    ]
    assert.deepEqual(
      pairs.map(([, net, device]) => `${net} ${device}`),
      Array.from({ length: 8 }, (_, i) => `ib${i} mlx5_${i}`),
    )
    assert.deepEqual(
      [...packages[1]!.matchAll(/OpenFabrics "(\S+)"/g)].map(([, name]) => name),
      [...['mlx5_4', 'mlx5_5', 'mlx5_6', 'mlx5_7']],
    )
    assert.equal([...stdout.matchAll(/PU L#/g)].length, 224)
  })

  it('lspci: the tree, links and ACS', { skip: lacking('lspci') }, async t => {
    assert.match(
      await outputOf(t, 'hgx-h100', 'lspci', '-tn'),
      /\[0000:15\]---01\.0-\[16-19\]----00\.0-\[17-19\]--\+-00\.0-\[18\]/,
    )
    const port = await outputOf(t, 'hgx-h100', 'lspci', '-vvn', '-s', '15:01.0')
    assert.match(port, /Express \(v2\) Root Port/)
    assert.match(port, /LnkSta:\s+Speed 32GT\/s.*Width x16/)
    assert.match(port, /ACSCtl:\s+SrcValid\+ TransBlk- ReqRedir\+ CmpltRedir\+ UpstreamFwd\+ EgressCtrl- DirectTrans-/)
  })

  it('UCX: the nearer, the faster', { skip: lacking('ucx_info') }, async t => {
    const file = join(temporaryFolder(t), 'near.machine')
    writeFileSync(file, NEAR_AND_FAR)
    const rows = [...(await outputOf(t, file, 'ucx_info', '-T')).matchAll(/^# \|\s+mlx5_\d \|(.*)\|$/gm)]
    const [first = []] = rows.map(([, cells = '']) =>
      cells.split('|').map(cell => Number(cell.replace('inf', 'Infinity'))),
    )
    const [, sameSwitch, sameBridge, otherBridge] = first as number[]
    assert.ok(sameSwitch! > sameBridge! && sameSwitch! > otherBridge!, first.join())
    assert.notEqual(sameBridge, otherBridge)
  })

  it('libfabric: the addresses of EFA', { skip: lacking('fi_info') }, async t => {
    const stdout = await outputOf(t, 'p4d.24xlarge', 'fi_info', '-v', '-p', 'efa', '-t', 'FI_EP_RDM')
    const places = [...stdout.matchAll(/bus_id: (\d+)\n\s+device_id: (\d+)/g)].map(
      ([, bus, device]) => `${bus}.${device}`,
    )
    assert.deepEqual([...new Set(places)].sort(), ['144.27', '16.27', '160.27', '32.27'])
    assert.match(stdout, /speed: 100000000000/)
  })

  for (const [name, file] of shippedMachines())
    it(`userdma machine capture, which writes ${name} as its file says`, async t => {
      const lines = readFileSync(file, 'utf8').split('\n')
      const stdout = await outputOf(t, name, userdma, 'machine', 'capture')
      assert.equal(stdout, lines.filter(line => !line.startsWith('#')).join('\n'))
    })
})
