/*
 * The range of `userdma check --who`: the bytes whose accesses are told.
 */

/** The most bytes of a range whose changes by the program are told. */
export const MAX_HASHED = 0x1_0000

export type WhoRange =
  /** An address of any process of the run. */
  | { readonly kind: 'address'; readonly start: number; readonly length: number }
  /** Bytes of the region that each process registers as its `number`-th, from 1. Without `length`: to its end. */
  | { readonly kind: 'region'; readonly number: number; readonly offset: number; readonly length?: number }
  /** Bytes that programs have given this name (userdma_name). Without `length`: to their end. */
  | { readonly kind: 'name'; readonly name: string; readonly offset: number; readonly length?: number }
  /** The buffers of the first requests with this wr_id, one of each queue. */
  | { readonly kind: 'request'; readonly wrId: bigint }

export const WHO_RANGES =
  '0xADDRESS+LENGTH, mr=NUMBER, mr=NUMBER+OFFSET+LENGTH, wr_id=NUMBER, NAME or NAME+OFFSET+LENGTH'

const NUMBER = String.raw`(0x[\da-f]{1,16}|\d{1,20})`
const ADDRESS = new RegExp(String.raw`^(0x[\da-f]{1,16})\+${NUMBER}$`, 'i')
const REGION = new RegExp(String.raw`^mr=(\d{1,9})(?:\+${NUMBER}(?:\+${NUMBER})?)?$`, 'i')
/** Of userdma.h. No sign that the others have. */
const NAME = new RegExp(String.raw`^(?!0x|\d)([^+=\s][^+=]{0,54})(?:\+${NUMBER}\+${NUMBER})?$`, 'i')
const REQUEST = new RegExp(`^wr_id=${NUMBER}$`, 'i')

const MAX_WR_ID = 2n ** 64n

/** The range of a text; undefined: it is none of WHO_RANGES. */
export const parseWho = (text: string): WhoRange | undefined => {
  const [, address, bytes] = ADDRESS.exec(text) ?? []
  if (address !== undefined) {
    const [start, length] = [Number(address), Number(bytes)]
    return Number.isSafeInteger(start + length) && length > 0 ? { kind: 'address', start, length } : undefined
  }
  const [, number, from = '0', size] = REGION.exec(text) ?? []
  if (number !== undefined) {
    const [offset, length] = [Number(from), size === undefined ? undefined : Number(size)]
    if (Number(number) === 0 || length === 0 || !Number.isSafeInteger(offset + (length ?? 0))) return undefined
    return { kind: 'region', number: Number(number), offset, ...(length !== undefined && { length }) }
  }
  const [, name, begin = '0', most] = NAME.exec(text) ?? []
  if (name !== undefined) {
    const [offset, length] = [Number(begin), most === undefined ? undefined : Number(most)]
    if (length === 0 || !Number.isSafeInteger(offset + (length ?? 0))) return undefined
    return { kind: 'name', name, offset, ...(length !== undefined && { length }) }
  }
  const [, wrId] = REQUEST.exec(text) ?? []
  return wrId !== undefined && BigInt(wrId) < MAX_WR_ID ? { kind: 'request', wrId: BigInt(wrId) } : undefined
}
