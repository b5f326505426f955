/*
 * What the owner of core offers to a driver whose devices have an address on a RoCE network.
 */
import type { DeviceNetwork, DeviceSite } from '../core/driver-contract.ts'
import type { Port } from '../transport/phy/port.ts'
import type { Torment } from './soft/torment/torment.ts'

export interface RoceSite extends DeviceSite {
  readonly network: DeviceNetwork & {
    /**
     * The device's port with its layers (assembly/assembly.ts), which the driver closes when the device is removed; the
     * caller of `createDevice` closes it if that throws. `own`: the driver's own link, in place of the network's. To be
     * called at most once. Throws CallError EADDRINUSE, EADDRNOTAVAIL, or an Error.
     */
    attach(own?: Port): Port
    /** `--torment` of the network. */
    readonly torment?: Torment | undefined
  }
}
