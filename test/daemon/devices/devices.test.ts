/*
 * The daemon's devices: a new one waits for the objects of removed ones, and for nothing else.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { assemble } from '../../../src/assembly/assembly.ts'
import { openContext } from '../../../src/core/devices/registry.ts'
import { createDevices } from '../../../src/daemon/devices/devices.ts'
import { createNetwork } from '../../../src/daemon/devices/network.ts'
import { registeredDrivers } from '../../../src/drivers/registered.ts'
import { createSlices } from '../../../src/host/event-loop/slices.ts'

test('a device is added when the objects of removed ones are destroyed; other jobs are not run for that', () => {
  let nextTurn = (): void => {}
  const slices = createSlices(undefined, 1, callback => {
    nextTurn = callback
  })
  const { core, link, addDevice } = assemble({
    ...{ link: 'memory', path: 'direct', hasNative: true, clients: {}, torment: undefined, onPackets: () => {} },
    core: { run: job => slices.begin(job, assert.ifError) },
  })
  const network = createNetwork({ devices: [], fault: '' }, link)
  const devices = createDevices(core, network, undefined, { add() {}, remove() {} }, addDevice, registeredDrivers)
  const spec = { name: 'rxe0', address: '127.0.0.1' }
  const { device } = devices.add(spec)
  for (let contexts = 0; contexts < 5; contexts++) openContext(device)
  // A guest's, with many objects.
  let left = 1_000_000
  core.runJob({ next: () => ({ done: --left === 0, value: undefined }) })
  devices.remove('rxe0')
  const removing = devices.removing()
  assert.equal(removing.next().done, false)
  assert.throws(() => devices.add(spec), /a device that was removed still has objects/)
  for (let turns = 0; removing.next().done !== true; turns++) {
    assert.ok(turns < 100)
    nextTurn()
  }
  devices.add(spec)
  assert.ok(left > 1_000_000 - 100, `${left} slices of the other job are left`)
})
