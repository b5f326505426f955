/*
 * Explains an access beyond the range of its key: how far it goes, and whether its address is one within the range that
 * was encoded wrongly.
 */
import type { Failure } from '../../spec/check/failures.ts'
import { joinWords, swap32 } from '../../spec/memory.ts'
import { hex, type KnownObject } from './objects.ts'

const swap64 = (address: bigint): bigint =>
  joinWords(swap32(Number(address & 0xffff_ffffn)), swap32(Number(address >> 32n)))

/** Common mistakes in sending an address to the peer, or storing it: empty or one line. */
const encodingLines = (address: bigint, start: bigint, end: bigint): string[] => {
  if (address >= start && address < end) return []
  const isTruncated = address === BigInt.asUintN(32, address)
  const isSignExtended = address === BigInt.asUintN(64, BigInt.asIntN(32, address))
  const sameLowBits = start + BigInt.asUintN(32, address - start)
  if ((isTruncated || isSignExtended) && sameLowBits < end)
    return [
      `${hex(address)} has the lower 32 bits of ${hex(sameLowBits)}, which is in the range: addresses have 64 bits`,
    ]
  const swapped = swap64(address)
  return swapped >= start && swapped < end
    ? [`${hex(address)} is ${hex(swapped)}, which is in the range, in the other byte order`]
    : []
}

/** Empty if the failure has another cause. */
export const accessRangeLines = ({ cause: { args } }: Failure): string[] => {
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
    ...encodingLines(accessStart, rangeStart, rangeEnd),
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
