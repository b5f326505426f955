/*
 * What is known of drivers above them: the default one, how their devices are named, and the attributes of calls
 * that tools know. Records of calls need no declarations of these; all other attributes of drivers are declared in the
 * record (`Declaration` in spec/records.ts). The ABI is that of Linux's rxe: devices of this machine (`--host`) and
 * drivers that take the provider `rxe` have it too.
 */
import type { Attributes } from '../schema/schema.ts'
import type { LinuxAbi } from './linux-abi.ts'
import { RXE_DRIVER_ID, RxeAbi, RxeAttributes } from './rxe.ts'

/**
 * The driver of a device with an address whose settings name none: the first of drivers/registered.ts. For programs
 * that load no drivers.
 */
export const DEFAULT_DRIVER = 'rxe'

/** The name of device `i` of a driver, as Linux names it: rxe0, mlx5_0. */
export const deviceName = (driver: string, i: number): string =>
  /\d$/.test(driver) ? `${driver}_${i}` : `${driver}${i}`

/** Linux's drivers whose bytes in responses are known, by rdma_driver_id. */
export const knownAbis: Readonly<Record<number, LinuxAbi>> = { [RXE_DRIVER_ID]: RxeAbi }

/** By class and method. */
export const knownAdditions: Readonly<
  Record<string, Readonly<Record<string, { readonly in?: Attributes; readonly out?: Attributes }>>>
> = RxeAttributes
