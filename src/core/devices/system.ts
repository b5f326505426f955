/*
 * The system-wide device (R13, R18) has no hardware. Its classes are those marked `global`, with core's own methods. It
 * is opened and called like any other device, but is not in the list of devices, and is never removed. Its unaffiliated
 * events are changes of the list of devices.
 */
import { DeviceAttributes, ExtendedDeviceAttributes } from '../../spec/classes/device/device.ts'
import { NodeType } from '../../spec/enums.ts'
import { zeroRecord } from '../../spec/schema/schema.ts'
import { raiseSystem } from '../events/events.ts'
import type { Core, Device } from '../model.ts'
import { assembleDevice } from './assemble.ts'
import { driverClass } from './driver.ts'

/** RDMA_DRIVER_UNKNOWN. */
const NO_DRIVER = 0
/** The device is not in the list of devices. */
const NO_INDEX = -1

/** Creates the device at the first call. */
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
    NO_INDEX,
    NO_INDEX,
  )
  return core.system
}

/** Tells the system-wide device, if it exists, that `device` was added or removed. `type`: ibv_event_type. */
export const raiseDeviceListChanged = ({ core, index }: Device, type: number): void => {
  if (core.system !== undefined) raiseSystem(core.system, index, type)
}
