/*
 * Entry point of `userdma/drivers`: functions that create devices.
 */

export { type Identity, identify } from '../core/devices/identity.ts'
export { createCtxDevice } from './ctx/device.ts'
export type { LoadedDriver } from './device-makers.ts'
export { createNullDevice, Sink } from './null/device.ts'
export { createRxeDevice, type RxeDevice, type RxeOptions } from './rxe/device.ts'
