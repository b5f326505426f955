/*
 * The drivers, by name. drivers/known.ts creates their devices. The default name of a device begins with its driver's
 * name, because libibverbs chooses a provider by that name if it has no netlink: it has one for `rxe…`, and ignores the
 * others, which have no verbs.
 */
export const Drivers = {
  /** `hasNetwork`: whether the driver's devices have a port and an address. */
  rxe: { hasNetwork: true },
  ctx: { hasNetwork: false },
  null: { hasNetwork: false },
} as const

export type DriverName = keyof typeof Drivers
export type NetworkDriverName = {
  [N in DriverName]: (typeof Drivers)[N]['hasNetwork'] extends true ? N : never
}[DriverName]
const driverNames = Object.keys(Drivers) as readonly DriverName[]

/** The driver whose name a device's name begins with; undefined if there is none. */
export const driverOfName = (name: string): DriverName | undefined =>
  driverNames.find(driver => name.startsWith(driver))
