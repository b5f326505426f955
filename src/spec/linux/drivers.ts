/*
 * Drivers by their number in Linux's ioctl dialect (rdma_driver_id), with the layouts of their parts of responses.
 */
import { type DriverLayout, RXE_DRIVER_ID, RxeAttributes, RxeLayouts } from '../drivers/rxe.ts'
import type { Attributes } from '../schema/schema.ts'

interface LinuxDriver {
  /** Layouts of the driver's parts of responses, by 'class.method'. */
  readonly layouts: Readonly<Record<string, DriverLayout>>
  /** Attributes in these layouts, by class and method. */
  readonly answers: Readonly<Record<string, Readonly<Record<string, { readonly out: Attributes }>>>>
}

const byId: Readonly<Record<number, LinuxDriver>> = { [RXE_DRIVER_ID]: { layouts: RxeLayouts, answers: RxeAttributes } }

/** By 'class.method'; undefined for a driver without additions to Linux's dialects. */
export const driverLayouts = (driverId: number): Readonly<Record<string, DriverLayout>> | undefined =>
  byId[driverId]?.layouts

/** The attributes in these layouts, for any driver with this number. */
export const driverAnswers = (driverId: number, className: string, method: string): Attributes =>
  byId[driverId]?.answers[className]?.[method]?.out ?? {}
