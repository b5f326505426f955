/*
 * Debian's infiniband-diags and OpenSM, unmodified, on InfiniBand ports: management datagrams through umad and issm
 * nodes to agents, a switch and the embedded subnet manager.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it, type TestContext } from 'node:test'
import { Errno } from '../../../src/spec/errno.ts'
import { MAD_BASE_VERSION, MAD_BYTES } from '../../../src/spec/wire/mad.ts'
import { MadClass, MadMethod } from '../../../src/spec/wire/management.ts'
import { NO_PORT, smAttributes } from '../../../src/spec/wire/subnet.ts'
import { smpCodec } from '../../../src/transport/wire/mad/subnet.ts'
import { runPair } from '../pairs/pingpong.ts'
import {
  assertGood,
  freePort,
  lacking,
  NOBODY,
  noGuests,
  run,
  start,
  startDaemon,
  suiteScope,
  type TestDaemon,
  temporaryFolder,
} from '../programs.ts'
import { StepProgram } from '../steps.ts'
import { UMAD_PROGRAM, UmadProgram } from './umad.ts'

const DEVICES = [1, 2].map(i => `mlx5_${i - 1}@127.0.0.${i + 1},driver=mlx5,layer=infiniband`)

describe('infiniband-diags on InfiniBand ports', { skip: lacking('sminfo', 'saquery') }, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(suite, { devices: DEVICES })
  })

  /** LIDs: 1 the switch with its manager, 2 and 3 the devices' ports. */
  const cases: readonly (readonly [tool: string, args: readonly string[], expected: RegExp])[] = [
    ['sminfo', [], /sm lid 1 .* priority 0 state 3 SMINFO_MASTER/],
    ['ibaddr', [], /LID start 0x[23] end 0x[23]/],
    ['smpquery', ['nodeinfo', '-D', '0,1'], /NodeType:\.+Switch\nNumPorts:\.+36\n/],
    ['smpquery', ['nodedesc', '3'], /mlx5_1/],
    ['smpquery', ['portinfo', '2'], /\nLid:\.+2\nSMLid:\.+1\n[\s\S]*LinkState:\.+Active\n/],
    ['smpquery', ['pkeys', '3'], / 0: 0xffff 0x0000/],
    ['ibnetdiscover', [], /\[1\]\t"H-\w+"\[1\].*"mlx5_0" lid 2 4xEDR\n\[2\]\t"H-\w+"\[1\].*"mlx5_1" lid 3 4xEDR\n/],
    ['iblinkinfo', [], /1 +2\[ {2}\] ==\( 4X +25.78125 Gbps Active\/ +LinkUp\)==> +3 +1\[ {2}\] "mlx5_1"/],
    ['ibroute', ['1'], /0x0002 001 : \(Channel Adapter .*'mlx5_0'\)\n0x0003 002 : \(Channel Adapter .*'mlx5_1'\)/],
    ['ibtracert', ['2', '3'], /\[1\] -> switch port .*\n\[2\] -> ca port .* lid 3-3 "mlx5_1"/],
    ['dump_fts', [], /3 valid lids dumped/],
    ['ibportstate', ['1', '2', 'query'], /LinkState:\.+Active/],
    ['perfquery', ['-x', '3', '1'], /PortXmitPkts:\.+\d+/],
    ['perfquery', ['1', '1'], /PortXmitPkts:\.+[1-9]\d*/],
    ['saquery', ['-N'], /(NodeRecord dump:[\s\S]*){3}mlx5_1/],
    ['saquery', ['-p', '--src-to-dst', '2:3'], /dlid\.+3\n\t\tslid\.+2\n[\s\S]*pkey\.+0xFFFF\n[\s\S]*mtu\.+0x85\n/],
    ['saquery', ['-g'], /MGID\.+ff12:401b:ffff::ffff:ffff\n\t\tMlid\.+0xC000\n/],
    ['saquery', ['LR'], /(LinkRecord dump:[\s\S]*){4}/],
    ['saquery', ['SWIR'], /SwitchInfoRecord dump:[\s\S]*LinearFDBTop/i],
    ['saquery', ['LFTR'], /LFT Record dump:[\s\S]*LID/],
    ['saquery', ['GIR'], /GUIDInfo Record dump:[\s\S]*LID/i],
    ['saquery', ['--smkey', '1', 'PKTR'], /PKeyTableRecord dump:[\s\S]*0xffff/],
    ['saquery', ['SL2VL', '1/1/2'], /SL2VLTableRecord dump:[\s\S]*InPort\.*1\n[\s\S]*OutPort\.*2\n/i],
    ['saquery', ['VLAR', '2'], /(VLArbTableRecord dump:[\s\S]*){4}/i],
    ['saquery', ['-c'], /Class version\.+2\n/],
  ]
  for (const [tool, args, expected] of cases)
    it([tool, ...args].join(' '), { skip: lacking(tool) }, async t => {
      const { status, stdout, stderr } = await run(t, tool, args, { env: daemon.env })
      assert.equal(status, 0, stdout + stderr)
      assert.match(stdout, expected)
    })
})

describe("a guest of root's daemon", { skip: noGuests() || lacking('ibv_rc_pingpong', 'setpriv') }, () => {
  it('has InfiniBand ports, and neither queue pair 0 nor issm', async t => {
    const daemon = await startDaemon(t, { devices: DEVICES, guest: NOBODY })
    const guest = new StepProgram(t, UMAD_PROGRAM, daemon, NOBODY)
    for (const node of ['umad0', 'issm0'])
      assert.equal((await guest.step(`open /dev/infiniband/${node}`)).result, -Errno.EACCES)
    await guest.close()
    const user = ['--reuid', `${NOBODY}`, '--regid', `${NOBODY}`, '--clear-groups', 'sh', '-c']
    const port = await freePort()
    const line = `ibv_rc_pingpong -d mlx5_0 -p ${port} & until ibv_rc_pingpong -d mlx5_1 -p ${port} localhost; do :; done; wait`
    const { stdout } = await run(t, 'setpriv', [...user, line], { env: daemon.env })
    assert.equal(stdout.match(/1000 iters in/g)?.length, 2, stdout)
  })
})

/** Its validation of an inventory (v) asks for multipath records, which the embedded manager has not. */
describe('osmtest', { skip: lacking('osmtest') }, () => {
  const runFlows = async (t: TestContext, flows: string, options: readonly string[]): Promise<void> => {
    const daemon = await startDaemon(t, { devices: DEVICES, options })
    const cwd = temporaryFolder(t)
    for (const flow of flows) {
      const files = ['-i', join(cwd, 'inventory'), '-l', join(cwd, 'log')]
      const { stdout } = await run(t, 'env', ['-C', cwd, 'osmtest', '-f', flow, ...files], { env: daemon.env })
      assert.match(stdout, /TEST ".*" PASS/, stdout)
    }
  }
  it('creates an inventory, registers services, subscribes to events, and joins groups', t =>
    runFlows(t, 'csem', ['--fabric', 'fat-tree,leaves=2,spines=2']))
  it('reads the tables of virtual lanes of all ports', t => runFlows(t, 'cqt', []))
})

describe('the tables of a switch', { skip: lacking('ibv_rc_pingpong', 'perfquery') }, () => {
  it('lose packets if they are wrong, and RC ends with RETRY_EXC_ERR', async t => {
    const daemon = await startDaemon(t, { devices: DEVICES })
    const good = await runPair(t, daemon, [], { devices: ['mlx5_0', 'mlx5_1'] })
    assertGood(good.client)
    const umad = await UmadProgram.start(t, daemon)
    const agent = await umad.register({ qpn: 0, mgmtClass: MadClass.SUBNET_LID_ROUTED, version: 1 })
    // Block 0 of the table of the switch, LID 1: there is no port for LID 3.
    const data = new Uint8Array(64).fill(NO_PORT)
    data.set([0, 1], 1)
    const empty = smpCodec.parse(new Uint8Array(MAD_BYTES))
    const header = { baseVersion: MAD_BASE_VERSION, mgmtClass: MadClass.SUBNET_LID_ROUTED, classVersion: 1, tid: 7n }
    const attribute = smAttributes.LinearForwardingTable.id
    const set = smpCodec.emit({ ...empty, ...header, method: MadMethod.SET, attribute, data })
    await umad.send({ agent, qpn: 0, lid: 1, grh: 0, gid: new Uint8Array(16), gidIndex: 0, timeout: 2000, data: set })
    assert.equal((await umad.receive()).status, 0)
    const { client } = await runPair(t, daemon, [], { devices: ['mlx5_0', 'mlx5_1'] })
    assert.match(client.stderr, /Failed status transport retry counter exceeded \(12\)/)
    const errors = await run(t, 'perfquery', ['-C', 'mlx5_0', '1', '1'], { env: daemon.env })
    assert.match(errors.stdout, /PortRcvSwitchRelayErrors:\.*[1-9]/)
  })
})

describe('OpenSM', { skip: lacking('opensm', 'sminfo') }, () => {
  /** Asks until the manager at `lid` is the master. */
  const untilMaster = async (t: TestContext, env: NodeJS.ProcessEnv, lid: number): Promise<void> => {
    for (let attempts = 0; ; attempts++) {
      const { stdout, stderr } = await run(t, 'sminfo', ['-t', '300'], { env })
      if (new RegExp(`sm lid ${lid} .*SMINFO_MASTER`).test(stdout)) return
      assert.ok(attempts < 2000, stdout + stderr)
    }
  }

  it('is given the subnet by the embedded manager, which takes it again when OpenSM is killed', async t => {
    const daemon = await startDaemon(t, { devices: DEVICES })
    const folder = temporaryFolder(t)
    const env = { ...daemon.env, OSM_CACHE_DIR: folder, OSM_TMP_DIR: folder }
    await untilMaster(t, env, 1)
    const log = join(folder, 'opensm.log')
    const opensm = start(t, 'opensm', ['-f', log, '-e'], { env })
    await untilMaster(t, env, 2)
    for (let attempts = 0; !/SUBNET UP/.test(readFileSync(log, 'utf8')); attempts++) {
      assert.ok(attempts < 2000, readFileSync(log, 'utf8'))
      await run(t, 'sminfo', [], { env })
    }
    const { stdout } = await run(t, 'saquery', ['-N'], { env })
    assert.equal(stdout.match(/NodeRecord dump/g)?.length, 3)
    opensm.child.kill('SIGKILL')
    await opensm.ended
    await untilMaster(t, env, 1)
  })
})
