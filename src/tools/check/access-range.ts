/*
 * Explains an access beyond the range of its key: how far it goes, and whether its address is that of the memory, and
 * the key has addresses of its own.
 */
import type { Failure } from '../../spec/check/failures.ts'
import { hex, type KnownObject } from './objects.ts'

/** Empty if the failure has another cause. `near`: what the address was meant to be. */
export const accessRangeLines = ({ cause: { args } }: Failure, near: string | undefined): string[] => {
  const { accessStart, accessEnd, rangeStart, rangeEnd } = args
  if (typeof accessStart !== 'bigint' || typeof accessEnd !== 'bigint') return []
  if (typeof rangeStart !== 'bigint' || typeof rangeEnd !== 'bigint') return []
  const parts = [
    ...(accessStart < rangeStart ? [`begins ${rangeStart - accessStart} bytes before the start`] : []),
    ...(accessEnd > rangeEnd ? [`ends ${accessEnd - rangeEnd} bytes after the end`] : []),
  ]
  if (parts.length === 0) return []
  const size = rangeEnd - rangeStart
  return [
    `the access of ${accessEnd - accessStart} bytes ${parts.join(' and ')} of the key's range of ${size} bytes`,
    ...(near === undefined ? [] : [near]),
  ]
}

/** A line if the address is one of the region's memory, and the key has addresses of its own. */
export const basedLines = ({ cause: { args } }: Failure, region: KnownObject | undefined): string[] => {
  const { accessStart, rangeStart } = args
  if (typeof accessStart !== 'bigint' || region === undefined) return []
  const { start, iova, size } = region
  if (rangeStart === undefined || start === undefined || iova === undefined || size === undefined || start === iova)
    return []
  if (accessStart < BigInt(start) || accessStart >= BigInt(start + size)) return []
  const why = iova === 0 ? 'IBV_ACCESS_ZERO_BASED' : 'ibv_reg_mr_iova'
  return [
    `${hex(accessStart)} is the address of the memory: the addresses of this region begin at ${hex(iova)} (${why}), so this byte is ${hex(accessStart - BigInt(start) + BigInt(iova))}`,
  ]
}
