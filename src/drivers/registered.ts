/*
 * The drivers that every daemon and network has; and one device of each, for `userdma schema` and the generated pages
 * of docs/reference/. A new driver is a folder, and a line here.
 */
import { identify } from '../core/devices/identity.ts'
import { type CoreOptions, createCore } from '../core/devices/registry.ts'
import type { RegisteredDriver } from '../core/driver-contract.ts'
import type { Device } from '../core/model.ts'
import { createMemorySwitch, memorySwitchBytes } from '../transport/phy/memory.ts'
import { parseAddress } from '../transport/wire/address.ts'
import { plainArena } from '../transport/wire/arena.ts'
import { ctxDriver } from './ctx/device.ts'
import { efaDriver } from './efa/device.ts'
import { mlx5Driver } from './mlx5/device.ts'
import { nullDriver } from './null/device.ts'
import type { RoceSite } from './roce-site.ts'
import { rxeDriver } from './rxe/device.ts'

export { openLocalRings } from './rings/context.ts'
export type { SlabRings } from './rings/ring-memory.ts'
export type { SoftDevice } from './soft/device.ts'
export { createTorment, TORMENT_SCRATCH_BYTES, type Torment } from './soft/torment/torment.ts'

/** The driver of the devices that a program makes in itself. */
export const libraryDriver = rxeDriver

/** The first one with addresses is the driver of a device with an address and without `driver=`. */
export const registeredDrivers: readonly RegisteredDriver[] = [rxeDriver, efaDriver, mlx5Driver, ctxDriver, nullDriver]

/** Names of those whose devices have an address. The first is the default. */
export const networkDrivers: readonly string[] = registeredDrivers.flatMap(({ name, hasAddress }) =>
  hasAddress ? name : [],
)

/** One device of every driver, in a new core with `classes`. */
export const oneDevicePerDriver = (classes: Pick<CoreOptions, 'classes' | 'clientClasses'>): readonly Device[] => {
  const core = createCore(classes)
  const site: RoceSite = {
    allocate: plainArena,
    wake: () => {},
    network: {
      identity: identify(parseAddress('127.0.0.1') as Uint8Array, { name: 'lo', index: 1 }),
      now: () => 0,
      attach: () => createMemorySwitch({ arena: plainArena(memorySwitchBytes()), icrc: 'demand' }).attach(),
    },
  }
  for (const driver of registeredDrivers) driver.createDevice(core, driver.name, site)
  return [...core.devices.values()]
}
