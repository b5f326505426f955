/*
 * The drivers, by name. The name of a device without a network begins with its driver's name, for example ctx0.
 */
export const Drivers = {
  /** `hasNetwork`: the driver's devices have a port and an address. */
  rxe: { hasNetwork: true },
  ctx: { hasNetwork: false },
  null: { hasNetwork: false },
} as const

export type DriverName = keyof typeof Drivers
export type NetworkDriverName = {
  [N in DriverName]: (typeof Drivers)[N]['hasNetwork'] extends true ? N : never
}[DriverName]
const driverNames = Object.keys(Drivers) as readonly DriverName[]

/** The driver for a device name, which begins with the driver's name; undefined if there is none. */
export const driverOfName = (name: string): DriverName | undefined =>
  driverNames.find(driver => name.startsWith(driver))
