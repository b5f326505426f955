/*
 * `userdma device`: adds and removes devices of a running daemon (R23). Programs that use a removed device get
 * DEVICE_FATAL, and their calls fail with EIO.
 */
import { parseDevice } from '../../daemon/devices/device-spec.ts'
import { orUsageError, tellDrivers } from '../config.ts'
import { printFromDaemon, type QueryOptions } from './stat.ts'

/** Adds a device to a daemon. `text`: NAME@ADDRESS or NAME. Throws UsageError if it is no such text. */
export const addDevice = async (text: string, options: QueryOptions): Promise<void> => {
  const device = await orUsageError(() => parseDevice(text))
  await tellDrivers([device], {})
  await printFromDaemon(options, async client => {
    await client.changeDevices({ add: device })
    return ''
  })
}

/** Removes a device from a daemon, even while programs use it. */
export const removeDevice = (name: string, options: QueryOptions): Promise<void> =>
  printFromDaemon(options, async client => {
    await client.changeDevices({ remove: name })
    return ''
  })
