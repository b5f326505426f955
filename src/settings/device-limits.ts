/*
 * Limits of a device as users write them: `max_qp=10` of `--device`, `max_qp: 10` of a net's file, and options of
 * `open`.
 */
import { inRange, parseNumber } from '../base/quantities.ts'
import { type DeviceLimitName, deviceLimit } from '../spec/device-limits.ts'

const BYTE_UNITS = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 } as const
/** The largest count: Linux's attributes are signed. */
const MAX_COUNT = 0x7fff_ffff

/** Throws an Error with a message for people. */
export const readDeviceLimit = (name: DeviceLimitName, text: string): number => {
  const { isBytes, min = 1 } = deviceLimit(name)
  const max = isBytes ? Number.MAX_SAFE_INTEGER : MAX_COUNT
  const value = inRange(parseNumber(text, isBytes ? BYTE_UNITS : { '': 1 }), min, max)
  if (value === undefined || !Number.isInteger(value))
    throw new Error(
      `${name}="${text}": give a number ${isBytes ? 'of bytes, such as 65536, 64k, 16m or 2g' : `from ${min} to ${max}`}`,
    )
  return value
}
