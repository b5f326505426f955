/*
 * rxe devices, as Linux's soft device: rdma-core's provider `rxe` drives them, and the library in its own process.
 * Their queues are rings (rings/).
 */
import { driverClass } from '../../core/devices/driver.ts'
import type { RegisteredDriver } from '../../core/driver-contract.ts'
import type { Core } from '../../core/model.ts'
import { DeviceClass } from '../../spec/classes/device/device.ts'
import { Interface } from '../../spec/classes/device/interface.ts'
import { PortClass } from '../../spec/classes/device/port.ts'
import { AsyncFd } from '../../spec/classes/events/async_fd.ts'
import { CompChannel } from '../../spec/classes/events/comp_channel.ts'
import { EventQueueClass } from '../../spec/classes/events/event_queue.ts'
import { Mr } from '../../spec/classes/mr.ts'
import { Mw } from '../../spec/classes/mw.ts'
import { RXE_ABI, RXE_DRIVER_ID, RxeAbi } from '../../spec/drivers/rxe.ts'
import { GidType } from '../../spec/enums.ts'
import { ethernetLink } from '../../spec/link-rate.ts'
import { cqClass } from '../rings/cq-class.ts'
import { ringFormat, sharedRings } from '../rings/format.ts'
import type { RoceSite } from '../roce-site.ts'
import { deviceAttributes, extendedAttributes, Limits } from '../soft/attributes.ts'
import { ahClass, pdClass } from '../soft/classes/ah-class.ts'
import { datagramQpClasses } from '../soft/classes/datagram-qp-classes.ts'
import { connectedQpClasses } from '../soft/classes/qp-class.ts'
import { srqClasses } from '../soft/classes/srq-class.ts'
import { xrcQpClasses } from '../soft/classes/xrc-qp-class.ts'
import { xrcdClass } from '../soft/classes/xrcd-class.ts'
import { createSoftDevice, type DeviceKind, type SoftDevice, type SoftOptions, softDriver } from '../soft/device.ts'
import type { SoftState } from '../soft/state.ts'

export type RxeDevice = SoftDevice<undefined>
export type RxeOptions = Omit<SoftOptions, 'frames'>

/** All rxe devices share one dispatch table. */
export const rxeDriver = {
  ...softDriver,
  name: 'rxe',
  id: RXE_DRIVER_ID,
  abi: RXE_ABI,
  linux: RxeAbi,
  classes: [
    driverClass(Interface),
    driverClass(DeviceClass),
    driverClass(PortClass),
    pdClass,
    driverClass(Mr),
    driverClass(Mw),
    driverClass(CompChannel),
    driverClass(AsyncFd),
    driverClass(EventQueueClass),
    cqClass,
    ...connectedQpClasses(ringFormat),
    ...datagramQpClasses(ringFormat),
    ...xrcQpClasses(ringFormat),
    ahClass,
    ...srqClasses(sharedRings),
    xrcdClass,
  ],
  createDevice: (core: Core, name: string, { network: { attach, ...network } }: RoceSite): RxeDevice =>
    createRxeDevice(core, { name, port: attach(), ...network }),
} satisfies RegisteredDriver<SoftState<undefined>>

const kind: DeviceKind<undefined> = {
  driver: rxeDriver,
  limits: Limits,
  attributes: deviceAttributes,
  extended: extendedAttributes(),
  ethernetLink,
  gidTypes: [GidType.values.ROCE_V2],
  sendsAsRxe: true,
  // rxe_pool.c, __rxe_add_to_pool
  fullErrno: 'EINVAL',
  own: () => undefined,
}

/** Of devices with an InfiniBand port, which only programs of the library make: Linux's rxe has none. */
const infinibandKind: DeviceKind<undefined> = { ...kind, driver: { ...rxeDriver, link: 'ib' } }

/** Registers a device of this driver. Throws the errors of `createSoftDevice`. */
export const createRxeDevice = (core: Core, options: RxeOptions): RxeDevice =>
  createSoftDevice(core, options.fabric === undefined ? kind : infinibandKind, options)
