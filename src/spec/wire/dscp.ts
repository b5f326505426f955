/*
 * Differentiated services code points (RFC 2474), the upper six bits of the traffic class, and their names.
 */

export const MAX_DSCP = 63

/** Class selectors (RFC 2474), assured (RFC 2597) and expedited forwarding (RFC 3246), voice admit, lower effort. */
const numbers: Readonly<Record<string, number>> = {
  default: 0,
  ...Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`cs${i}`, 8 * i])),
  ...Object.fromEntries(
    [1, 2, 3, 4].flatMap(group => [1, 2, 3].map(drop => [`af${group}${drop}`, 8 * group + 2 * drop])),
  ),
  ef: 46,
  va: 44,
  le: 1,
}

/** The number of a name or of digits, 0 to 63; undefined for any other text. */
const readOne = (text: string): number | undefined => {
  const named = Object.hasOwn(numbers, text) ? numbers[text] : undefined
  const value = named ?? (/^\d{1,2}$/.test(text) ? Number(text) : undefined)
  return value !== undefined && value <= MAX_DSCP ? value : undefined
}

export interface DscpRange {
  readonly min: number
  readonly max: number
}

/** A number, a name, or both ends of a range: `26`, `af31`, `cs3..31`; undefined for any other text. */
export const readDscp = (text: string): DscpRange | undefined => {
  const [from, to = from, ...others] = text.toLowerCase().split('..')
  const min = readOne(from ?? '')
  const max = readOne(to ?? '')
  return others.length > 0 || min === undefined || max === undefined || min > max ? undefined : { min, max }
}

export const DSCP_ALLOWED = `a DSCP from 0 to ${MAX_DSCP}, a name as ef, af31 or cs3, or a range as 24..31`
