/*
 * What is known of drivers above them: the default one, how their devices are named, and the attributes of calls that tools
 * know. Records of calls need no declarations of these; all other attributes of drivers are declared in the record
 * (`Declaration` in uapi/tool.ts).
 */
import type { Attributes } from '../schema/schema.ts'
import type { LinuxAbi } from './linux-abi.ts'
import { RXE_DRIVER_ID, RxeAbi, RxeAttributes } from './rxe.ts'

/** Drivers that have a port to a network, and the names of their devices. */
export const deviceNames = {
  rxe: (i: number) => `rxe${i}`,
  mlx5: (i: number) => `mlx5_${i}`,
  efa: (i: number) => `efa${i}`,
} as const
export type NetworkDriver = keyof typeof deviceNames

/** The driver of a device with an address whose settings name none. */
export const DEFAULT_DRIVER: NetworkDriver = 'rxe'

/** Linux's drivers whose bytes in responses are known, by rdma_driver_id. */
export const knownAbis: Readonly<Record<number, LinuxAbi>> = { [RXE_DRIVER_ID]: RxeAbi }

/** By class and method. */
export const knownAdditions: Readonly<
  Record<string, Readonly<Record<string, { readonly in?: Attributes; readonly out?: Attributes }>>>
> = RxeAttributes
