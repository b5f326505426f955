/*
 * The drivers, by name. The beginning of a device's name says its driver, as libibverbs finds the provider of a device
 * that sysfs announces: it takes `rxe…` and passes over the others, which have no verbs. What makes a device of each is
 * drivers/known.ts.
 */
export const Drivers = {
  /** `network`: its devices have a port and an address. */
  rxe: { network: true },
  ctx: { network: false },
  null: { network: false },
} as const

export type DriverName = keyof typeof Drivers
export type NetworkDriverName = {
  [N in DriverName]: (typeof Drivers)[N]['network'] extends true ? N : never
}[DriverName]
export const driverNames = Object.keys(Drivers) as readonly DriverName[]

/** The driver of a device of this name; undefined if no driver has such devices. */
export const driverOfName = (name: string): DriverName | undefined =>
  driverNames.find(driver => name.startsWith(driver))
