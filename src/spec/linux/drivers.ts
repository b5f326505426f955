/*
 * Drivers by their number in Linux's ioctl dialect (rdma_driver_id), with the layouts of the drivers' own bytes in
 * responses.
 */
import { type DriverLayout, RXE_DRIVER_ID, RxeAttributes, RxeLayouts } from '../drivers/rxe.ts'
import type { Attributes } from '../schema/schema.ts'

interface LinuxDriver {
  /** Layouts of the driver's bytes in responses, by 'class.method'. */
  readonly layouts: Readonly<Record<string, DriverLayout>>
  /** The driver's attributes, whose values these layouts encode, by class and method. */
  readonly attributes: Readonly<Record<string, Readonly<Record<string, { readonly out: Attributes }>>>>
}

const byId: Readonly<Record<number, LinuxDriver>> = {
  [RXE_DRIVER_ID]: { layouts: RxeLayouts, attributes: RxeAttributes },
}

/** The layouts of a driver by 'class.method'; undefined for a driver without additions to Linux's dialects. */
export const driverLayouts = (driverId: number): Readonly<Record<string, DriverLayout>> | undefined =>
  byId[driverId]?.layouts

/** The outputs that a driver adds to a method; empty for a driver without additions. */
export const driverOutputs = (driverId: number, className: string, method: string): Attributes =>
  byId[driverId]?.attributes[className]?.[method]?.out ?? {}
