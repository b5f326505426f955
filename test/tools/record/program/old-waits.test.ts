/*
 * Waits as older builds have recorded them.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { presentWait } from '../../../../src/tools/record/program/old-waits.ts'

it('a wait whose text names a block of the device is told with the wr_id', () => {
  const at = { device: 'mlx5_0', deviceNumber: 0, context: 1, program: { pid: 10620, command: 'endless-rnr' } }
  const request = { queue: 1, number: 0x83b58b, wrId: 0n }
  const text = (name: string): string => `QP 0x83b58b: SEND ${name} waits without limit for a receive (rnr_retry 7)`
  const wait = { id: 'endless-rnr', qpns: [0x83b58b, 0x83b58c], request } as const
  const own = { queue: 1, number: 0x83b58b, wrId: 1n, postIndex: 0 }
  const old = { event: 'waits', ...at, time: 7, wait: { ...wait, text: text('block 0') } } as const
  const present = { event: 'waits', ...at, time: 7, wait: { ...wait, text: text('wr_id 1') }, posted: own } as const
  assert.deepEqual(presentWait({ ...old, own }), present)
  assert.deepEqual(presentWait(present), present, 'those of today are left alone')
})
