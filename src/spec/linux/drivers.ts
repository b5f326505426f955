/*
 * Drivers by the number that Linux's ioctl dialect knows them by (rdma_driver_id), with the layouts of their parts of
 * responses.
 */
import { type DriverLayout, RXE_DRIVER_ID, RxeAttributes, RxeLayouts } from '../drivers/rxe.ts'
import type { Attributes } from '../schema/schema.ts'

interface LinuxDriver {
  /** Layouts of its parts of responses, by 'class.method'. */
  readonly layouts: Readonly<Record<string, DriverLayout>>
  /** Attributes that the cells of these layouts stand for, by class and method. */
  readonly answers: Readonly<Record<string, Readonly<Record<string, { readonly out: Attributes }>>>>
}

const byId: Readonly<Record<number, LinuxDriver>> = { [RXE_DRIVER_ID]: { layouts: RxeLayouts, answers: RxeAttributes } }

/** By 'class.method'; undefined for a driver that has nothing of its own in Linux's dialects. */
export const driverLayouts = (driverId: number): Readonly<Record<string, DriverLayout>> | undefined =>
  byId[driverId]?.layouts

/** The attributes that the cells of these layouts stand for, whatever the driver that has this number declares. */
export const driverAnswers = (driverId: number, className: string, method: string): Attributes =>
  byId[driverId]?.answers[className]?.[method]?.out ?? {}
