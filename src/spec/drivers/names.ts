/*
 * The drivers, by name. A device's name begins with its driver's name, as libibverbs expects: it chooses a provider by
 * the name in sysfs, takes `rxe…`, and ignores the others, which have no verbs. drivers/known.ts creates devices of
 * each.
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

/** The driver of a device with this name; undefined if there is none. */
export const driverOfName = (name: string): DriverName | undefined =>
  driverNames.find(driver => name.startsWith(driver))
