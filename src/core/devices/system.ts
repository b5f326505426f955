/*
 * The system-wide device (R13, R18): it has no hardware; its classes are those marked `global`, with core's own
 * methods. It is opened and called like any other device, but is not in the list of devices, and is never removed.
 *
 * It is created at its first use. Changes of the list of devices are its unaffiliated events.
 */
import { DeviceAttributes, ExtendedDeviceAttributes } from '../../spec/classes/device/device.ts'
import { NodeType } from '../../spec/enums.ts'
import { zeroRecord } from '../../spec/schema/schema.ts'
import { raiseSystem } from '../events/events.ts'
import type { Core, Device } from '../model.ts'
import { assembleDevice } from './assemble.ts'
import { driverClass } from './driver.ts'

/** RDMA_DRIVER_UNKNOWN: Linux has no driver for it. */
const NO_DRIVER = 0

/** The system-wide device of `core`. */
export const systemDevice = (core: Core): Device => {
  core.system ??= assembleDevice(
    core,
    {
      name: 'system',
      driver: {
        name: 'system',
        id: NO_DRIVER,
        nodeType: NodeType.values.UNSPECIFIED,
        classes: [...core.classes.values()].filter(cls => cls.class.global).map(cls => driverClass(cls.class)),
      },
      state: undefined,
      attributes: zeroRecord(DeviceAttributes),
      extended: zeroRecord(ExtendedDeviceAttributes),
      ports: [],
      numCompVectors: 0,
    },
    -1,
  )
  return core.system
}

/** Raises the event that `device` was added or removed (`type`) on the system-wide device, if that exists. */
export const raiseDeviceListChanged = ({ core, index }: Device, type: number): void => {
  if (core.system !== undefined) raiseSystem(core.system, index, type)
}
