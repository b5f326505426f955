/*
 * Limits the connections of a server, of the page or of metrics, so that one peer cannot use up those of the others
 * (docs/why/threat-model.md). At the limit a new connection closes one of the peer that has the most. A peer is a user
 * of this machine, as far as the kernel tells, or a remote address.
 */
import type { IncomingMessage, Server } from 'node:http'
import { isIPv6, type Socket } from 'node:net'
import { tcpOwner } from '../../host/net/tcp-owner.ts'
import { plainAddress } from './addresses.ts'

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

interface ConnectionLimit {
  /** Notes that a request has a session. */
  noteSession(request: IncomingMessage): void
  /** Whether the connection of a new request has others that were not answered. */
  isWaiting(request: IncomingMessage): boolean
}

/** Limits the connections of a server to `max`. */
export const limitConnections = (server: Server, max = MAX_CONNECTIONS): ConnectionLimit => {
  /** In the order of their begin. */
  const connections = new Map<Socket, Connection>()
  server.on('connection', (socket: Socket) => {
    connections.set(socket, { socket, hasSession: false, requests: 0 })
    socket.once('close', () => connections.delete(socket))
    if (connections.size <= max) return
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
    isWaiting: ({ socket }) => (connections.get(socket)?.requests ?? 0) > 1,
  }
}
