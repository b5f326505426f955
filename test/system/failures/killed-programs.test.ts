/*
 * Programs and daemons that are killed.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { runPair, startPair } from '../pairs/pingpong.ts'
import { isEmpty, lacking, objectCountOf, startDaemon } from '../programs.ts'

/** Until the pingpong is killed. */
const ENDLESS = ['-g', '1', '-s', '4096', '-n', '100000000']

describe('when a process dies', { skip: lacking('ibv_rc_pingpong', 'ib_write_bw') }, () => {
  for (const args of [ENDLESS, [...ENDLESS, '-e']])
    it(`a program that is killed leaves nothing behind (${args.join(' ')})`, async t => {
      const daemon = await startDaemon(t)
      const pair = await startPair(t, daemon, args)
      const busy = await daemon.settled(({ devices }) => devices[0].transport.sentPackets > 100)
      assert.equal(busy.contexts, 2)
      assert.ok(objectCountOf(busy.devices) >= 8, JSON.stringify(busy))
      pair.client.child.kill('SIGKILL')
      await pair.client.ended
      // The other end waits forever, or fails when its message is not acknowledged.
      await daemon.settled(({ contexts }) => contexts < 2)
      pair.server.child.kill('SIGKILL')
      await pair.server.ended
      await daemon.settled(isEmpty)
    })

  it('the peer of a killed program gets a transport error and does not hang', async t => {
    const daemon = await startDaemon(t)
    const args = ['-x', '1', '-F', '-s', '65536', '-D', '30', '-u', '8']
    const pair = await startPair(t, daemon, args, { program: 'ib_write_bw' })
    await daemon.settled(({ devices }) => devices[0].transport.sentPackets > 100)
    pair.server.child.kill('SIGKILL')
    const { status, stdout, stderr } = await pair.client.ended
    assert.notEqual(status, 0)
    // Status 12 is IBV_WC_RETRY_EXC_ERR. A dead peer sends no NAK, although its memory is gone before the daemon
    // destroys its queue pair.
    assert.match(stdout + stderr, /Failed status 12/)
    await daemon.settled(isEmpty)
  })

  // Which call gets the error depends on when the daemon ends.
  for (const [name, args, message] of [
    ['polls', ENDLESS, /poll CQ failed -1|Couldn't post/],
    ['waits for events', [...ENDLESS, '-e'], /Failed to get cq_event|poll CQ failed -1|Couldn't post|Couldn't request/],
  ] as const)
    it(`a program that ${name} gets an error when the daemon is killed`, async t => {
      const daemon = await startDaemon(t)
      const pair = await startPair(t, daemon, args)
      await daemon.settled(({ devices }) => devices[0].transport.sentPackets > 100)
      daemon.running.child.kill('SIGKILL')
      for (const { status, signal, stderr } of [await pair.client.ended, await pair.server.ended]) {
        assert.equal(signal, null)
        assert.notEqual(status, 0)
        assert.match(stderr, message)
      }
    })

  it('a program that starts after the daemon’s end reports that there is no daemon', async t => {
    const daemon = await startDaemon(t)
    daemon.running.child.kill('SIGKILL')
    await daemon.running.ended
    const { client } = await runPair(t, daemon, ['-g', '1']).catch(error => ({ client: { stderr: String(error) } }))
    assert.match(client.stderr, /no daemon at .*sock/)
  })
})
