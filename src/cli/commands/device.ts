/*
 * `userdma device`: devices of a running daemon come and go (R23). Programs that use one that is removed are told
 * (DEVICE_FATAL), and their calls answer EIO.
 */
import { parseDevice } from '../../daemon/devices/device-spec.ts'
import { orUsageError } from '../config.ts'
import { type LookOptions, queryStat } from './stat.ts'

/** Adds a device to a daemon. Throws UsageError for text that names none. */
export const addDevice = async (text: string, options: LookOptions): Promise<void> => {
  const add = orUsageError(() => parseDevice(text))
  await queryStat(options, async client => {
    await client.changeDevices({ add })
    return ''
  })
}

/** Removes a device from a daemon, whatever programs are doing with it. */
export const removeDevice = (remove: string, options: LookOptions): Promise<void> =>
  queryStat(options, async client => {
    await client.changeDevices({ remove })
    return ''
  })
