/*
 * A device is removed while programs use it (R23). test/drivers/soft/failures/removal.test.ts tests peers on other
 * devices.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { DeviceStat } from '../../../src/uapi/tool.ts'
import { startPair } from '../pairs/pingpong.ts'
import { isEmpty, lacking, ownProgram, removeDevice, start, startDaemon, TWO_DEVICES } from '../programs.ts'

/** Far more than complete before the removal. */
const ITERATIONS = '100000000'

/** Whether the device is the client's, and has sent more than 500 packets. */
const isBusy = ({ name, transport }: DeviceStat): boolean => name === 'rxe1' && transport.sentPackets > 500

describe('a device removed under load', { skip: lacking('ibv_rc_pingpong') }, () => {
  const cases = [
    { title: 'programs that poll', args: ['-g', '1', '-s', '4096', '-m', '1024'] },
    { title: 'programs that wait for events', args: ['-g', '1', '-s', '4096', '-m', '1024', '-e'] },
  ]
  for (const { title, args } of cases)
    for (const devices of [
      ['rxe1', 'rxe1'],
      ['rxe0', 'rxe1'],
    ] as const)
      it(`ends ${title}, on ${[...new Set(devices)].join(' and ')}`, async t => {
        const daemon = await startDaemon(t, { devices: TWO_DEVICES })
        const pair = await startPair(t, daemon, [...args, '-n', ITERATIONS], { devices })
        while (!(await daemon.stat()).devices.some(isBusy));
        await removeDevice(t, daemon, 'rxe1')
        // A server on rxe0 would wait for a message forever: `pair.ended` stops it.
        const usersOfRemoved = devices[0] === 'rxe1' ? [pair.server, pair.client] : [pair.client]
        for (const { status, signal, stderr } of await Promise.all(usersOfRemoved.map(({ ended }) => ended))) {
          assert.equal(signal, null)
          assert.equal(status, 1, stderr)
        }
        await pair.ended()
        await daemon.settled(isEmpty)
      })
})

describe('a daemon that ends by a signal', { skip: lacking('ibv_rc_pingpong') }, () => {
  for (const [title, settings] of [
    ['in memory', {}],
    ['over UDP', { link: 'udp' }],
    ['that checks programs', { options: ['--check'] }],
  ] as const)
    it(`flushes outstanding requests, like a removal: ${title}`, async t => {
      const daemon = await startDaemon(t, settings)
      const args = ['-g', '1', '-s', '65536', '-r', '50', '-n', ITERATIONS]
      const pair = await startPair(t, daemon, args, { devices: ['rxe0', 'rxe0'] })
      while (!(await daemon.stat()).devices.some(({ transport }) => transport.sentPackets > 500));
      daemon.running.child.kill('SIGTERM')
      // A program that was between a completion and its next request sees its request refused instead.
      for (const { stderr } of [await pair.server.ended, await pair.client.ended])
        assert.match(stderr, /Failed status Work Request Flushed Error|Couldn't post send/)
    })
})

const removal = ownProgram('removal')

describe('a device removed with shared receive requests', { skip: lacking(removal) }, () => {
  it('flushes no shared receive, and lets its program clean up', async t => {
    const daemon = await startDaemon(t, { devices: TWO_DEVICES })
    const env = { ...daemon.env, RDMAV_ALLOW_DISASSOC_DESTROY: '1' }
    const program = start(t, removal, ['-d', 'rxe1'], { env, stdio: ['pipe', 'pipe', 'pipe'] })
    await program.printed(/ready/)
    await removeDevice(t, daemon, 'rxe1')
    program.child.stdin?.end('\n')
    const { status, stdout, stderr } = await program.ended
    assert.equal(stderr, '')
    assert.equal(stdout, 'ready\ngone\n')
    assert.equal(status, 0)
    await daemon.settled(isEmpty)
  })
})
