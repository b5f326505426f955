/*
 * An example of a driver (R19, R22, R29; docs/how-to/drivers.md explains it): a device that counts bytes and discards
 * them. Of core, it imports only the public driver interface; it knows no dialect, process or socket.
 */
import { type Core, type Device, driverClass, type RegisteredDriver, register } from '../../core/index.ts'
import { DeviceAttributes, ExtendedDeviceAttributes } from '../../spec/classes/device/device.ts'
import { Classes } from '../../spec/classes.ts'
import { callError } from '../../spec/errno.ts'
import { the } from '../../spec/reason.ts'
import {
  Block,
  blob,
  CREATE,
  DESTROY,
  method,
  objectClass,
  QUERY,
  ref,
  u64,
  zeroRecord,
} from '../../spec/schema/schema.ts'

const [MAX_TAKE_BYTES, MAX_PDS] = [1 << 16, 256]

/** The driver's own class. Ids of such classes begin at 0x8000. */
export const Sink = objectClass('sink', 0x8000, {
  methods: {
    create: method(CREATE, { in: { pd: ref(1, 'pd') }, out: {} }),
    query: method(QUERY, { in: {}, out: { taken: u64(64) } }),
    take: method(Block.DRIVER_FAST + 0, { role: 'changes', in: { data: blob(1, MAX_TAKE_BYTES) }, out: {} }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})

const sinkClass = driverClass<typeof Sink, { taken: bigint }>(Sink, {
  create(_call, object) {
    object.state = { taken: 0n }
    return {}
  },
  query: (_call, { state }) => ({ taken: state.taken }),
  take(_call, { state }, { data }) {
    if (data.length === 0)
      throw callError.EINVAL`${the.method('sink.take')}: no data, give 1 to ${MAX_TAKE_BYTES} bytes`
    state.taken += BigInt(data.length)
    return {}
  },
  destroy: () => ({}),
})

const { interface: Interface, device: DeviceClass, async_fd: AsyncFd, pd: Pd } = Classes

export const nullDriver: RegisteredDriver = {
  name: 'null',
  id: 0, // RDMA_DRIVER_UNKNOWN
  classes: [...[Interface, DeviceClass, AsyncFd, Pd].map(cls => driverClass(cls)), sinkClass],
  createDevice: (core, name) => createNullDevice(core, name),
}

/** Registers a device of this driver. Throws CallError EEXIST for a name in use, EINVAL for an invalid name. */
export const createNullDevice = (core: Core, name: string): Device =>
  register(core, {
    name,
    driver: nullDriver,
    state: undefined,
    attributes: { ...zeroRecord(DeviceAttributes), maxPd: MAX_PDS },
    extended: zeroRecord(ExtendedDeviceAttributes),
    ports: [],
    numCompVectors: 0,
    limits: { pd: MAX_PDS },
  })
