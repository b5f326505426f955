/*
 * ibv_devinfo and ibv_devices.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { fixture } from '../../paths.ts'
import { lacking, ONE_DEVICE, run, runUserdma, startDaemon, TWO_DEVICES } from '../programs.ts'

/** Lines of `ibv_devinfo -v` that differ from the recorded output of a kernel's rxe0 at 10.77.0.2. */
const differences: readonly (readonly [line: RegExp, ours: RegExp])[] = [
  // Derived from the device's address: the interface of 127.0.0.1 has no MAC address.
  [/^\tnode_guid:/, /^\tnode_guid:\t\t\t0000:7fff:fe00:0001$/],
  [/^\tsys_image_guid:/, /^\tsys_image_guid:\t\t\t0000:7fff:fe00:0001$/],
  // XRC, which rxe lacks; FLUSH and ATOMIC WRITE, which the recorded kernel lacked.
  [/^\tdevice_cap_flags:/, /^\tdevice_cap_flags:\t\t0x01323c76$/],
  [/^\tdevice_cap_flags_ex:/, /^\tdevice_cap_flags_ex:\t\t0x14001323C76$/],
  // rxe reports about a million: no machine has memory for so many rings. A ring of 2^20 slots holds one WQE fewer.
  [/^\tmax_qp:/, /^\tmax_qp:\t\t\t\t131072$/],
  [/^\tmax_qp_wr:/, /^\tmax_qp_wr:\t\t\t1048575$/],
  [/^\tmax_cq:/, /^\tmax_cq:\t\t\t\t131072$/],
  [/^\tmax_srq:/, /^\tmax_srq:\t\t\t131072$/],
  [/^\tmax_srq_wr:/, /^\tmax_srq_wr:\t\t\t1048575$/],
  // The recorded interface has an MTU of 1500; the memory link uses the maximum.
  [/^\t\t\tactive_mtu:/, /^\t\t\tactive_mtu:\t\t4096 \(5\)$/],
  [/^\t\t\tGID\[ {2}0\]:/, /^\t\t\tGID\[ {2}0\]:\t\tfe80::7fff:fe00:1, RoCE v2$/],
  [/^\t\t\tGID\[ {2}1\]:/, /^\t\t\tGID\[ {2}1\]:\t\t::ffff:127\.0\.0\.1, RoCE v2$/],
]
/** Debian 12's program has no names for FLUSH and ATOMIC WRITE. */
const onlyUserdma = /^\t{5}(XRC|Unknown flags: 0x14000000000)$/
/** On-demand paging, which Linux's rxe has since 6.15. */
const paging = /^\t{5}(NO SUPPORT|ODP_SUPPORT(_IMPLICIT)?|SUPPORT_[A-Z]+|Unknown flags: 0xC0)$/
/** The kernel's device has a second address. */
const onlyLinux = /^\t\t\tGID\[ {2}2\]:/

describe('device programs', { skip: lacking('ibv_devinfo', 'ibv_devices') }, () => {
  it('ibv_devinfo -v prints the same as on Linux, except known differences', async t => {
    const { status, stdout, stderr } = await runUserdma(t, ['run', '--private', '--', 'ibv_devinfo', '-v'])
    assert.equal(status, 0, stderr)
    assert.equal(stderr, '')
    const linux = readFileSync(fixture('abi', 'ibv_devinfo.out'), 'utf8').split('\n')
    const all = stdout.split('\n')
    const ours = all.filter(line => !onlyUserdma.test(line) && !paging.test(line))
    assert.equal(all.filter(line => onlyUserdma.test(line)).length, 2, 'XRC and the unknown flags')
    assert.equal(all.filter(line => paging.test(line)).length, 2 + 7 + 1 + 3 + 7, 'general, RC, UC, UD, XRC')
    const expected = linux.filter(line => !onlyLinux.test(line) && !paging.test(line))
    assert.equal(ours.length, expected.length, stdout)
    expected.forEach((line, i) => {
      const difference = differences.find(([pattern]) => pattern.test(line))
      if (difference) assert.match(ours[i], difference[1])
      else assert.equal(ours[i], line)
    })
  })

  it('ibv_devices lists all devices of a daemon', async t => {
    const daemon = await startDaemon(t, { devices: [...TWO_DEVICES, 'rxe_v6@::1'] })
    const { status, stdout } = await run(t, 'ibv_devices', [], { env: daemon.env })
    assert.equal(status, 0)
    const names = [...stdout.matchAll(/^ {4}(\w+)\s+([0-9a-f]{16})$/gm)].map(match => match.slice(1))
    // In the order of readdir, which depends on the file system.
    assert.deepEqual(names.sort(), [
      ['rxe0', '00007ffffe000001'],
      ['rxe1', '00007ffffe000002'],
      ['rxe_v6', '000000fffe000001'],
    ])
  })

  it('a program finds no device after the daemon has exited', async t => {
    const daemon = await startDaemon(t, { devices: ONE_DEVICE })
    daemon.running.child.kill('SIGTERM')
    assert.equal((await daemon.running.ended).status, 0)
    const { status, stderr } = await run(t, 'ibv_devinfo', [], { env: daemon.env })
    assert.notEqual(status, 0)
    assert.match(stderr, /no daemon at/)
  })
})
