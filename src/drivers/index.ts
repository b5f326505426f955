/*
 * Entry point of `userdma/drivers`: functions that create devices.
 */

export { createCtxDevice } from './ctx/device.ts'
export { createNullDevice, Sink } from './null/device.ts'
export { type Identity, identify } from './rxe/address/identity.ts'
export { createRxeDevice, type RxeDevice, type RxeOptions } from './rxe/device.ts'
