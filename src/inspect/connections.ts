/*
 * Limits the connections of the page's server, so that one peer cannot use up those of the others
 * (docs/why/threat-model.md). At the limit a new connection closes one of the peer that has the most. A peer is a user of
 * this machine, as far as the kernel tells, or a remote address.
 */
import type { IncomingMessage, Server } from 'node:http'
import { isIPv6, type Socket } from 'node:net'
import { tcpOwner } from '../host/net/tcp-owner.ts'

/** A browser has six connections for a page. */
export const MAX_CONNECTIONS = 128

interface Connection {
  readonly socket: Socket
  /** A request has had a session. */
  hasSession: boolean
  /** Requests that were not answered. */
  requests: number
  /** Found out at the limit only. */
  peer?: string
}

/** The address of a socket's end; of IPv4, also if the server listens on `::`. */
export const plainAddress = (address: string): string => address.replace(/^::ffff:(?=\d+\.)/i, '').replace(/%.*$/, '')

const peerOf = ({ remoteAddress = '', remotePort = 0, localAddress = '', localPort = 0 }: Socket): string => {
  const address = plainAddress(remoteAddress)
  const user = tcpOwner({ address, port: remotePort }, { address: plainAddress(localAddress), port: localPort })
  if (user !== undefined) return `user ${user}`
  // A host has all addresses of its /64.
  return isIPv6(address)
    ? new URL(`http://[${address}]`).hostname.slice(1, -1).split(':').slice(0, 4).join(':')
    : address
}

/**
 * Which connection is closed at the limit: one without a session if there is one, of the peer with the most of them;
 * rather an idle one, and the oldest of these.
 */
const victimOf = (connections: readonly Connection[]): Connection | undefined => {
  const strangers = connections.filter(({ hasSession }) => !hasSession)
  const candidates = strangers.length > 0 ? strangers : connections
  const counts = new Map<string, number>()
  for (const connection of candidates) {
    connection.peer ??= peerOf(connection.socket)
    counts.set(connection.peer, (counts.get(connection.peer) ?? 0) + 1)
  }
  const most = Math.max(...counts.values())
  const ofPeer = candidates.filter(({ peer = '' }) => counts.get(peer) === most)
  return ofPeer.find(({ requests }) => requests === 0) ?? ofPeer[0]
}

export interface ConnectionLimit {
  /** Notes that a request has a session. */
  noteSession(request: IncomingMessage): void
}

/** Limits the connections of a server to MAX_CONNECTIONS. */
export const limitConnections = (server: Server): ConnectionLimit => {
  /** In the order of their begin. */
  const connections = new Map<Socket, Connection>()
  server.on('connection', (socket: Socket) => {
    connections.set(socket, { socket, hasSession: false, requests: 0 })
    socket.once('close', () => connections.delete(socket))
    if (connections.size <= MAX_CONNECTIONS) return
    const victim = victimOf([...connections.values()])
    if (victim === undefined) return
    connections.delete(victim.socket)
    victim.socket.resetAndDestroy()
  })
  server.on('request', ({ socket }, response) => {
    const connection = connections.get(socket)
    if (connection === undefined) return
    connection.requests++
    response.once('close', () => connection.requests--)
  })
  return {
    noteSession({ socket }) {
      const connection = connections.get(socket)
      if (connection !== undefined) connection.hasSession = true
    },
  }
}
