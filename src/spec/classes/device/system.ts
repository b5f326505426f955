/*
 * Class `system`: the list of devices, with the data by which a user library chooses its provider (R13). The only
 * object is object 0 of the system-wide device, which has no hardware, only global classes (R18), and needs no `open`.
 *
 * To miss no change, first create an `async_fd` of the system-wide device, then query: the descriptor receives
 * DEVICE_ADDED and DEVICE_REMOVED with the device's index as element. Names are ASCII, padded with zeros.
 */
import { NodeType } from '../../enums.ts'
import { at, bytes, enumOf, list, method, objectClass, QUERY, u32 } from '../../schema/schema.ts'
import { ClassId } from '../ids.ts'

export const NAME_BYTES = 64

const DeviceRow = {
  name: at(0, bytes(0, NAME_BYTES)),
  driver: at(64, bytes(0, NAME_BYTES)),
  /** N of uverbsN: the lowest free number when the device was added. */
  index: at(128, u32(0)),
  /** Linux's number of the driver (rdma_driver_id), for example RDMA_DRIVER_RXE = 14. */
  driverId: at(132, u32(0)),
  nodeType: at(136, enumOf(0, NodeType)),
  ports: at(140, u32(0)),
  /** In network order. */
  nodeGuid: at(144, bytes(0, 8)),
  /** Versions of Linux's ABI: of uverbs, and of the driver's additions. */
  uverbsAbi: at(152, u32(0)),
  driverAbi: at(156, u32(0)),
}

/** Device `index` has the class with id `class`. */
const DeviceClassRow = { index: at(0, u32(0)), class: at(4, u32(0)) }

/** Version of Linux's uverbs ABI (sysfs: infiniband_verbs/abi_version). */
export const UVERBS_ABI = 6

const MAX_DEVICES = 0x1000
const MAX_CLASS_ROWS = 0xffff

export const SystemClass = objectClass('system', ClassId.system, {
  identity: 'fixed',
  global: true,
  methods: {
    query: method(QUERY, {
      in: {},
      out: { devices: list(64, DeviceRow, MAX_DEVICES), classes: list(65, DeviceClassRow, MAX_CLASS_ROWS) },
    }),
  },
})
