/*
 * `connect` and `activate`: a device that refuses one of the steps to RTS.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addHook, type Device as CoreDevice } from '../../../../src/core/index.ts'
import { createNetwork, open } from '../../../../src/library/index.ts'
import type { LocalNetwork } from '../../../../src/library/network/contract.ts'
import { QpState } from '../../../../src/spec/enums.ts'
import { CallError } from '../../../../src/spec/errno.ts'

const { RESET, RTS } = QpState.values

/** A device that refuses moves to these states until `accept` is called. */
const openRefusing = async (...states: readonly number[]) => {
  const network = createNetwork() as LocalNetwork
  const device = await open({ network })
  const accept = addHook(network.core.devices.get(device.name) as CoreDevice, {
    method: 'modify',
    pre(_call, _object, { state }) {
      if (states.includes(state as number)) throw new CallError('EAGAIN', `no state ${state}`)
    },
  })
  const pd = device.pd()
  const sendCq = device.cq()
  const qps = { rc: pd.rcQp({ sendCq }), ud: pd.udQp({ sendCq }), gsi: pd.gsiQp({ sendCq }) }
  return { device, accept, qps }
}

test('a queue pair whose move to RTS was refused is in RESET, and can be connected or activated again', async () => {
  const { device, accept, qps } = await openRefusing(RTS)
  const { rc, ud, gsi } = qps
  const attempts = [() => rc.connect(rc.endpoint), () => ud.activate(), () => gsi.activate()]
  const statesOf = () => [rc, ud, gsi].map(({ state }) => state)
  for (const attempt of attempts) assert.throws(attempt, { code: 'EAGAIN', reason: `no state ${RTS}` })
  assert.deepEqual(statesOf(), ['RESET', 'RESET', 'RESET'])
  accept()
  for (const attempt of attempts) attempt()
  assert.deepEqual(statesOf(), ['RTS', 'RTS', 'RTS'])
  await device.close()
})

test('the program gets the error of the step, also if the move back to RESET is refused', async () => {
  const { device, qps } = await openRefusing(RTS, RESET)
  assert.throws(() => qps.rc.connect(qps.rc.endpoint), { code: 'EAGAIN', reason: `no state ${RTS}` })
  assert.throws(() => qps.ud.activate(), { code: 'EAGAIN', reason: `no state ${RTS}` })
  await device.close()
})
