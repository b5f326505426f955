/*
 * Numbers of bytes as text, for commands and the page.
 */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const

/** A size as text: 1536 is `1.5 KiB`. With a fraction it is rounded: 64 KiB are `64 KiB`, a byte more `64.0 KiB`. */
export const bytesText = (bytes: number): string => {
  let value = bytes
  let unit = 0
  // From 1023.95 on, toFixed would print 1024.0.
  while (value >= (unit === 0 ? 1024 : 1023.95) && unit < UNITS.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit === 0 || Number.isInteger(value) ? value : value.toFixed(1)} ${UNITS[unit]}`
}
