/*
 * Opens a device of a daemon for `open` (library/open/open.ts). Imported with the first such device.
 */
import { DeviceClass } from '../../../spec/classes/device/device.ts'
import { PortClass } from '../../../spec/classes/device/port.ts'
import { GidType } from '../../../spec/enums.ts'
import { mtuBytes } from '../../../spec/mtu.ts'
import { parseAddress } from '../../../transport/wire/address.ts'
import { type Device, deviceOn } from '../device.ts'
import { NO_PATH } from '../plan.ts'
import { remoteCarrier } from './carrier.ts'

/** `device`: the device's name; undefined for the daemon's first device with a network. Throws RdmaError. */
export const openDaemonDevice = (socket: string, device: string | undefined): Device => {
  const carrier = remoteCarrier(socket, device)
  const { name, address } = carrier.device
  return deviceOn(carrier, name, address, () => {
    // A device without a network has no address.
    if (address === '') return NO_PATH
    const gid = parseAddress(address) as Uint8Array
    const { entries } = carrier.call(DeviceClass, 'queryGidTable', 0, {}).out
    const entry = entries.find(
      candidate => candidate.type !== GidType.values.ROCE_V1 && candidate.gid.every((byte, i) => byte === gid[i]),
    )
    const { activeMtu } = carrier.call(PortClass, 'query', 1, {}).out.attributes
    return { gid, gidIndex: entry?.index ?? 0, pathMtu: mtuBytes(activeMtu) }
  })
}
