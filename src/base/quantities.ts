/*
 * Numbers with units as users write them: probabilities, times and rates. They have no exponents.
 */

export interface Setting<T> {
  /** Undefined if the text is invalid. */
  read(text: string): T | undefined
  write(value: T): string
  /** The allowed values, for messages. */
  readonly allowed: string
}

/** Decimals of written numbers. Read numbers are rounded to them, so that a written number is read back unchanged. */
const DECIMALS = 12
const SIGNIFICANT_DIGITS = 12

/**
 * Parses a number with a unit, and multiplies it by the unit's scale; undefined for any other text. `units`: scales by
 * unit in lower case; '': no unit.
 */
export const parseNumber = (text: string, units: Readonly<Record<string, number>>): number | undefined => {
  const [, digits, unit] = /^([0-9]+\.?[0-9]*|\.[0-9]+)([a-z%]*)$/i.exec(text) ?? []
  const scale = digits === undefined ? undefined : units[(unit ?? '').toLowerCase()]
  if (scale === undefined) return undefined
  // Without the rounding error of the product: 0.1 % is exactly 0.001.
  const value = Number((Number(digits) * scale).toPrecision(SIGNIFICANT_DIGITS))
  return Number(value.toFixed(DECIMALS))
}
export const inRange = (value: number | undefined, min: number, max: number): number | undefined =>
  value !== undefined && value >= min && value <= max ? value : undefined

/** Without an exponent, which `parseNumber` does not accept. */
export const formatNumber = (value: number): string => value.toFixed(DECIMALS).replace(/\.?0+$/, '')

export const probability: Setting<number> = {
  read: text => inRange(parseNumber(text, { '': 1, '%': 0.01 }), 0, 1),
  write: formatNumber,
  allowed: 'a probability from 0 to 1 or from 0% to 100%',
}
export const milliseconds: Setting<number> = {
  read: text => inRange(parseNumber(text, { '': 1, us: 0.001, ms: 1, s: 1000 }), 0, 10000),
  write: formatNumber,
  allowed: 'milliseconds from 0 to 10000, or a time like 200us, 5ms or 1s',
}
const RATES = { tbit: 1e12, gbit: 1e9, mbit: 1e6, kbit: 1e3, bit: 1, '': 1 } as const
export const bitsPerSecond: Setting<number> = {
  read: text => inRange(parseNumber(text, RATES), 1000, 1e12),
  write: value => {
    const [unit, scale] = Object.entries(RATES).find(([, scale]) => value >= scale) ?? ['', 1]
    return `${formatNumber(value / scale)}${unit}`
  },
  allowed: 'bits per second from 1kbit to 1tbit, like 800kbit, 10mbit or 2.5gbit',
}
/** The quantities of a link, for files that describe links in the units of fault rules. */
export const linkQuantities = { delay: milliseconds, loss: probability, rate: bitsPerSecond } as const
