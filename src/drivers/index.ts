/*
 * What `userdma/drivers` exports: the drivers, each as the function that makes a device of it.
 */

export { createCtxDevice } from './ctx/device.ts'
export { createNullDevice, Sink } from './null/device.ts'
export { createRxeDevice, type RxeDevice, type RxeOptions } from './rxe/device.ts'
export { type Identity, identify } from './rxe/identity.ts'
