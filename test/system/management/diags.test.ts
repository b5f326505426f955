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
    daemon = await startDaemon(suite, { devices: TWO_DEVICES })
  })

  it('ibstat shows all devices, one device, names and GUIDs', async t => {
    const output = async (...args: string[]): Promise<string> => {
      const { status, stdout, stderr } = await run(t, 'ibstat', args, { env: daemon.env })
      assert.equal(status, 0, stdout + stderr)
      return stdout
    }
    const all = await output()
    assert.deepEqual(all.match(/^CA '\w+'/gm), ["CA 'rxe0'", "CA 'rxe1'"])
    assert.equal(all.match(/State: Active\n\t\tPhysical state: LinkUp/g)?.length, 2)
    assert.match(all, /Link layer: Ethernet/)
    assert.equal(await output('-l'), 'rxe0\nrxe1\n')
    assert.match(await output('rxe1'), /^CA 'rxe1'/)
    assert.match(await output('-p'), /^(0x[0-9a-f]{16}\n){2}$/)
  })

  it('ibstatus shows the ports', async t => {
    const { status, stdout, stderr } = await run(t, 'ibstatus', [], { env: daemon.env })
    assert.equal(status, 0, stdout + stderr)
    assert.equal(stdout.match(/state:\t\t 4: ACTIVE/g)?.length, 2)
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
