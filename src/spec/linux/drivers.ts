/*
 * Drivers by the number that Linux's ioctl dialect knows them by (rdma_driver_id), with the layouts of their parts of
 * responses.
 */
import { type DriverLayout, RXE_DRIVER_ID, RxeLayouts } from '../drivers/rxe.ts'

const byId: Readonly<Record<number, Readonly<Record<string, DriverLayout>>>> = { [RXE_DRIVER_ID]: RxeLayouts }

/** By 'class.method'; undefined for a driver that has nothing of its own in Linux's dialects. */
export const driverLayouts = (driverId: number): Readonly<Record<string, DriverLayout>> | undefined => byId[driverId]
