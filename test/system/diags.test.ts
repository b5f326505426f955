/*
 * Debian's tools of infiniband-diags that ask sysfs: they show the devices as those of an adapter.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { lacking, run, startDaemon, suiteScope, type TestDaemon, TWO_DEVICES } from './programs.ts'

describe('infiniband-diags', { skip: lacking('ibstat', 'ibstatus') }, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(suite, { devices: TWO_DEVICES })
  })

  it('ibstat shows every device, one of them, names and GUIDs', async t => {
    const said = async (...args: string[]): Promise<string> => {
      const { status, stdout, stderr } = await run(t, 'ibstat', args, { env: daemon.env })
      assert.equal(status, 0, stdout + stderr)
      return stdout
    }
    const all = await said()
    assert.deepEqual(all.match(/^CA '\w+'/gm), ["CA 'rxe0'", "CA 'rxe1'"])
    assert.equal(all.match(/State: Active\n\t\tPhysical state: LinkUp/g)?.length, 2)
    assert.match(all, /Link layer: Ethernet/)
    assert.equal(await said('-l'), 'rxe0\nrxe1\n')
    assert.match(await said('rxe1'), /^CA 'rxe1'/)
    assert.match(await said('-p'), /^(0x[0-9a-f]{16}\n){2}$/)
  })

  it('ibstatus shows the ports', async t => {
    const { status, stdout, stderr } = await run(t, 'ibstatus', [], { env: daemon.env })
    assert.equal(status, 0, stdout + stderr)
    assert.equal(stdout.match(/state:\t\t 4: ACTIVE/g)?.length, 2)
  })
})
