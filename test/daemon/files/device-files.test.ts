/*
 * Files of devices that are added and renamed while a file cannot be written.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { identify } from '../../../src/core/devices/identity.ts'
import { renameDevice } from '../../../src/core/devices/registry.ts'
import { createCore, type Device } from '../../../src/core/index.ts'
import type { DaemonDevice } from '../../../src/daemon/devices/devices.ts'
import { createDeviceFiles } from '../../../src/daemon/files/device-files.ts'
import { createRxeDevice } from '../../../src/drivers/rxe/device.ts'
import { createMemorySwitch, memorySwitchBytes } from '../../../src/transport/phy/memory.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'
import { scratchFolder } from '../../tools.ts'

const folder = scratchFolder()

const setUp = (name: string) => {
  const root = join(folder, name)
  const core = createCore()
  const memoryLink = createMemorySwitch({ arena: plainArena(memorySwitchBytes()) })
  const create = (name: string, last: number): DaemonDevice => {
    const rxe = createRxeDevice(core, {
      name,
      identity: identify(ipv4(127, 0, 0, last), { name: 'lo', index: 1 }),
      port: memoryLink.attach(),
      now: () => 0,
    })
    return { spec: { name, address: `127.0.0.${last}` }, device: rxe.device as Device, network: rxe }
  }
  const first = create('rxe0', 1)
  const files = createDeviceFiles(root, [first])
  const path = (file: string): string => join(root, 'sys/class/infiniband', file)
  /** Runs `change` while files cannot be replaced: the name of the temporary file is in use. */
  const whileBlocked = (change: () => void): void => {
    writeFileSync(join(root, 'new'), '')
    change()
    rmSync(join(root, 'new'))
  }
  return { files, first, create, path, whileBlocked }
}

test('a device whose counter files cannot be written is added to the tree', t => {
  t.mock.method(console, 'error', () => {})
  const { files, create, path, whileBlocked } = setUp('added')
  whileBlocked(() => files.add(create('rxe1', 2)))
  assert.equal(readFileSync(path('rxe1/ports/1/state'), 'latin1'), '4: ACTIVE\n')
  assert.equal(files.refreshCounters(), 0, 'no errno')
  assert.ok(existsSync(path('rxe1/ports/1/counters/port_xmit_data')))
})

test('a device is renamed while a file of the tree cannot be written: its counters get the new name', t => {
  t.mock.method(console, 'error', () => {})
  const { files, first, path, whileBlocked } = setUp('renamed')
  renameDevice(first.device, 'mlx5_0')
  first.spec = { ...first.spec, name: 'mlx5_0' }
  whileBlocked(() => files.rename(first, 'rxe0'))
  assert.equal(files.refreshCounters(), 0, 'no errno')
  assert.ok(existsSync(path('mlx5_0/ports/1/counters/port_xmit_data')))
})

test('a device without Ethernet, as of EFA, belongs to no interface', () => {
  const { files, create, path } = setUp('efa')
  const added = create('efa0', 2)
  Object.assign(added.device, { driver: { ...added.device.driver, link: undefined } })
  files.add(added)
  assert.ok(!existsSync(path('efa0/parent')))
  assert.equal(readFileSync(path('efa0/ports/1/gid_attrs/ndevs/0'), 'latin1'), '\n')
  assert.equal(readFileSync(path('rxe0/parent'), 'latin1'), 'lo\n')
})

test('a change writes the files that it concerns, and all of them again after a failure', t => {
  t.mock.method(console, 'error', () => {})
  const { files, first, path, whileBlocked } = setUp('changed')
  const read = (file: string): string => readFileSync(path(`rxe0/ports/1/${file}`), 'latin1')
  const attributes = first.device.ports[0]!.attributes
  rmSync(path('rxe0/ports/1/lid'))
  attributes.smLid = 7
  files.update(first)
  assert.deepEqual([read('sm_lid'), existsSync(path('rxe0/ports/1/lid'))], ['0x7\n', false])
  attributes.smLid = 8
  whileBlocked(() => files.update(first))
  assert.equal(read('sm_lid'), '0x7\n')
  attributes.smLid = 7
  files.update(first)
  assert.deepEqual([read('sm_lid'), read('lid')], ['0x7\n', '0x0\n'])
})
