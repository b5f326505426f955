/*
 * One device of every driver that there is, in a core of their own: what they are asked for is what drivers support,
 * for documents and `userdma schema`. Nothing is sent or served. A new driver is added here.
 */

import { createCore } from '../core/devices/registry.ts'
import type { Device } from '../core/model.ts'
import { createMemorySwitch, memorySwitchBytes } from '../phy/memory.ts'
import { parseAddress } from '../wire/address.ts'
import { plainArena } from '../wire/arena.ts'
import { createCtxDevice } from './ctx/device.ts'
import { createNullDevice } from './null/device.ts'
import { identify } from './rxe/address/identity.ts'
import { createRxeDevice } from './rxe/device.ts'

export const knownDevices = (): readonly Device[] => {
  const core = createCore()
  const port = createMemorySwitch({ arena: plainArena(memorySwitchBytes()), sealing: 'demand' }).attach()
  const identity = identify(parseAddress('127.0.0.1') as Uint8Array, { name: 'lo', index: 1 })
  createRxeDevice(core, { name: 'rxe', identity, port, now: () => 0 })
  createCtxDevice(core, 'ctx')
  createNullDevice(core, 'null')
  return [...core.devices.values()]
}
