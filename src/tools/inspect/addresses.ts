/*
 * Addresses of this machine as browsers and scrapers name them, for servers that refuse other names: pages of others
 * could give their name our address (DNS rebinding).
 */
import { hostname } from 'node:os'

/** The address of a socket's end; of IPv4, also if the server listens on `::`. */
export const plainAddress = (address: string): string => address.replace(/^::ffff:(?=\d+\.)/i, '').replace(/%.*$/, '')

export const isLoopback = (address: string): boolean => address === '::1' || address.startsWith('127.')

/** An address in a URL. */
export const urlHost = (address: string): string => (address.includes(':') ? `[${address}]` : address)

/** The machine's name, and its first part. */
export const machineNames = (): readonly [string, string] => {
  const name = hostname()
  return [name, name.replace(/\..*$/, '')]
}
