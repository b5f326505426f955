/*
 * UDP sockets with batched system calls (docs/decisions/udp.md). See udp(7), ip(7), ipv6(7), cmsg(3).
 *
 * One call of sendmmsg or recvmmsg handles many messages. Everything that the calls read and write is in one arena,
 * laid out once, so nothing is allocated per packet. With UDP_SEGMENT the kernel or the network card cuts a message
 * into datagrams of equal size; with UDP_GRO equal datagrams are received as one message.
 *
 * Sockets are unconnected and never fragment (IP_PMTUDISC_DO): then Linux sends IPv4 identification 0, and 0, 1, 2 … in
 * segments, which ICRCs depend on. UDP checksums stay on, because UDP_SEGMENT requires them. Datagrams without a
 * checksum are received over IPv6 too (UDP_NO_CHECK6_RX). Opening throws SystemError; sending and receiving return a
 * number or -errno.
 */
import { EADDRINUSE, EINTR, SystemError } from '../errno.ts'
import { isWatched } from '../event-loop/poll.ts'
import { TWO_32 } from '../halves.ts'
import { type Arena, mapArena, releaseArena } from '../memory/mapping.ts'
import { check, libcFunctions, orErrno } from '../native.ts'
import { isIpv4Mapped } from './addresses.ts'
import {
  AF_INET,
  AF_INET6,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  MSG_TRUNC,
  SO_RCVBUF,
  SO_SNDBUF,
  SOL_SOCKET,
} from './socket-constants.ts'

const sys = libcFunctions({
  socket: 'int socket(int family, int type, int protocol)',
  bind: 'int bind(int fd, int64_t address, int length)',
  setsockopt: 'int setsockopt(int fd, int level, int option, int64_t value, int length)',
  getsockopt: 'int getsockopt(int fd, int level, int option, int64_t value, int64_t length)',
  sendmmsg: 'int sendmmsg(int fd, int64_t messages, unsigned int count, int flags)',
  recvmmsg: 'int recvmmsg(int fd, int64_t messages, unsigned int count, int flags, int64_t timeout)',
  ioctl: 'int ioctl(int fd, uint64_t request, int64_t argument)',
  close: 'int close(int fd)',
})

const SOCK_DGRAM_NONBLOCK_CLOEXEC = 2 | 0o4000 | 0o2000000
const SO_REUSEADDR = 2
const SO_RCVBUFFORCE = 33
const SOL_IP = 0
const IP_TOS = 1
const IP_TTL = 2
const IP_MTU_DISCOVER = 10
const IP_RECVTTL = 12
const IP_RECVTOS = 13
const IP_MULTICAST_IF = 32
const IP_MULTICAST_TTL = 33
const IP_ADD_MEMBERSHIP = 35
const IP_MULTICAST_ALL = 49
const SOL_IPV6 = 41
const IPV6_UNICAST_HOPS = 16
const IPV6_MULTICAST_IF = 17
const IPV6_MULTICAST_HOPS = 18
const IPV6_ADD_MEMBERSHIP = 20
const IPV6_MTU_DISCOVER = 23
const IPV6_MULTICAST_ALL = 29
const IPV6_V6ONLY = 26
const IPV6_RECVHOPLIMIT = 51
const IPV6_HOPLIMIT = 52
const IPV6_RECVTCLASS = 66
const IPV6_TCLASS = 67
const IPV6_FLOWINFO_SEND = 33
const IPV6_AUTOFLOWLABEL = 70
const PMTUDISC_DO = 2
const SOL_UDP = 17
const UDP_NO_CHECK6_RX = 102
const UDP_SEGMENT = 103
const UDP_GRO = 104
const SIOCGIFMTU = 0x8921

/** Requested bytes of the socket buffers. The system may grant less (net.core.rmem_max, wmem_max). */
const WANTED_BUFFER = 4 << 20
/** Of a socket that only sends: the least that the system grants. */
const NO_BUFFER = 0
/** Requested bytes of the receive buffer for root, beyond those limits. */
const FORCED_BUFFER = 32 << 20
/** Default hop limit. */
const DEFAULT_HOPS = 64
/** Bytes of a receive buffer: the maximum UDP payload fits. */
const RECEIVE_BYTES = 65536
/**
 * Distance of receive buffers, and offset of the first. Each begins at 4 modulo 16, so that the payload after a BTH of
 * 12 bytes is aligned for copies (transport/engine/run.ts).
 */
const RECEIVE_STRIDE = RECEIVE_BYTES + 64
const RECEIVE_PHASE = 4

/** Offsets in struct mmsghdr: the fields of its msghdr, and `LENGTH`, the bytes of a received message. */
const Mmsghdr = {
  NAME: 0,
  NAMELEN: 8,
  IOV: 16,
  IOVLEN: 24,
  CONTROL: 32,
  CONTROLLEN: 40,
  FLAGS: 48,
  LENGTH: 56,
} as const
/** Bytes of the arena for a struct mmsghdr, a struct iovec {base u64, len u64}, and a sockaddr. */
const HEADER = 64
const IOV = 16
const IOV_LEN = 8
const NAME = 32
// CONTROL: bytes of a message's control data, up to three control messages of an int (CMSG bytes each): struct cmsghdr
// {len u64, level, type}, data, padded to 8.
const CMSG = 24
const CONTROL = 3 * CMSG
const CMSG_LEN = 20
/** Offset of sin6_flowinfo. */
const FLOW_INFO = 4
/** Sizes of sockaddr_in and sockaddr_in6. */
const ADDRESS4 = 16
const ADDRESS6 = 28

/**
 * Offsets in the scratch arena: the socklen_t for an option, which is at 0; a sockaddr; a struct ifreq {char name[16];
 * int mtu}.
 */
const SCRATCH_LENGTH = 8
const SCRATCH_SOCKADDR = 64
const SCRATCH_IFREQ = 128
const IFREQ_MTU = 16
const IFREQ_BYTES = 40
/** Maximum bytes of an interface's name, without the terminating NUL. */
const MAX_NAME_BYTES = 15

/** A socket bound to one address. */
export interface UdpSocket {
  readonly fd: number
  readonly version: 4 | 6
  /** Bytes of the receive buffer as the kernel counts, with the memory around the payloads. */
  readonly receiveBuffer: number
}

let scratch: Arena | undefined
const scratchArena = (): Arena => {
  scratch ??= mapArena(4096)
  return scratch
}

const setOption = (fd: number, level: number, option: number, value: number): number => {
  const { address, view } = scratchArena()
  view.setInt32(0, value, true)
  return orErrno(sys().setsockopt(fd, level, option, address, 4))
}
const getOption = (fd: number, level: number, option: number): number => {
  const { address, view } = scratchArena()
  view.setInt32(SCRATCH_LENGTH, 4, true)
  check('getsockopt', sys().getsockopt(fd, level, option, address, address + SCRATCH_LENGTH))
  return view.getInt32(0, true)
}

/** `address`: 16 bytes, IPv4 as ::ffff:a.b.c.d. */
export const isMulticast = (address: Uint8Array): boolean =>
  isIpv4Mapped(address) ? address[12]! >> 4 === 14 : address[0] === 0xff

/**
 * Selects the interface that sends multicast datagrams. As is Linux's default, they are also looped back to this
 * machine.
 */
const setMulticastInterface = (fd: number, version: 4 | 6, interfaceIndex: number): void => {
  const { address, bytes, view } = scratchArena()
  bytes.fill(0, 0, 12)
  // IPv4: struct ip_mreqn. IPv6: an int.
  view.setInt32(version === 4 ? 8 : 0, interfaceIndex, true)
  const [level, option, hops] =
    version === 4 ? [SOL_IP, IP_MULTICAST_IF, IP_MULTICAST_TTL] : [SOL_IPV6, IPV6_MULTICAST_IF, IPV6_MULTICAST_HOPS]
  // The socket is also useful without multicast.
  sys().setsockopt(fd, level, option, address, version === 4 ? 12 : 4)
  setOption(fd, level, hops, DEFAULT_HOPS)
}

/** Joins a group on an interface. The socket does not receive other groups that this machine has joined. */
const joinGroup = (fd: number, group: Uint8Array, interfaceIndex: number): void => {
  const is4 = isIpv4Mapped(group)
  const level = is4 ? SOL_IP : SOL_IPV6
  setOption(fd, level, is4 ? IP_MULTICAST_ALL : IPV6_MULTICAST_ALL, 0)
  const { address, bytes, view } = scratchArena()
  bytes.fill(0, 0, 20)
  bytes.set(is4 ? group.subarray(12) : group, 0)
  // IPv4: struct ip_mreqn. IPv6: struct ipv6_mreq.
  view.setInt32(is4 ? 8 : 16, interfaceIndex, true)
  const [option, length] = is4 ? [IP_ADD_MEMBERSHIP, 12] : [IPV6_ADD_MEMBERSHIP, 20]
  check('setsockopt of the multicast membership', sys().setsockopt(fd, level, option, address, length))
}

/**
 * Writes a sockaddr at offset `at` of the arena, and returns its length. `address`: 16 bytes, IPv4 as ::ffff:a.b.c.d.
 * `scope`: the interface index of a link-local address or group.
 */
export const putAddress = (arena: Arena, at: number, address: Uint8Array, port: number, scope: number): number => {
  const { bytes, view } = arena
  bytes.fill(0, at, at + NAME)
  view.setUint16(at + 2, port)
  if (isIpv4Mapped(address)) {
    view.setUint16(at, AF_INET, true)
    bytes.set(address.subarray(12), at + 4)
    return ADDRESS4
  }
  view.setUint16(at, AF_INET6, true)
  bytes.set(address, at + 8)
  // Only link-local addresses and groups of an interface (ff01::) or link (ff02::) have a scope.
  const first = address[0]!
  const second = address[1]!
  const isLinkLocal = first === 0xfe && (second & 0xc0) === 0x80
  const isScopedGroup = first === 0xff && (second & 15) <= 2
  if (isLinkLocal || isScopedGroup) view.setUint32(at + 24, scope, true)
  return ADDRESS6
}

/** 'send': what arrives is of no interest. Others: see `bind`. */
type Claim = 'own' | 'spare' | 'send'

/**
 * Binds. A later 'own' binding of the address may replace a 'spare' one. Linux lets two sockets share an address if
 * both have SO_REUSEADDR at the second bind, and delivers to the newer socket. So a 'spare' binding keeps SO_REUSEADDR,
 * and an 'own' binding has it only during the bind.
 */
const bind = (fd: number, address: number, length: number, claim: Claim): void => {
  let result = orErrno(sys().bind(fd, address, length))
  if (result === -EADDRINUSE && claim === 'own') {
    setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1)
    result = orErrno(sys().bind(fd, address, length))
    setOption(fd, SOL_SOCKET, SO_REUSEADDR, 0)
  }
  if (result < 0) throw new SystemError('bind', -result)
  if (claim === 'spare') setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1)
}

/**
 * A non-blocking socket bound to `address` (16 bytes, IPv4 as ::ffff:a.b.c.d) and `port`, 0 for any. If the address is
 * multicast, the socket joins the group on interface `scope`; any number of sockets may. `scope`: the interface index,
 * for a link-local address and for multicast. `claim` 'spare': a later socket that binds the address with 'own' gets
 * the datagrams while it is open; 'send': the socket keeps next to nothing of what arrives. Throws SystemError:
 * EADDRNOTAVAIL, EADDRINUSE, EACCES, ENODEV.
 */
export const openUdpSocket = (address: Uint8Array, port: number, scope = 0, claim: Claim = 'own'): UdpSocket => {
  const version = isIpv4Mapped(address) ? 4 : 6
  const family = version === 4 ? AF_INET : AF_INET6
  const fd = check('socket', sys().socket(family, SOCK_DGRAM_NONBLOCK_CLOEXEC, 0))
  try {
    const options: readonly (readonly [number, number, number])[] =
      version === 4
        ? [
            [SOL_IP, IP_MTU_DISCOVER, PMTUDISC_DO],
            [SOL_IP, IP_TTL, DEFAULT_HOPS],
            [SOL_IP, IP_RECVTTL, 1],
            [SOL_IP, IP_RECVTOS, 1],
          ]
        : [
            [SOL_IPV6, IPV6_V6ONLY, 1],
            [SOL_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DO],
            [SOL_IPV6, IPV6_UNICAST_HOPS, DEFAULT_HOPS],
            [SOL_IPV6, IPV6_RECVHOPLIMIT, 1],
            [SOL_IPV6, IPV6_RECVTCLASS, 1],
            [SOL_UDP, UDP_NO_CHECK6_RX, 1],
            [SOL_IPV6, IPV6_FLOWINFO_SEND, 1],
            [SOL_IPV6, IPV6_AUTOFLOWLABEL, 0],
          ]
    for (const [level, option, value] of options)
      check(`setsockopt(${level}, ${option})`, setOption(fd, level, option, value))
    // Optional: an older kernel lacks UDP_GRO, and a limit may reduce the buffers.
    if (claim !== 'send') setOption(fd, SOL_UDP, UDP_GRO, 1)
    // Root may exceed the limit: for datagrams that arrive while this process is not scheduled.
    if (claim === 'send') setOption(fd, SOL_SOCKET, SO_RCVBUF, NO_BUFFER)
    else if (setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, FORCED_BUFFER) < 0)
      setOption(fd, SOL_SOCKET, SO_RCVBUF, WANTED_BUFFER)
    setOption(fd, SOL_SOCKET, SO_SNDBUF, WANTED_BUFFER)
    const isGroup = isMulticast(address)
    if (isGroup) check('setsockopt', setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1))
    else if (scope !== 0) setMulticastInterface(fd, version, scope)
    const memory = scratchArena()
    const length = putAddress(memory, SCRATCH_SOCKADDR, address, port, scope)
    bind(fd, memory.address + SCRATCH_SOCKADDR, length, claim)
    if (isGroup) joinGroup(fd, address, scope)
    return { fd, version, receiveBuffer: getOption(fd, SOL_SOCKET, SO_RCVBUF) }
  } catch (error) {
    sys().close(fd)
    throw error
  }
}

/** Throws if the socket is watched. */
export const closeUdpSocket = ({ fd }: UdpSocket): void => {
  if (isWatched(fd)) throw new Error(`close of fd ${fd} while it is watched: stop the watch first`)
  sys().close(fd)
}

/** Largest IP packet of an interface, bytes; undefined if no interface has this name. */
export const interfaceMtu = (name: string): number | undefined => {
  const encoded = Buffer.from(name)
  if (encoded.length === 0 || encoded.length > MAX_NAME_BYTES) return undefined
  const fd = check('socket', sys().socket(AF_INET, SOCK_DGRAM_NONBLOCK_CLOEXEC, 0))
  try {
    const { address, bytes, view } = scratchArena()
    bytes.fill(0, SCRATCH_IFREQ, SCRATCH_IFREQ + IFREQ_BYTES)
    bytes.set(encoded, SCRATCH_IFREQ)
    const result = sys().ioctl(fd, SIOCGIFMTU, address + SCRATCH_IFREQ)
    return result < 0 ? undefined : view.getInt32(SCRATCH_IFREQ + IFREQ_MTU, true)
  } finally {
    sys().close(fd)
  }
}

interface UdpSizes {
  /** Bytes at the start of the arena, where the caller builds datagrams. */
  readonly staging: number
  /** Number of message headers for sending. */
  readonly messages: number
  /** Number of addresses to send to. */
  readonly destinations: number
  /** Number of receive buffers, 64 KiB each. */
  readonly receives: number
}

/** An arena for the messages of several sockets. */
export interface UdpBatches {
  readonly arena: Arena
  /** Sets destination number `slot`. `scope`: the interface index of a link-local address. `flowLabel`: of IPv6. */
  setDestination(slot: number, address: Uint8Array, port: number, scope: number, flowLabel: number): void
  /**
   * Sets message `slot`: `bytes` bytes (up to 65,507) at `offset` of the arena, to destination number `destination`,
   * cut into datagrams of `segment` bytes; 0: one datagram. `hopLimit` 0: DEFAULT_HOPS.
   */
  putMessage(
    slot: number,
    offset: number,
    bytes: number,
    destination: number,
    segment: number,
    hopLimit: number,
    trafficClass: number,
  ): void
  /** Sends messages [first, first + count). Returns the number of sent messages, or -errno of the first. */
  send(socket: UdpSocket, first: number, count: number): number
  /**
   * Receives into buffers [first, first + count). Returns the number of filled buffers, or -errno; -EAGAIN if no
   * datagram has arrived.
   */
  receive(socket: UdpSocket, first: number, count: number): number
  /** Offset of a receive buffer in the arena. */
  bufferAt(buffer: number): number
  /** Releases the arena: no other function may be called afterwards. */
  close(): void
  /** By buffer, set by `receive`: bytes of all its datagrams; -1: the message was truncated. */
  readonly lengths: Int32Array
  /** By buffer: bytes of each datagram; the last datagram may be shorter. */
  readonly segments: Int32Array
  readonly hopLimits: Uint8Array
  readonly trafficClasses: Uint8Array
  /** By buffer: the sender's port, and the four words of the sender's address (16 bytes, big-endian). */
  readonly ports: Uint16Array
  readonly addresses: Uint32Array
}

const alignToPage = (offset: number): number => Math.ceil(offset / 4096) * 4096
const swap32 = (word: number): number =>
  ((word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)) >>> 0

export const createUdpBatches = ({ staging, messages, destinations, receives }: UdpSizes): UdpBatches => {
  const buffers = alignToPage(staging)
  const headers = alignToPage(buffers + receives * RECEIVE_STRIDE)
  const vectors = alignToPage(headers + (messages + receives) * HEADER)
  const controls = alignToPage(vectors + (messages + receives) * IOV)
  const names = alignToPage(controls + (messages + receives) * CONTROL)
  const arena = mapArena(names + (destinations + receives) * NAME)
  const { address, u32 } = arena
  const u16 = new Uint16Array(arena.buffer)
  const baseLo = address % TWO_32
  const baseHi = Math.floor(address / TWO_32)
  const nameLengths = new Uint8Array(destinations)

  const bufferAt = (buffer: number): number => buffers + RECEIVE_PHASE + buffer * RECEIVE_STRIDE

  /** Stores the address of byte `target` of the arena as a pointer at `at`. */
  const putPointer = (at: number, target: number): void => {
    const lo = baseLo + target
    u32[at >> 2] = lo
    u32[(at >> 2) + 1] = lo >= TWO_32 ? baseHi + 1 : baseHi
  }
  for (let i = 0; i < messages + receives; i++) {
    const header = headers + i * HEADER
    putPointer(header + Mmsghdr.IOV, vectors + i * IOV)
    u32[(header + Mmsghdr.IOVLEN) >> 2] = 1
    putPointer(header + Mmsghdr.CONTROL, controls + i * CONTROL)
    if (i < messages) continue
    putPointer(header + Mmsghdr.NAME, names + (destinations + i - messages) * NAME)
    putPointer(vectors + i * IOV, bufferAt(i - messages))
    u32[(vectors + i * IOV + IOV_LEN) >> 2] = RECEIVE_BYTES
  }

  const putControl = (at: number, level: number, type: number, length: number, value: number): void => {
    const word = at >> 2
    u32[word] = length
    u32[word + 1] = 0
    u32[word + 2] = level
    u32[word + 3] = type
    u32[word + 4] = value
  }

  const lengths = new Int32Array(receives)
  const segments = new Int32Array(receives)
  const hopLimits = new Uint8Array(receives)
  const trafficClasses = new Uint8Array(receives)
  const ports = new Uint16Array(receives)
  const addresses = new Uint32Array(4 * receives)

  /** Sets the arrays above from the header, address and control data that the kernel wrote. */
  const readMessage = (buffer: number, version: 4 | 6): void => {
    const i = messages + buffer
    const header = headers + i * HEADER
    const isTruncated = (u32[(header + Mmsghdr.FLAGS) >> 2]! & MSG_TRUNC) !== 0
    const length = isTruncated ? -1 : u32[(header + Mmsghdr.LENGTH) >> 2]!
    lengths[buffer] = length
    segments[buffer] = length
    hopLimits[buffer] = 0
    trafficClasses[buffer] = 0
    const nameWord = (names + (destinations + buffer) * NAME) >> 2
    const port = u16[2 * nameWord + 1]!
    ports[buffer] = ((port & 0xff) << 8) | (port >> 8)
    const firstWord = 4 * buffer
    if (version === 4) {
      addresses[firstWord] = 0
      addresses[firstWord + 1] = 0
      addresses[firstWord + 2] = 0xffff
      addresses[firstWord + 3] = swap32(u32[nameWord + 1]!)
    } else for (let word = 0; word < 4; word++) addresses[firstWord + word] = swap32(u32[nameWord + 2 + word]!)

    let at = (controls + i * CONTROL) >> 2
    const end = at + (u32[(header + Mmsghdr.CONTROLLEN) >> 2]! >> 2)
    while (at + 4 < end) {
      const level = u32[at + 2]
      const type = u32[at + 3]
      const value = u32[at + 4]!
      if (level === SOL_UDP && type === UDP_GRO) segments[buffer] = value
      else if (type === (version === 4 ? IP_TTL : IPV6_HOPLIMIT)) hopLimits[buffer] = value
      else if (type === (version === 4 ? IP_TOS : IPV6_TCLASS)) trafficClasses[buffer] = value
      const size = (u32[at]! + 7) & ~7
      if (size < 16) break
      at += size >> 2
    }
  }

  return {
    arena,
    setDestination(slot, destination, port, scope, flowLabel) {
      const at = names + slot * NAME
      nameLengths[slot] = putAddress(arena, at, destination, port, scope)
      if (nameLengths[slot] === ADDRESS6) arena.view.setUint32(at + FLOW_INFO, flowLabel)
    },
    putMessage(slot, offset, bytes, destination, segment, hopLimit, trafficClass) {
      const header = headers + slot * HEADER
      const vector = vectors + slot * IOV
      putPointer(vector, offset)
      u32[(vector + IOV_LEN) >> 2] = bytes
      putPointer(header + Mmsghdr.NAME, names + destination * NAME)
      const nameLength = nameLengths[destination]!
      u32[(header + Mmsghdr.NAMELEN) >> 2] = nameLength
      const control = controls + slot * CONTROL
      let used = 0
      if (segment > 0) {
        // The only u16 among the control messages.
        putControl(control, SOL_UDP, UDP_SEGMENT, CMSG_LEN - 2, segment)
        used = CMSG
      }
      const is4 = nameLength === ADDRESS4
      if (hopLimit !== DEFAULT_HOPS && hopLimit !== 0) {
        putControl(control + used, is4 ? SOL_IP : SOL_IPV6, is4 ? IP_TTL : IPV6_HOPLIMIT, CMSG_LEN, hopLimit)
        used += CMSG
      }
      if (trafficClass !== 0) {
        putControl(control + used, is4 ? SOL_IP : SOL_IPV6, is4 ? IP_TOS : IPV6_TCLASS, CMSG_LEN, trafficClass)
        used += CMSG
      }
      u32[(header + Mmsghdr.CONTROLLEN) >> 2] = used
    },
    send(socket, first, count) {
      const at = address + headers + first * HEADER
      for (;;) {
        const sent = orErrno(sys().sendmmsg(socket.fd, at, count, MSG_DONTWAIT | MSG_NOSIGNAL))
        if (sent !== -EINTR) return sent
      }
    },
    receive(socket, first, count) {
      const header = headers + (messages + first) * HEADER
      for (let i = 0, at = header; i < count; i++, at += HEADER) {
        u32[(at + Mmsghdr.NAMELEN) >> 2] = NAME
        u32[(at + Mmsghdr.CONTROLLEN) >> 2] = CONTROL
      }
      let received: number
      do received = orErrno(sys().recvmmsg(socket.fd, address + header, count, MSG_DONTWAIT, 0))
      while (received === -EINTR)
      for (let i = 0; i < received; i++) readMessage(first + i, socket.version)
      return received
    },
    bufferAt,
    close: () => releaseArena(arena),
    lengths,
    segments,
    hopLimits,
    trafficClasses,
    ports,
    addresses,
  }
}
