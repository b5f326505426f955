/*
 * Drivers by Linux's number (rdma_driver_id), with the layouts of the driver's part of responses.
 */
import { type DriverLayout, RXE_DRIVER_ID, RxeAttributes, RxeLayouts } from '../drivers/rxe.ts'
import type { Attributes } from '../schema/schema.ts'

interface LinuxDriver {
  /** Layouts of the driver's bytes in responses, by 'class.method'. */
  readonly layouts: Readonly<Record<string, DriverLayout>>
  /** The outputs that the layouts encode, by class and method. */
  readonly attributes: Readonly<Record<string, Readonly<Record<string, { readonly out: Attributes }>>>>
}

const byId: Readonly<Record<number, LinuxDriver>> = {
  [RXE_DRIVER_ID]: { layouts: RxeLayouts, attributes: RxeAttributes },
}

/** `LinuxDriver.layouts`; undefined if the driver adds no bytes. */
export const driverLayouts = (driverId: number): Readonly<Record<string, DriverLayout>> | undefined =>
  byId[driverId]?.layouts

/** The outputs that a driver adds to a method; empty if there are none. */
export const driverOutputs = (driverId: number, className: string, method: string): Attributes =>
  byId[driverId]?.attributes[className]?.[method]?.out ?? {}
