/*
 * A device goes while programs are in full swing on it (R23): each of them hears of it and ends, whether it polls or
 * waits for events, and those on other devices go on.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { assertGoodPair, startPair } from './pingpong.ts'
import { isEmpty, lacking, ownProgram, runUserdma, type Scope, startDaemon, type TestDaemon } from './programs.ts'

const DEVICES = ['rxe0@127.0.0.1', 'rxe1@127.0.0.2', 'rxe2@127.0.0.3']

/** Far more than what can be done before the device goes. */
const WITHOUT_END = '100000000'

const remove = async (t: Scope, { socket }: TestDaemon, name: string): Promise<void> => {
  const { status, stderr } = await runUserdma(t, ['device', 'remove', name, '--socket', socket])
  assert.equal(status, 0, stderr)
}

const verbsCheck = ownProgram('verbs_check')

describe('a device that goes under load', { skip: lacking('ibv_rc_pingpong', verbsCheck) }, () => {
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
        const daemon = await startDaemon(t, { devices: DEVICES })
        const pair = await startPair(t, daemon, [...args, '-n', WITHOUT_END], { devices, limit: 20_000 })
        const other = await startPair(t, daemon, ['-g', '1', '-n', '2000', '-c'], { devices: ['rxe0', 'rxe2'] })
        await daemon.settled(
          stat => (stat.devices.find(({ name }) => name === 'rxe1')?.transport.sentPackets ?? 0) > 500,
        )
        await remove(t, daemon, 'rxe1')
        // Of two devices only the client's goes. Its partner waits for a message, as it would for a machine that is
        // gone, and is told to end.
        const { server, client } = await pair.ended()
        for (const { status, signal, stderr } of devices[0] === 'rxe1' ? [server, client] : [client]) {
          assert.equal(signal, null)
          assert.equal(status, 1, stderr)
        }
        assertGoodPair(await other.ended())
        await daemon.settled(isEmpty)
      })
})
