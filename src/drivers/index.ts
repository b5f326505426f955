/*
 * What `userdma/drivers` exports: the drivers, each as the function that makes a device of it.
 */
export { identify, type Identity } from './rxe/identity.ts'
export { createRxeDevice, type RxeDevice, type RxeOptions } from './rxe/device.ts'
