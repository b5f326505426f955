/*
 * Routes of the system: the source address for a destination, and whether there is a route, found by connecting a UDP
 * socket; and the interface by which it leaves, which rtnetlink tells. No packet is sent.
 */
import { readFileSync } from 'node:fs'
import { ENETUNREACH } from '../errno.ts'
import { type Arena, mapArena } from '../memory/mapping.ts'
import { lastErrno, libcFunctions } from '../native.ts'
import { isIpv4Mapped } from './addresses.ts'
import { type Route, routeIn, routeRequest } from './route-messages.ts'
import { AF_INET, AF_INET6, AF_NETLINK, NETLINK_ROUTE } from './socket-constants.ts'
import { close } from './sockets.ts'
import { putAddress } from './udp.ts'

const sys = libcFunctions({
  socket: 'int socket(int family, int type, int protocol)',
  bind: 'int bind(int fd, int64_t address, int length)',
  connect: 'int connect(int fd, int64_t address, int length)',
  send: 'int64_t send(int fd, int64_t bytes, uint64_t length, int flags)',
  recv: 'int64_t recv(int fd, int64_t bytes, uint64_t length, int flags)',
  getsockname: 'int getsockname(int fd, int64_t address, int64_t length)',
})

const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000
const SOCK_RAW_CLOEXEC = 3 | 0o2000000
/** Bytes of an answer. */
const ANSWER = 2048
/** RoCEv2's; any port would do. */
const PORT = 4791
/** Sizes of sockaddr_in and sockaddr_in6. */
const SOCKADDR_IN = 16
const SOCKADDR_IN6 = 28
/** Offsets of the address in sockaddr_in and sockaddr_in6. */
const SIN_ADDR = 4
const SIN6_ADDR = 8
/** Offsets in the arena, behind the sockaddr: a socklen_t, and the sockaddr of the source. */
const LENGTH_AT = 64
const SOURCE_AT = 128

let arena: Arena | undefined

/**
 * Connects a UDP socket to `destination`, and returns the result of `read`, which gets its descriptor; -errno if there
 * is no route. `source`: the address to bind first.
 */
const withRoute = <T>(
  destination: Uint8Array,
  scope: number,
  source: Uint8Array | undefined,
  read: (fd: number, memory: Arena) => T,
): T | number => {
  arena ??= mapArena(4096)
  const { address } = arena
  const length = putAddress(arena, 0, destination, PORT, scope)
  const fd = sys().socket(length === SOCKADDR_IN ? AF_INET : AF_INET6, SOCK_DGRAM_CLOEXEC, 0)
  if (fd < 0) return -lastErrno()
  try {
    if (source !== undefined) {
      const sourceLength = putAddress(arena, SOURCE_AT, source, 0, scope)
      if (sys().bind(fd, address + SOURCE_AT, sourceLength) < 0) return -lastErrno()
    }
    return sys().connect(fd, address, length) < 0 ? -lastErrno() : read(fd, arena)
  } finally {
    close(fd)
  }
}

/**
 * The source address for packets to `destination`, both 16 bytes, IPv4 as ::ffff:a.b.c.d; -errno if there is no route.
 * `scope`: the interface index of a link-local destination.
 */
export const sourceAddress = (destination: Uint8Array, scope: number): Uint8Array | number =>
  withRoute(destination, scope, undefined, (fd, { address, bytes, view }) => {
    view.setInt32(LENGTH_AT, SOCKADDR_IN6, true)
    if (sys().getsockname(fd, address, address + LENGTH_AT) < 0) return -lastErrno()
    if (view.getUint16(0, true) === AF_INET6) return bytes.slice(SIN6_ADDR, SIN6_ADDR + 16)
    return Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...bytes.subarray(SIN_ADDR, SIN_ADDR + 4))
  })

/**
 * The route of packets; undefined: it is unknown, or they do not leave this machine. Addresses: as for `sourceAddress`.
 */
export const routeBetween = (source: Uint8Array, destination: Uint8Array): Route | undefined => {
  arena ??= mapArena(4096)
  const { address, bytes } = arena
  const fd = sys().socket(AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_ROUTE)
  if (fd < 0) return undefined
  try {
    const request = routeRequest(source, destination)
    bytes.set(request)
    if (Number(sys().send(fd, address, request.length, 0)) < 0) return undefined
    const length = Number(sys().recv(fd, address, ANSWER, 0))
    return length < 0 ? undefined : routeIn(bytes.subarray(0, length))
  } finally {
    close(fd)
  }
}

const DEFAULT_TTL = '/proc/sys/net/ipv4/ip_default_ttl'

/**
 * The hop limit of packets on a route, as Linux chooses it: that of the route, of IPv4 net.ipv4.ip_default_ttl;
 * undefined: not known.
 */
export const hopLimitBetween = (source: Uint8Array, destination: Uint8Array): number | undefined => {
  const { hopLimit } = routeBetween(source, destination) ?? {}
  if (hopLimit !== undefined || !isIpv4Mapped(destination)) return hopLimit
  try {
    return Number(readFileSync(DEFAULT_TTL, 'utf8')) || undefined
  } catch {
    return undefined
  }
}

/**
 * 0 if the system has a route from its address `source` to `destination` by the interface `scope`, as Linux wants it of
 * an adapter, otherwise -errno: ENETUNREACH without such a route, EHOSTUNREACH or EACCES if a route refuses, EINVAL
 * from a loopback address to another machine. Addresses: as for `sourceAddress`. `scope`: the index of the interface of
 * `source`; 0: any. Addresses of this machine are reached from each. Whether the destination answers is not known: no
 * packet is sent.
 */
export const routeError = (source: Uint8Array, destination: Uint8Array, scope: number): number => {
  const error = withRoute(destination, scope, source, () => 0)
  const leaving = error === 0 && scope !== 0 ? routeBetween(source, destination)?.interfaceIndex : undefined
  return leaving === undefined || leaving === scope ? error : -ENETUNREACH
}
