/*
 * Debian's infiniband-diags. Tools that need LIDs or queue pair 0, which RoCE lacks, end as on Linux 6.12 with rxe.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { lacking, run, startDaemon, suiteScope, type TestDaemon, TWO_DEVICES } from '../programs.ts'

describe('infiniband-diags', { skip: lacking('ibstat', 'ibstatus') }, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(suite, { devices: [...TWO_DEVICES, 'mlx5_0@127.0.0.33,driver=mlx5'] })
  })

  it('ibstat shows all devices, one device, names and GUIDs', async t => {
    const output = async (...args: string[]): Promise<string> => {
      const { status, stdout, stderr } = await run(t, 'ibstat', args, { env: daemon.env })
      assert.equal(status, 0, stdout + stderr)
      return stdout
    }
    const all = await output()
    assert.deepEqual(all.match(/^CA '\w+'/gm), ["CA 'mlx5_0'", "CA 'rxe0'", "CA 'rxe1'"])
    assert.equal(all.match(/State: Active\n\t\tPhysical state: LinkUp/g)?.length, 3)
    assert.match(all, /Link layer: Ethernet/)
    assert.equal(await output('-l'), 'mlx5_0\nrxe0\nrxe1\n')
    assert.match(await output('rxe1'), /^CA 'rxe1'/)
    assert.match(await output('-p'), /^(0x[0-9a-f]{16}\n){3}$/)
    // rxe: as on Linux, which knows neither firmware nor an adapter
    for (const [device, type, firmware, hardware, rate] of [
      ['rxe1', '', '', '', '2.5'],
      ['mlx5_0', 'MT4119', '16.35.2000', '0', '100'],
    ] as const) {
      const shown = (await output(device)).replaceAll(' \n', '\n')
      assert.ok(shown.includes(`CA type: ${type}\n`.replace(' \n', '\n')), shown)
      assert.ok(shown.includes(`Firmware version: ${firmware}\n`.replace(' \n', '\n')), shown)
      assert.ok(shown.includes(`Hardware version: ${hardware}\n`.replace(' \n', '\n')), shown)
      assert.ok(shown.includes(`Rate: ${rate}\n`), shown)
    }
  })

  it('ibv_devinfo and rdma tell the same of an adapter with Ethernet', {
    skip: lacking('ibv_devinfo', 'rdma'),
  }, async t => {
    const { stdout } = await run(t, 'ibv_devinfo', ['-v', '-d', 'mlx5_0'], { env: daemon.env })
    for (const line of [
      /fw_ver:\s+16\.35\.2000$/m,
      /vendor_part_id:\s+4119$/m,
      /hw_ver:\s+0x0$/m,
      /board_id:\s+MT_0000000010$/m,
      /active_width:\s+4X /,
      /active_speed:\s+25\.0 Gbps /,
    ])
      assert.match(stdout, line)
    const shown = await run(t, 'rdma', ['dev', 'show'], { env: daemon.env })
    assert.match(shown.stdout, /rxe0: node_type ca node_guid/)
    assert.match(shown.stdout, /mlx5_0: node_type ca fw 16\.35\.2000 node_guid/)
  })

  it('ibstatus shows the ports', async t => {
    const { status, stdout, stderr } = await run(t, 'ibstatus', [], { env: daemon.env })
    assert.equal(status, 0, stdout + stderr)
    assert.equal(stdout.match(/state:\t\t 4: ACTIVE/g)?.length, 3)
  })

  const OPEN_FAILS = /mad_rpc_open_port: client_register for mgmt 1 failed\n/
  const refusals: readonly (readonly [tool: string, args: readonly string[], status: number, message: RegExp])[] = [
    ['ibping', ['-c1', '1'], 0, /_do_madrpc: send failed; Invalid argument\n.*_do_madrpc failed; dport \(Lid 1\)/],
    ['ibping', ['-G', '0x1234'], 255, /sa_rpc_call: only lid routes are supported\n/],
    ['saquery', [], 255, /sa_get_handle: No SM\/SA found on port/],
    ['perfquery', [], 255, OPEN_FAILS],
    ['sminfo', [], 255, OPEN_FAILS],
    ['smpquery', ['nodeinfo', '1'], 255, OPEN_FAILS],
    ['ibaddr', [], 255, OPEN_FAILS],
  ]
  for (const [tool, args, expected, message] of refusals)
    it(`${[tool, ...args].join(' ')} fails without LIDs and SMI`, { skip: lacking(tool) }, async t => {
      const { status, stdout, stderr } = await run(t, tool, args, { env: daemon.env })
      assert.equal(status, expected, stdout + stderr)
      assert.match(stdout + stderr, message)
    })
})
