/*
 * Limits of a device that its user has lowered (spec/device-limits.ts).
 */
import { type DeviceLimits, deviceLimit, deviceLimitNames } from '../../spec/device-limits.ts'
import { callError } from '../../spec/errno.ts'

/**
 * `own`: limits of a device, with those of `set` in their place. `untormented`: those that torment has perhaps lowered,
 * before. Throws EINVAL for a limit that would be raised.
 */
export const lowered = <T extends object>(device: string, own: T, set: DeviceLimits = {}, untormented = own): T => {
  const limits = { ...own } as Record<string, unknown>
  for (const name of deviceLimitNames) {
    const { of = '' } = deviceLimit(name)
    const [value, most, now] = [set[name], (untormented as Record<string, unknown>)[of], limits[of]]
    if (value === undefined || typeof most !== 'number' || typeof now !== 'number') continue
    if (value > most)
      throw callError.EINVAL`device ${device}: ${name}=${value} is above ${most}, the limit of the device itself; limits can only be lowered`
    limits[of] = Math.min(value, now)
    if (of === 'maxSge' && limits.maxRecvSge !== undefined) limits.maxRecvSge = limits[of]
  }
  return limits as T
}
