/*
 * IP over the device (RFC 4391; R31, R40). Class `ip_interface`: an interface with one address on the link of a device;
 * it answers ARP, neighbour discovery and echo requests. Class `ip_socket`: a descriptor for UDP datagrams or echo
 * requests of an interface, readable while datagrams wait. A full socket drops datagrams. Closing the descriptor
 * destroys the socket.
 *
 * Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d.
 */
import { IpProtocol } from '../../enums.ts'
import { MAX_MTU_BYTES } from '../../mtu.ts'
import {
  at,
  blob,
  bytes,
  CREATE,
  CREATE_FD,
  DESTROY,
  enumOf,
  method,
  objectClass,
  optional,
  QUERY,
  record,
  ref,
  u8,
  u16,
  u32,
  u64,
} from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'

const ADDRESS_BYTES = 16
/** Bytes of a socket's receive buffer: Linux's net.core.rmem_default. Each datagram takes its payload and 256 bytes. */
export const SOCKET_RECEIVE_BYTES = 212_992

/**
 * Numbers of packets. `dropped`: could not be sent, for example because no host has the address. `delivered`: passed to
 * a socket, also to a full one. Discarded packets: `malformed`; `checksum`: wrong checksum; `fragment`: fragments are
 * not supported; `foreign`: for another host, from a host that is not on the link, or of an unsupported protocol;
 * `unclaimed`: no socket has the port or echo identifier, or the socket is not in the multicast group. Other received
 * packets, for example of ARP, are for the interface itself.
 */
const IpStatistics = {
  received: at(0, u64(0)),
  sent: at(8, u64(0)),
  delivered: at(16, u64(0)),
  malformed: at(24, u64(0)),
  checksum: at(32, u64(0)),
  fragment: at(40, u64(0)),
  foreign: at(48, u64(0)),
  unclaimed: at(56, u64(0)),
  dropped: at(64, u64(0)),
}

const linkAttributes = {
  /** The link-layer address: queue pair and GID. */
  qpn: u32(64),
  gid: bytes(65, ADDRESS_BYTES),
  /** Maximum bytes of an IP packet. */
  mtu: u32(66),
}

export const IpInterfaceClass = objectClass('ip_interface', ClassId.ip_interface, {
  methods: {
    /**
     * EADDRINUSE if an interface of any device has the address, ENOMEM if the user has too many interfaces, EOPNOTSUPP
     * if the device has no UD queue pairs, EADDRNOTAVAIL if the port cannot join a group of the interface.
     */
    create: method(CREATE, {
      in: {
        address: bytes(1, ADDRESS_BYTES),
        /** Bits of the prefix: IPv4 1 to 32, default 24; IPv6 1 to 128, default 64. */
        prefixLength: optional(u8(2)),
      },
      out: linkAttributes,
    }),
    query: method(QUERY, {
      in: {},
      out: {
        ...linkAttributes,
        address: bytes(67, ADDRESS_BYTES),
        prefixLength: u8(68),
        /** Entries of the neighbour cache. */
        neighbours: u32(69),
        statistics: record(70, IpStatistics),
      },
    }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})

export const IpSocketClass = objectClass('ip_socket', ClassId.ip_socket, {
  identity: 'fd',
  methods: {
    create: method(CREATE_FD, {
      in: {
        interface: ref(1, 'ip_interface'),
        protocol: enumOf(2, IpProtocol),
        /** The UDP port, or the identifier of echo requests; EADDRINUSE if it is taken. 0 or absent: a free number. */
        port: optional(u16(3)),
      },
      out: {},
    }),
    query: method(QUERY, {
      in: {},
      out: {
        protocol: enumOf(64, IpProtocol),
        port: u16(65),
        /** Number of datagrams in the receive buffer. */
        waiting: u32(66),
        /** Number of datagrams that were dropped because the buffer was full. */
        overflowed: u64(67),
      },
    }),
    destroy: method(DESTROY, { in: {}, out: {} }),
    /**
     * Sends a datagram, or an echo request with `port` as sequence number. Fails with ENETUNREACH for an address that
     * is not on the link, with EMSGSIZE for a payload that does not fit in one packet, with EINVAL for an address of
     * the other family, an unspecified address or UDP port 0. The call does not find out whether a host has the
     * address.
     */
    send: method(CallNumber.ip_socket.send, {
      role: 'transfers',
      in: { address: bytes(1, ADDRESS_BYTES), port: u16(2), payload: blob(3, MAX_MTU_BYTES) },
      out: {},
    }),
    /**
     * Takes the oldest datagram or echo reply. `address`: the sender. `port`: the sender's UDP port, or the sequence
     * number of the echo reply. EAGAIN if there is none.
     */
    receive: method(CallNumber.ip_socket.receive, {
      role: 'transfers',
      in: {},
      out: { address: bytes(64, ADDRESS_BYTES), port: u16(65), payload: blob(66, MAX_MTU_BYTES) },
    }),
    /**
     * Joins a multicast group. EINVAL if the address is not a multicast address of the interface's family, EADDRINUSE
     * if the socket is a member already, ENOMEM if it is in too many groups.
     */
    join: method(CallNumber.ip_socket.join, { role: 'changes', in: { group: bytes(1, ADDRESS_BYTES) }, out: {} }),
    /** EADDRNOTAVAIL if the socket is not a member. */
    leave: method(CallNumber.ip_socket.leave, { role: 'undoes', in: { group: bytes(1, ADDRESS_BYTES) }, out: {} }),
  },
})
