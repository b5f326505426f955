/*
 * Programs by LID: two devices with InfiniBand ports, on the embedded switch with its subnet manager.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { casesOf } from '../../long-run.ts'
import { assertGood, lacking, run, startDaemon, suiteScope, type TestDaemon } from '../programs.ts'
import { runPair } from './pingpong.ts'

const DEVICES = ['mlx5_0@127.0.0.31,driver=mlx5,layer=infiniband', 'mlx5_1@127.0.0.32,driver=mlx5,layer=infiniband']

/** `-g 0`: with a GRH. */
const pairs: readonly (readonly [program: string, ...args: string[]])[] = [
  ['ibv_rc_pingpong', '-e', '-c'],
  ['ibv_ud_pingpong', '-c', '-l', '3'],
  ['ibv_uc_pingpong', '-n', '100'],
  ['ibv_srq_pingpong', '-n', '100'],
  ['ibv_ud_pingpong', '-g', '0', '-n', '100'],
  ['ibv_rc_pingpong', '-g', '0', '-n', '100'],
  ['ibv_xsrq_pingpong'],
  ['ib_write_bw', '-F', '-n', '100'],
  ['ib_send_lat', '-F', '-c', 'UD', '-n', '100'],
  ['ib_write_bw', '-F', '-c', 'DC', '-n', '100'],
  ['ib_read_lat', '-F', '-n', '100'],
  ['ib_atomic_lat', '-F', '-n', '100'],
]

describe('InfiniBand ports', {
  skip: lacking('ibv_rc_pingpong', 'ibv_ud_pingpong', 'ib_write_bw', 'ibv_devinfo', 'ibstat'),
}, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(suite, { devices: DEVICES })
  })
  it('are ACTIVE with a LID, and not Ethernet, for libibverbs, sysfs and netlink', async t => {
    const outputOf = async (program: string, ...args: string[]): Promise<string> => {
      const finished = await run(t, program, args, { env: daemon.env })
      assertGood(finished)
      return finished.stdout
    }
    const shown = await outputOf('ibv_devinfo', '-v', '-d', 'mlx5_1')
    for (const line of [
      /state:\s+PORT_ACTIVE/,
      /sm_lid:\s+[1-9]/,
      /port_lid:\s+[1-9]/,
      /port_lmc:\s+0x00/,
      /link_layer:\s+InfiniBand/,
      /max_vl_num:\s+4/,
      /active_width:\s+4X \(2\)/,
      /active_speed:\s+25.0 Gbps \(32\)/,
      /phys_state:\s+LINK_UP/,
      /max_raw_ethy_qp:\s+0$/m,
      /GID\[ *0\]:\s+fe80:/,
    ])
      assert.match(shown, line)
    const { devices } = await daemon.stat()
    for (const { subnet } of devices) assert.ok(subnet?.state === 'ACTIVE' && subnet.lid > 0 && subnet.smLid > 0)
    const stat = await outputOf('ibstat', 'mlx5_1')
    for (const line of [
      /CA type: MT4119/,
      /State: Active/,
      /Physical state: LinkUp/,
      /Rate: 100/,
      /Base lid: [1-9]/,
      /SM lid: [1-9]/,
    ])
      assert.match(stat, line)
    assert.match(stat, /Link layer: InfiniBand/)
    assert.match(await outputOf('rdma', 'link', 'show', 'mlx5_1/1'), /subnet_prefix fe80:.* lid [1-9].* state ACTIVE/)
  })
  casesOf(pairs, (_, i) => i < 2 || i === 8).forEach(([program, ...args]) => {
    it(`${program} ${args.join(' ')}`, async t => {
      const { server, client } = await runPair(t, daemon, args, { program, devices: ['mlx5_0', 'mlx5_1'] })
      assertGood(client)
      assertGood(server)
      assert.doesNotMatch(client.stdout, /invalid data in page/)
    })
  })
})
