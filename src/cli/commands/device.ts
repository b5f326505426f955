/*
 * `userdma device`: adds and removes devices of a running daemon (R23). Programs that use a removed device get
 * DEVICE_FATAL, and their calls fail with EIO.
 */
import { parseDevice } from '../../daemon/devices/device-spec.ts'
import { orUsageError } from '../config.ts'
import { type QueryOptions, queryStat } from './stat.ts'

/** Adds a device to a daemon. Throws UsageError if the text is not a device. */
export const addDevice = async (text: string, options: QueryOptions): Promise<void> => {
  const add = await orUsageError(() => parseDevice(text))
  await queryStat(options, async client => {
    await client.changeDevices({ add })
    return ''
  })
}

/** Removes a device from a daemon, even while programs use it. */
export const removeDevice = (remove: string, options: QueryOptions): Promise<void> =>
  queryStat(options, async client => {
    await client.changeDevices({ remove })
    return ''
  })
