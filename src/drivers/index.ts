/*
 * Entry point of `userdma/drivers`: functions that create devices.
 */

export { type Identity, identify } from '../core/devices/identity.ts'
export type { DeviceNetwork, DeviceSite, RegisteredDriver } from '../core/driver-contract.ts'
export { createCtxDevice } from './ctx/device.ts'
export { createNullDevice, Sink } from './null/device.ts'
export type { RoceSite } from './roce-site.ts'
export { createRxeDevice, type RxeDevice, type RxeOptions } from './rxe/device.ts'
