/*
 * Class `system`: the devices that there are, with what a library needs to find its driver for each (R13). It is object
 * 0 of the system-wide device, which belongs to no hardware and has only this and the other classes that are marked
 * global (R18); that device needs no opening call.
 *
 * Who wants to know of changes makes an async_fd there first and queries then: DEVICE_ADDED and DEVICE_REMOVED arrive
 * on it, and their element is the device's index. Names are ASCII, filled up with zeros.
 */
import { NodeType } from '../enums.ts'
import { at, bytes, enumOf, list, method, objectClass, QUERY, u32 } from '../schema/schema.ts'
import { ClassId } from './ids.ts'

export const NAME_BYTES = 64

export const DeviceRow = {
  name: at(0, bytes(0, NAME_BYTES)),
  driver: at(64, bytes(0, NAME_BYTES)),
  /** The lowest free number when the device came: N of uverbsN. */
  index: at(128, u32(0)),
  /** Linux's number of the driver (RDMA_DRIVER_RXE = 14). */
  driverId: at(132, u32(0)),
  nodeType: at(136, enumOf(0, NodeType)),
  ports: at(140, u32(0)),
  /** In network order. */
  nodeGuid: at(144, bytes(0, 8)),
  /** Versions of Linux's ABI: of uverbs, and of what the driver adds to it. */
  uverbsAbi: at(152, u32(0)),
  driverAbi: at(156, u32(0)),
}

/** That the device with this index has the class with this id. */
export const DeviceClassRow = { index: at(0, u32(0)), class: at(4, u32(0)) }

/** Version of Linux's uverbs ABI that all devices here speak (sysfs: infiniband_verbs/abi_version). */
export const UVERBS_ABI = 6

const MANY = 0xffff

export const System = objectClass('system', ClassId.system, {
  identity: 'fixed',
  global: true,
  methods: {
    query: method(QUERY, {
      in: {},
      out: { devices: list(64, DeviceRow, 0x1000), classes: list(65, DeviceClassRow, MANY) },
    }),
  },
})
