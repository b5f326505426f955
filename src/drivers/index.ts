/*
 * Entry point of `userdma/drivers`: for each driver the function that creates a device, and what its callers need.
 */

export { createCtxDevice } from './ctx/device.ts'
export { createNullDevice, Sink } from './null/device.ts'
export { type Identity, identify } from './rxe/address/identity.ts'
export { createRxeDevice, type RxeDevice, type RxeOptions } from './rxe/device.ts'
