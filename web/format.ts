/*
 * Texts of numbers, as all views write them.
 */

import { bytesText } from '../src/spec/byte-count.ts'
import { printable } from '../src/spec/printable.ts'
import type { LinkEvent } from '../src/spec/session-events.ts'
import { type Losses, lostText as lostTextOf } from '../src/tools/record/times/request-times.ts'
import { gidText } from '../src/tools/trace/bytes.ts'
import { lidOf } from '../src/transport/wire/address.ts'

export { durationText } from '../src/spec/duration.ts'
export { bytesText }

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

/** A size for details: exactly too, where `bytesText` rounds it. */
export const exactBytesText = (bytes: number): string => {
  const text = bytesText(bytes)
  return text.includes('.') ? `${text} (${countText(bytes)} B)` : text
}

/** A mean rate, from a number in so many microseconds; empty: there is no time. */
export const perSecondText = (value: number, microseconds: number, text = countText): string =>
  microseconds > 0 ? `${text(Math.round(value / (microseconds / 1e6)))}/s` : ''

/** A value of an object by its name: sizes in bytes, what programs write in hexadecimal, other numbers. */
export const valueText = (name: string, value: unknown): string => {
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return Object.entries(value)
      .map(([part, one]) => `${part} ${valueText(part, one)}`)
      .join(', ')
  // Numbers of 64 bits are texts.
  const number = typeof value === 'string' && /^0x[0-9a-f]{1,13}$/.test(value) ? Number(value) : value
  if (typeof number === 'number' && /(?:length|size|bytes|inlineData)$/i.test(name)) return exactBytesText(number)
  if (typeof value !== 'number') return typeof value === 'object' ? JSON.stringify(value) : String(value ?? '')
  if (/psn$/i.test(name)) return psnText(value)
  return value > 0xffff || /(?:key|qpn|qpNum|flags|access)$/i.test(name) ? hexText(value) : countText(value)
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

/** The parts of a sentence in turn: words, code, words … */
export const proseParts = (text: string): readonly string[] => printable(text).split(/`([^`]+)`/)

/** Of lost packets. */
export const lostText = (losses: Losses): string => lostTextOf(losses, countText)

/** Why a link has lost packets; empty: it has lost none. */
export const lossesText = ({ overflowed, lost, tooLong }: Pick<LinkEvent, 'overflowed' | 'lost' | 'tooLong'>): string =>
  [
    overflowed > 0 && `${countText(overflowed)} queue full`,
    lost > 0 && `${countText(lost)} by chance`,
    tooLong > 0 && `${countText(tooLong)} above the MTU`,
  ]
    .filter(Boolean)
    .join(', ')
