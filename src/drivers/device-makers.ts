/*
 * Functions that create devices of the drivers that need no port; and one device of every driver, for `userdma schema`
 * and the generated pages of docs/reference/.
 */

import { identify } from '../core/devices/identity.ts'
import { createCore } from '../core/devices/registry.ts'
import type { Bytes } from '../core/memory/address-space.ts'
import type { Core, Device, DriverClass } from '../core/model.ts'
import type { NetworkDevice } from '../core/network-device.ts'
import { createMemorySwitch, memorySwitchBytes } from '../phy/memory.ts'
import type { DriverName, NetworkDriverName } from '../spec/drivers/names.ts'
import { parseAddress } from '../wire/address.ts'
import { plainArena } from '../wire/arena.ts'
import { createCtxDevice } from './ctx/device.ts'
import { createNullDevice } from './null/device.ts'
import { createRxeDevice } from './rxe/device.ts'

export { createTorment, TORMENT_SCRATCH_BYTES, type Torment } from './rxe/torment/torment.ts'

/** A driver outside of the project, which `userdma daemon --driver FILE` loads. */
export interface LoadedDriver {
  /** Names of its devices begin with this name. */
  readonly name: string
  /**
   * Registers a device with this name, and returns it; as a NetworkDevice if it has queues to poll. `allocate` returns
   * memory to and from which programs' memory can be copied (`AddressSpace`). Throws CallError EEXIST, EINVAL.
   */
  createDevice(core: Core, name: string, allocate: (bytes: number) => Bytes): Device | NetworkDevice
}

/** By driver: creates a device with this name. Throws CallError EEXIST if the name is in use, EINVAL if invalid. */
export const deviceMakers: {
  readonly [N in Exclude<DriverName, NetworkDriverName>]: (core: Core, name: string) => Device
} = {
  ctx: (core, name) => createCtxDevice(core, name) as Device,
  null: createNullDevice,
}

/** One device of every driver, in a new core with `classes`. */
export const oneDevicePerDriver = (classes: readonly DriverClass[]): readonly Device[] => {
  const core = createCore({ classes })
  const port = createMemorySwitch({ arena: plainArena(memorySwitchBytes()), icrc: 'demand' }).attach()
  const identity = identify(parseAddress('127.0.0.1') as Uint8Array, { name: 'lo', index: 1 })
  createRxeDevice(core, { name: 'rxe', identity, port, now: () => 0 })
  for (const [driver, make] of Object.entries(deviceMakers)) make(core, driver)
  return [...core.devices.values()]
}
