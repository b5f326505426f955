/*
 * Option `limits` of `open`: limits of a new soft device.
 */
import { libraryDriver } from '../../drivers/registered.ts'
import { readDeviceLimit } from '../../settings/device-limits.ts'
import type { DeviceLimits } from '../../spec/device-limits.ts'
import { formatValue, invalidArgument } from '../verbs/error.ts'

/** Throws RdmaError EINVAL. */
export const limitsOf = (limits: unknown): DeviceLimits | undefined => {
  if (limits === undefined) return undefined
  if (typeof limits !== 'object' || limits === null)
    throw invalidArgument('open', `limits ${formatValue(limits)} is no record`, 'give limits such as { max_qp: 10 }')
  const { settableLimits = [] } = libraryDriver
  const given = Object.entries(limits).filter(([, value]) => value !== undefined)
  return Object.fromEntries(
    given.map(([key, value]) => {
      const name = settableLimits.find(known => known === key)
      if (name === undefined)
        throw invalidArgument('open', `limits: there is no ${key}`, `there are ${settableLimits.join(', ')}`)
      if (typeof value !== 'number')
        throw invalidArgument('open', `limits: ${key} ${formatValue(value)} is not a number`)
      try {
        return [name, readDeviceLimit(name, String(value))]
      } catch (error) {
        throw invalidArgument('open', `limits: ${(error as Error).message}`)
      }
    }),
  )
}
