/*
 * Entry point of `userdma/drivers`: the drivers, each as the function that creates a device.
 */

export { createCtxDevice } from './ctx/device.ts'
export { createNullDevice, Sink } from './null/device.ts'
export { type Identity, identify } from './rxe/address/identity.ts'
export { createRxeDevice, type RxeDevice, type RxeOptions } from './rxe/device.ts'
