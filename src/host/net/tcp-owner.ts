/*
 * The user who owns a TCP socket of this machine, from the kernel's tables of its network namespace (proc_net_tcp(5)).
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { isIPv4 } from 'node:net'

/** Most bytes of a table that are read, about 7,000 sockets: a user may have many more. */
const MAX_TABLE = 2 ** 20

/** An address as the tables write it: words in the machine's byte order, little-endian on all that we support. */
const hexAddress = (bytes: Uint8Array): string => Buffer.from(bytes).swap32().toString('hex').toUpperCase()

/** 4 or 16 bytes of an IPv4 or IPv6 loopback address; undefined for others. */
const loopbackBytes = (address: string): Uint8Array | undefined => {
  if (address === '::1') return new Uint8Array(16).fill(1, 15)
  return isIPv4(address) && address.startsWith('127.') ? Uint8Array.from(address.split('.').map(Number)) : undefined
}

const readTable = (path: string): string => {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch {
    return ''
  }
  try {
    const bytes = Buffer.alloc(MAX_TABLE)
    let length = 0
    for (;;) {
      const count = readSync(fd, bytes, length, bytes.length - length, null)
      length += count
      if (count === 0 || length === bytes.length) return bytes.toString('latin1', 0, length)
    }
  } finally {
    closeSync(fd)
  }
}

/** An address as Node writes it, and a port. */
interface TcpEnd {
  readonly address: string
  readonly port: number
}

/**
 * The user of the socket at `local` that is connected to `remote`, both with loopback addresses. Undefined: it is
 * unknown, because the socket is closed, or is not in this network namespace, or the tables are too long.
 */
export const tcpOwner = (local: TcpEnd, remote: TcpEnd): number | undefined => {
  const ends = [local, remote].map(({ address, port }) => {
    const bytes = loopbackBytes(address)
    return bytes && `${hexAddress(bytes)}:${port.toString(16).toUpperCase().padStart(4, '0')}`
  })
  if (ends.includes(undefined)) return undefined
  const table = readTable(local.address === '::1' ? '/proc/net/tcp6' : '/proc/net/tcp')
  const at = table.indexOf(` ${ends.join(' ')} `)
  if (at < 0) return undefined
  // After the addresses: state, queues, timer, retransmissions, and the user.
  const uid = table
    .slice(at, at + 200)
    .trim()
    .split(/\s+/)[6]
  return uid !== undefined && /^\d+$/.test(uid) ? Number(uid) : undefined
}
