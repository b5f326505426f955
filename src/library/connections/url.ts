/*
 * URLs of connections: rdma://HOST:PORT, with a name, an IPv4 address or an IPv6 address in brackets. A link-local
 * address names its network interface: rdma://[fe80::2%eth0]:7471.
 */
import { ipAddress } from '../../services/socket-address.ts'
import type { SocketAddress } from '../../spec/classes/connections/cm_parameters.ts'
import { addressText, parseAddress } from '../../transport/wire/address.ts'
import { checkInteger, checkText, invalidArgument, refused } from '../verbs/error.ts'

const URL_PARTS = /^rdma:\/\/(?:\[(?<ipv6>[^\]%]+)(?:%(?<scope>[^\]]+))?\]|(?<name>[^:/?#[\]%]+)):(?<port>\d{1,5})\/?$/
const HIGHEST_PORT = 65535
/** Highest index of a network interface (if_nametoindex(3)). */
const HIGHEST_INDEX = 2 ** 31 - 1
const HINT = 'write rdma://10.0.0.2:7471, rdma://[fe80::2%eth0]:7471 or rdma://name:7471'

/**
 * The index of a network interface, written as the index or the name after `%` in an IPv6 address. Rejects with
 * RdmaError EINVAL for a name, unless the interface has a link-local address: the scope id of other addresses is 0.
 */
const scopeOf = async (call: string, scope: string): Promise<number> => {
  if (/^\d+$/.test(scope) && Number(scope) <= HIGHEST_INDEX) return Number(scope)
  const { networkInterfaces } = await import('node:os')
  const addresses = new Map(Object.entries(networkInterfaces())).get(scope) ?? []
  for (const address of addresses) if (address.family === 'IPv6' && address.scopeid !== 0) return address.scopeid
  throw invalidArgument(call, `there is no interface ${scope} with a link-local IPv6 address`)
}

/** The first address of a host. Rejects with RdmaError EHOSTUNREACH. */
const lookUp = async (call: string, host: string): Promise<Uint8Array> => {
  const { lookup } = await import('node:dns/promises')
  try {
    const { address } = await lookup(host)
    return parseAddress(address) as Uint8Array
  } catch (error) {
    throw refused('EHOSTUNREACH', call, `${host}: ${(error as Error).message}`)
  }
}

/** Where a listener is: `rdma://HOST:PORT` as text or as a URL, or host (a name or an address) and port. */
export type ListenerAddress = string | { readonly href: string } | { readonly host: string; readonly port: number }

/** The URL of an address as text. Throws RdmaError EINVAL. */
export const urlText = (call: string, address: ListenerAddress): string => {
  if (typeof address !== 'object' || address === null) {
    checkText(call, 'url', address)
    return address
  }
  const { href, host, port } = address as { readonly href?: unknown; readonly host?: unknown; readonly port?: unknown }
  if (typeof href === 'string') return href
  checkText(call, 'host', host)
  checkInteger(call, 'port', port, 0, HIGHEST_PORT)
  return `rdma://${hostAndPort(host as string, port as number)}`
}

/** The address of a URL. Rejects with RdmaError: EINVAL for text of another form, EHOSTUNREACH for an unknown name. */
export const resolveUrl = async (call: string, url: string): Promise<SocketAddress> => {
  const { ipv6, scope, name, port: digits } = URL_PARTS.exec(url)?.groups ?? {}
  const host = ipv6 ?? name
  const port = Number(digits)
  if (host === undefined || port > HIGHEST_PORT) throw invalidArgument(call, `url "${url}" is not an address`, HINT)
  const bytes = parseAddress(host)
  if (ipv6 !== undefined && (bytes === undefined || !ipv6.includes(':')))
    throw invalidArgument(call, `url "${url}": ${ipv6} is not an IPv6 address`, HINT)
  return ipAddress(bytes ?? (await lookUp(call, host)), port, scope === undefined ? 0 : await scopeOf(call, scope))
}

/** An address as text; IPv6 with its zeros compressed (RFC 5952), as URLs write it. */
const shortText = (address: Uint8Array): string => {
  const text = addressText(address)
  return text.includes(':') ? new URL(`http://[${text}]`).hostname.slice(1, -1) : text
}

/** An address as text, and its port; '' and 0 without an address. */
export interface ShownAddress {
  readonly address: string
  readonly port: number
}

export const shownAddress = (address: SocketAddress | undefined): ShownAddress => ({
  address: address === undefined ? '' : shortText(address.address),
  port: address?.port ?? 0,
})

/** Address and port as a URL writes them. */
export const hostAndPort = (address: string, port: number): string =>
  `${address.includes(':') && !address.startsWith('[') ? `[${address}]` : address}:${port}`
