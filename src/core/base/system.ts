/*
 * Core's class `system` (R13, R18): lists the registered devices and their classes.
 */
import { NAME_BYTES, SystemClass, UVERBS_ABI } from '../../spec/classes/device/system.ts'
import { NodeType } from '../../spec/enums.ts'
import { copyOfBytes } from '../../spec/memory.ts'
import { driverClass } from '../devices/driver.ts'
import type { Device } from '../model.ts'

const encoder = new TextEncoder()
/** NAME_BYTES bytes, padded with NULs; longer names are cut off. */
const nameBytes = (name: string): Uint8Array => {
  const bytes = new Uint8Array(NAME_BYTES)
  encoder.encodeInto(name, bytes.subarray(0, NAME_BYTES - 1))
  return bytes
}

const deviceRecordOf = ({ name, index, driver, ports, attributes }: Device) => ({
  name: nameBytes(name),
  driver: nameBytes(driver.name),
  index,
  driverId: driver.id,
  nodeType: driver.nodeType ?? NodeType.values.CA,
  ports: ports.length,
  nodeGuid: copyOfBytes(attributes.nodeGuid),
  uverbsAbi: UVERBS_ABI,
  driverAbi: driver.abi ?? 1,
})

export const systemClass = driverClass(SystemClass, {
  query({ device: { core } }) {
    const devices = [...core.devices.values()].sort((a, b) => a.index - b.index)
    return {
      devices: devices.map(deviceRecordOf),
      classes: devices.flatMap(({ index, sharedTable }) =>
        [...sharedTable.byName.values()]
          .map(({ class: { id } }) => ({ index, class: id }))
          .sort((a, b) => a.class - b.class),
      ),
    }
  },
})
