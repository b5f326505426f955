/*
 * Limits of a device that its user has lowered (spec/device-limits.ts).
 */
import { type DeviceLimits, deviceLimit, deviceLimitNames } from '../../spec/device-limits.ts'
import { callError } from '../../spec/errno.ts'

/** `own`: limits of a device, with those of `set` in their place. Throws EINVAL for a limit that would be raised. */
export const lowered = <T extends object>(device: string, own: T, set: DeviceLimits = {}): T => {
  const limits = { ...own } as Record<string, unknown>
  for (const name of deviceLimitNames) {
    const { of = '' } = deviceLimit(name)
    const [value, most] = [set[name], limits[of]]
    if (value === undefined || typeof most !== 'number') continue
    if (value > most)
      throw callError.EINVAL`device ${device}: ${name}=${value} is above ${most}, the limit of the device itself; limits can only be lowered`
    limits[of] = value
    if (of === 'maxSge' && limits.maxRecvSge !== undefined) limits.maxRecvSge = value
  }
  return limits as T
}
