/*
 * The source address that the system chooses for a destination, found by connecting a UDP socket. No packet is sent.
 */
import { type Arena, mapArena } from '../memory/mapping.ts'
import { lastErrno, libcFunctions } from '../native.ts'
import { AF_INET, AF_INET6 } from './socket-constants.ts'
import { close } from './sockets.ts'
import { putAddress } from './udp.ts'

const sys = libcFunctions({
  socket: 'int socket(int family, int type, int protocol)',
  connect: 'int connect(int fd, int64_t address, int length)',
  getsockname: 'int getsockname(int fd, int64_t address, int64_t length)',
})

const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000
/** RoCEv2's; any port would do. */
const PORT = 4791
/** Sizes of sockaddr_in and sockaddr_in6. */
const SOCKADDR_IN = 16
const SOCKADDR_IN6 = 28
/** Offsets of the address in sockaddr_in and sockaddr_in6. */
const SIN_ADDR = 4
const SIN6_ADDR = 8
/** Offset of the socklen_t behind the sockaddr in the arena. */
const LENGTH_AT = 64

let arena: Arena | undefined

/**
 * The source address for packets to `destination`, both 16 bytes, IPv4 as ::ffff:a.b.c.d; -errno if there is no route.
 * `scope`: the interface index of a link-local destination.
 */
export const sourceAddress = (destination: Uint8Array, scope: number): Uint8Array | number => {
  arena ??= mapArena(4096)
  const { address, bytes, view } = arena
  const length = putAddress(arena, 0, destination, PORT, scope)
  const isIpv4 = length === SOCKADDR_IN
  const fd = sys().socket(isIpv4 ? AF_INET : AF_INET6, SOCK_DGRAM_CLOEXEC, 0)
  if (fd < 0) return -lastErrno()
  try {
    if (sys().connect(fd, address, length) < 0) return -lastErrno()
    view.setInt32(LENGTH_AT, SOCKADDR_IN6, true)
    if (sys().getsockname(fd, address, address + LENGTH_AT) < 0) return -lastErrno()
    if (!isIpv4) return bytes.slice(SIN6_ADDR, SIN6_ADDR + 16)
    return Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...bytes.subarray(SIN_ADDR, SIN_ADDR + 4))
  } finally {
    close(fd)
  }
}
