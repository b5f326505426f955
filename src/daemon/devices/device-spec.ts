/*
 * Parses `--device`: NAME@ADDRESS for a soft device, NAME for a device without a network.
 *
 * A name that begins with the name of another driver, for example ctx0, is a device of that driver
 * (spec/drivers/names.ts). A soft device may have any other name: libibverbs asks netlink for the driver. (Before
 * version 23, libibverbs chooses the provider by the prefix `rxe`.)
 */
import { type DriverName, Drivers, driverOfName } from '../../spec/drivers/names.ts'
import type { DeviceSpec } from '../../uapi/tool.ts'
import { parseAddress, reasonUnusable } from '../../wire/address.ts'

export const defaultDevice: DeviceSpec = { name: 'rxe0', address: '127.0.0.1' }

/** Linux's IB_DEVICE_NAME_MAX without the NUL. */
const MAX_NAME_LENGTH = 63

/** A device with an address is a soft device, whatever its name: `rdma link add` accepts all names. */
export const driverOf = ({ name, address }: DeviceSpec): DriverName =>
  address === '' ? (driverOfName(name) ?? 'rxe') : 'rxe'

/** Why a device cannot have this name; undefined if it can. */
export const deviceNameError = (name: string): string | undefined =>
  /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name) && name.length <= MAX_NAME_LENGTH
    ? undefined
    : `device name "${name}": a name begins with a letter or digit, has letters, digits, ".", "_", "-", and at most ${MAX_NAME_LENGTH} characters`

/** The inverse of `parseDevice`. */
export const deviceText = ({ name, address }: DeviceSpec): string => (address === '' ? name : `${name}@${address}`)

/** Parses NAME@ADDRESS, or NAME. Throws an Error with a message for people. */
export const parseDevice = (text: string): DeviceSpec => {
  const at = text.indexOf('@')
  const name = at < 0 ? text : text.slice(0, at)
  const nameError = deviceNameError(name)
  if (nameError !== undefined) throw new Error(nameError)
  const driver = driverOfName(name)
  if (driver !== undefined && !Drivers[driver].hasNetwork) {
    if (at < 0) return { name, address: '' }
    throw new Error(`device "${text}": a device of driver ${driver} has no network; omit the address`)
  }
  if (at < 0)
    throw new Error(`device "${text}": the address is missing; write it as NAME@ADDRESS, for example rxe0@127.0.0.1`)
  const address = text.slice(at + 1)
  const bytes = parseAddress(address)
  if (!bytes) throw new Error(`device "${text}": "${address}" is not an IPv4 or IPv6 address`)
  const reason = reasonUnusable(bytes)
  if (reason) throw new Error(`device "${text}": ${address} ${reason}; each device needs its own address`)
  return { name, address }
}

/** Names and addresses must be unique. Throws like parseDevice. */
export const checkDevices = (devices: readonly DeviceSpec[]): void => {
  const names = new Set<string>()
  const addresses = new Map<string, string>()
  for (const { name, address } of devices) {
    if (names.has(name)) throw new Error(`device name "${name}" is given twice`)
    names.add(name)
    if (address === '') continue
    // One address can be written in several ways.
    const key = String(parseAddress(address))
    const other = addresses.get(key)
    if (other !== undefined)
      throw new Error(`devices ${other} and ${name} have the same address ${address}; each needs its own`)
    addresses.set(key, name)
  }
}
