/*
 * ibv_rc_pingpong over a network that drops, duplicates, reorders and corrupts packets.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { casesOf } from '../../long-run.ts'
import { caseName, type PingpongCase, runCase } from '../pairs/pingpong.ts'
import { assertFaultsInjected, isEmpty, lacking, startDaemon, TWO_DEVICES } from '../programs.ts'

/** A loss that no later packet reveals costs the local ACK timeout, 67 ms: so messages are few, and most are long. */
const cases: readonly (readonly [pingpong: PingpongCase, iterations: number])[] = [
  [{ waitsForEvents: false, checksData: true, size: 64, mtu: 1024, usesTwoDevices: true }, 60],
  [{ waitsForEvents: true, checksData: false, size: 4096, mtu: 256, usesTwoDevices: false }, 30],
  [{ waitsForEvents: false, checksData: true, size: 65536, mtu: 1024, usesTwoDevices: true }, 10],
  [{ waitsForEvents: true, checksData: true, size: 1048576, mtu: 4096, usesTwoDevices: false }, 2],
]

/** Counters that must be above 0 after faults of a kind. */
const evidence: Readonly<Record<string, readonly string[]>> = {
  drop: ['retransmissions'],
  dup: ['duplicateRequests'],
  reorder: ['outOfSequence'],
  corrupt: ['retransmissions'],
}

describe('ibv_rc_pingpong on a bad network', { skip: lacking('ibv_rc_pingpong') }, () => {
  for (const kind of ['drop', 'dup', 'reorder', 'corrupt'])
    for (const rate of casesOf([0.01, 0.05], one => one === 0.05))
      it(`${kind} ${rate * 100} %`, async t => {
        const daemon = await startDaemon(t, { devices: TWO_DEVICES, fault: `${kind}=${rate},seed=7` })
        for (const [pingpong, iterations] of casesOf(cases, (_, i) => i % 2 === 0))
          await t.test(`${caseName(pingpong)}, ${iterations} times`, s => runCase(s, daemon, pingpong, iterations))
        const { devices } = await daemon.settled(isEmpty)
        for (const counter of evidence[kind]) {
          const count = devices.reduce((sum, { transport }) => sum + transport[counter], 0)
          assert.ok(count > 0, `${counter} is ${count}: were no faults injected?`)
        }
      })

  it('all faults together', async t => {
    const fault = 'drop=0.02,dup=0.02,reorder=0.02,corrupt=0.02,seed=11'
    const daemon = await startDaemon(t, { devices: TWO_DEVICES, fault })
    for (const [pingpong, iterations] of cases)
      await t.test(`${caseName(pingpong)}, ${iterations} times`, s => runCase(s, daemon, pingpong, iterations))
    await assertFaultsInjected(daemon)
  })
})
