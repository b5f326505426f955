/*
 * What the owner of core offers to a driver whose devices have an address on a RoCE network.
 */
import type { DeviceNetwork, DeviceSite } from '../core/driver-contract.ts'
import type { Port } from '../phy/port.ts'
import type { Torment } from './rxe/torment/torment.ts'

export interface RoceSite extends DeviceSite {
  readonly network: DeviceNetwork & {
    /**
     * The device's port, which the driver closes when the device is removed; the caller of `createDevice` closes it if
     * that throws. To be called once; a driver with a wire of its own does not call it. Throws CallError EADDRINUSE, EADDRNOTAVAIL, or an Error.
     */
    attach(): Port
    /** `--torment` of the network. */
    readonly torment?: Torment | undefined
    /** A queue pair enters or leaves ERR. */
    readonly inError?: ((qpn: number, isInError: boolean) => void) | undefined
  }
}
