/*
 * What `userdma/drivers` exports: the drivers, each as the function that makes a device of it.
 */

export { createCtxDevice } from './ctx/device.ts'
export { createNullDevice, Sink } from './null/device.ts'
export { type Identity, identify } from './rxe/address/identity.ts'
export { createRxeDevice, type RxeDevice, type RxeOptions } from './rxe/device.ts'
