/*
 * Texts of numbers, as all views write them.
 */

import type { LinkEvent } from '../src/spec/session-events.ts'
import { gidText } from '../src/tools/trace/bytes.ts'
import { lidOf } from '../src/transport/wire/address.ts'

export { durationText } from '../src/spec/duration.ts'

const thousands = new Intl.NumberFormat('en-US')

/** The formatter takes a microsecond, so numbers that have no comma bypass it. */
export const countText = (value: number): string =>
  value >= 0 && value < 1000 && Number.isInteger(value) ? String(value) : thousands.format(value)

export const plural = (count: number, noun: string): string => `${countText(count)} ${noun}${count === 1 ? '' : 's'}`

export const hexText = (value: number, digits = 0): string => `0x${value.toString(16).padStart(digits, '0')}`

/** PSNs have 24 bits. */
export const psnText = (psn: number): string => hexText(psn, 6)

/** A time within the session, from microseconds: `1.234 567` (s). */
export const timeText = (microseconds: number): string => {
  const text = (microseconds / 1e6).toFixed(6)
  return `${text.slice(0, -3)}\u2009${text.slice(-3)}`
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const

export const bytesText = (bytes: number): string => {
  let unit = 0
  let value = bytes
  while (value >= 10_240 && unit < UNITS.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit === 0 ? countText(value) : value >= 100 ? value.toFixed(0) : value.toFixed(1)} ${UNITS[unit]}`
}

const RATES = ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s', 'Tbit/s'] as const

/** A rate of a link, from bits per second. */
export const rateText = (rate: number): string => {
  let unit = 0
  let value = rate
  while (value >= 1000 && unit < RATES.length - 1) {
    value /= 1000
    unit++
  }
  return `${Number(value.toPrecision(4))} ${RATES[unit]}`
}

/** The time of day of a moment, from milliseconds since the epoch. */
export const clockText = (milliseconds: number): string => {
  const date = new Date(milliseconds)
  return Number.isFinite(milliseconds) ? `${date.toISOString().replace('T', ' ').slice(0, 23)} UTC` : 'unknown'
}

/** A LID, or an IP address: of IPv4, or of IPv6. */
export const addressText = (gid: Uint8Array): string => {
  const lid = lidOf(gid)
  return lid >= 0 ? `LID ${lid}` : gidText(gid).replace(/^::ffff:(?=\d+\.)/, '')
}

/** Why a link has lost packets; empty: it has lost none. */
export const lossesText = ({ overflowed, lost, tooLong }: Pick<LinkEvent, 'overflowed' | 'lost' | 'tooLong'>): string =>
  [
    overflowed > 0 && `${countText(overflowed)} queue full`,
    lost > 0 && `${countText(lost)} by chance`,
    tooLong > 0 && `${countText(tooLong)} above the MTU`,
  ]
    .filter(Boolean)
    .join(', ')
