/*
 * Network interfaces of this network namespace, their addresses and neighbours, kept current by a rtnetlink socket. At
 * the start, and when the socket has dropped messages (ENOBUFS), the kernel dumps all of them. Between dumps each
 * change is applied when its message is received. Without netlink there is no table.
 */
import { EAGAIN, ENOBUFS, SystemError } from '../errno.ts'
import { type Watch, watch } from '../event-loop/poll.ts'
import { type Arena, mapArena } from '../memory/mapping.ts'
import { check, libcFunctions, orErrno } from '../native.ts'
import {
  type AddressMessage,
  type Dump,
  dumpRequest,
  hasInterruptedDump,
  type LinkMessage,
  type NeighbourMessage,
  parseRouteMessages,
  RTM_GETADDR,
  RTM_GETLINK,
  RTM_GETNEIGH,
} from './route-messages.ts'
import { AF_NETLINK, NETLINK_ROUTE } from './socket-constants.ts'

const sys = libcFunctions({
  socket: 'int socket(int family, int type, int protocol)',
  bind: 'int bind(int fd, int64_t address, int length)',
  send: 'int64_t send(int fd, int64_t bytes, uint64_t length, int flags)',
  recv: 'int64_t recv(int fd, int64_t bytes, uint64_t length, int flags)',
  close: 'int close(int fd)',
})

const SOCK_RAW_NONBLOCK_CLOEXEC = 3 | 0o4000 | 0o2000000
// RTMGRP_LINK, RTMGRP_NEIGH, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
const GROUPS = 0x1 | 0x4 | 0x10 | 0x100
/** Size of struct sockaddr_nl: family u16 at 0, groups u32 at 8. */
const SOCKADDR = 12
/** Bytes of the receive buffer; a dump arrives in datagrams of at most 32 KiB. */
const RECEIVE_BYTES = 0x1_0000

/** The properties of an interface. */
export type NetworkInterface = Omit<LinkMessage, 'kind' | 'isPresent'>

export interface InterfaceListener {
  /** Interface `index` was added or changed; undefined: removed. */
  link(index: number, link: NetworkInterface | undefined): void
  /** An address (16 bytes, IPv4 as ::ffff:a.b.c.d) was added or removed. */
  address(index: number, address: Uint8Array, isPresent: boolean): void
  /** An address on the link of an interface (16 bytes) has a new MAC, in hexadecimal. */
  neighbour(index: number, address: Uint8Array, mac: string): void
}

export interface Interfaces {
  /** All interfaces by index. The map changes, so it must not be kept. */
  links(): ReadonlyMap<number, NetworkInterface>
  /** The addresses of an interface, newer ones last. */
  addresses(index: number): Uint8Array[]
  /** The interface that has an address. */
  withAddress(address: Uint8Array): NetworkInterface | undefined
  /** The MAC of an address (16 bytes) on the link of an interface, in hexadecimal; undefined if unknown. */
  neighbourOf(index: number, address: Uint8Array): string | undefined
  /** Reports every change from now on. */
  listen(listener: InterfaceListener): void
  /** Must be called before the process can end. */
  close(): void
}

const keyOf = (address: Uint8Array): string => Buffer.from(address).toString('hex')
const addressKey = (index: number, address: Uint8Array, prefix = ''): string => `${index} ${keyOf(address)}${prefix}`

/** An address of an interface, with its prefixes (`AddressMessage`). */
interface AssignedAddress {
  readonly address: Uint8Array
  readonly prefixes: Set<string>
}

const isSameLink = (a: NetworkInterface, b: NetworkInterface): boolean =>
  a.name === b.name &&
  a.mtu === b.mtu &&
  a.isUp === b.isUp &&
  a.hasCarrier === b.hasCarrier &&
  a.vlan?.id === b.vlan?.id &&
  keyOf(a.mac) === keyOf(b.mac)

/** What a datagram's messages say about the dump in progress. */
interface DumpProgress {
  /** The dump's error number, 0 for success; undefined: the dump has not ended. */
  readonly ended: number | undefined
  /** The list has changed during the dump, so the dump may lack entries (NLM_F_DUMP_INTR). */
  readonly isInterrupted: boolean
}

/** The table. `begin` is called before the dumps of all three lists, `end` after them if they are complete. */
export const createInterfaceTable = () => {
  const links = new Map<number, NetworkInterface>()
  const addresses = new Map<number, Map<string, AssignedAddress>>()
  /** MACs in hexadecimal, by `addressKey`. */
  const neighbours = new Map<string, string>()
  const listeners: InterfaceListener[] = []
  /** Interfaces (by index), addresses and neighbours (by `addressKey`) listed since `begin`; undefined after `end`. */
  let listed: Set<string> | undefined

  const setAddress = ({ index, address, prefix, isPresent }: Omit<AddressMessage, 'kind'>): void => {
    const key = keyOf(address)
    const ofInterface = addresses.get(index) ?? new Map<string, AssignedAddress>()
    addresses.set(index, ofInterface)
    const known = ofInterface.get(key)
    if (isPresent && known !== undefined) known.prefixes.add(prefix)
    else if (isPresent) ofInterface.set(key, { address, prefixes: new Set([prefix]) })
    else if (known?.prefixes.delete(prefix) && known.prefixes.size === 0) ofInterface.delete(key)
    if (ofInterface.has(key) === (known !== undefined)) return
    for (const listener of listeners) listener.address(index, address, isPresent)
  }
  /** Removes the prefixes of an interface's addresses that are not `isKept`. */
  const removeAddresses = (index: number, isKept: (address: Uint8Array, prefix: string) => boolean): void => {
    for (const { address, prefixes } of [...(addresses.get(index)?.values() ?? [])])
      for (const prefix of [...prefixes])
        if (!isKept(address, prefix)) setAddress({ index, address, prefix, isPresent: false })
  }
  const setNeighbour = ({ index, address, isPresent, mac }: NeighbourMessage): void => {
    const key = addressKey(index, address)
    if (!isPresent) neighbours.delete(key)
    else listed?.add(key)
    const macText = keyOf(mac)
    // Without a MAC the address is being resolved again; its previous MAC stays.
    if (!isPresent || mac.length === 0 || neighbours.get(key) === macText) return
    neighbours.set(key, macText)
    for (const listener of listeners) listener.neighbour(index, address, macText)
  }
  const removeLink = (index: number): void => {
    removeAddresses(index, () => false)
    addresses.delete(index)
    if (links.delete(index)) for (const listener of listeners) listener.link(index, undefined)
  }
  const setLink = (link: NetworkInterface): void => {
    const before = links.get(link.index)
    if (before !== undefined && isSameLink(before, link)) return
    links.set(link.index, link)
    for (const listener of listeners) listener.link(link.index, link)
  }

  return {
    links,
    withAddress: (address: Uint8Array): NetworkInterface | undefined => {
      const key = keyOf(address)
      for (const [index, ofInterface] of addresses) if (ofInterface.has(key)) return links.get(index)
      return undefined
    },
    addresses: (index: number): Uint8Array[] =>
      [...(addresses.get(index)?.values() ?? [])].map(({ address }) => address),
    neighbourOf: (index: number, address: Uint8Array): string | undefined => neighbours.get(addressKey(index, address)),
    listen: (listener: InterfaceListener): void => void listeners.push(listener),
    begin: (): void => {
      listed = new Set()
    },
    /** Applies the messages of one datagram. */
    apply: (datagram: Uint8Array): DumpProgress => {
      let ended: number | undefined
      for (const message of parseRouteMessages(datagram)) {
        if (message.kind === 'done') ended = message.errno
        else if (message.kind === 'address') {
          setAddress(message)
          if (message.isPresent) listed?.add(addressKey(message.index, message.address, message.prefix))
        } else if (message.kind === 'neighbour') setNeighbour(message)
        else if (message.isPresent) {
          const { kind: _kind, isPresent: _present, ...link } = message
          setLink(link)
          listed?.add(String(message.index))
        } else removeLink(message.index)
      }
      return { ended, isInterrupted: hasInterruptedDump(datagram) }
    },
    /** Removes interfaces, addresses and neighbours that were not listed since `begin`. */
    end: (): void => {
      for (const index of [...links.keys()]) if (!listed?.has(String(index))) removeLink(index)
      for (const index of addresses.keys())
        removeAddresses(index, (address, prefix) => listed?.has(addressKey(index, address, prefix)) === true)
      for (const key of [...neighbours.keys()]) if (!listed?.has(key)) neighbours.delete(key)
      listed = undefined
    },
  }
}

/** The netlink socket. */
interface RouteSocket {
  /** Requests a dump. Throws SystemError. */
  request(type: Dump): void
  /** The next datagram, valid until the next call, or -errno. */
  receive(): Uint8Array | number
}

/**
 * Keeps the table current. The returned function applies all waiting messages, and reads all lists again if messages
 * were dropped. If it returns false, messages were dropped meanwhile, and it must be called again. Throws SystemError
 * if the socket or a dump has failed.
 */
export const createTableReader = (
  table: ReturnType<typeof createInterfaceTable>,
  { request, receive }: RouteSocket,
): (() => boolean) => {
  /** The lists must be read: at the start, and after ENOBUFS. */
  let isOutdated = true

  /** Applies all waiting changes. After ENOBUFS the kernel drops changes until none waits. */
  const applyWaiting = (): void => {
    for (;;) {
      const datagram = receive()
      if (typeof datagram !== 'number') table.apply(datagram)
      else if (datagram === -ENOBUFS) isOutdated = true
      else if (datagram === -EAGAIN) return
      else throw new SystemError('netlink: recv', -datagram)
    }
  }
  /** Requests a dump and applies it. The kernel generates the dump in our recv calls, so they do not return EAGAIN. */
  const dump = (type: Dump): void => {
    request(type)
    for (;;) {
      const datagram = receive()
      if (typeof datagram === 'number') {
        if (datagram !== -ENOBUFS) throw new SystemError('netlink: recv', -datagram)
        // Changes were dropped. The dump continues.
        isOutdated = true
        continue
      }
      const { ended, isInterrupted } = table.apply(datagram)
      // ENOBUFS: the buffer was full when the dump started. The dump continues.
      if (isInterrupted || ended === ENOBUFS) isOutdated = true
      if (ended === undefined || ended === ENOBUFS) continue
      // Some sandboxes cannot list neighbours.
      if (ended === 0 || type === RTM_GETNEIGH) return
      throw new SystemError('netlink: list of interfaces', ended)
    }
  }

  return () => {
    // Waiting changes are older than the dumps: they must not count as listed.
    applyWaiting()
    if (!isOutdated) return true
    isOutdated = false
    table.begin()
    dump(RTM_GETLINK)
    dump(RTM_GETADDR)
    dump(RTM_GETNEIGH)
    if (!isOutdated) table.end()
    return !isOutdated
  }
}

let memory: Arena | undefined

/** Undefined if netlink is not available. */
export const openInterfaces = (): Interfaces | undefined => {
  memory ??= mapArena(RECEIVE_BYTES)
  const { address, bytes, view } = memory
  const fd = orErrno(sys().socket(AF_NETLINK, SOCK_RAW_NONBLOCK_CLOEXEC, NETLINK_ROUTE))
  if (fd < 0) return undefined
  const table = createInterfaceTable()
  let watching: Watch | undefined
  let nextRead: NodeJS.Immediate | undefined

  const readTable = createTableReader(table, {
    request: type => {
      const request = dumpRequest(type)
      bytes.set(request)
      check('netlink: send', sys().send(fd, address, request.length, 0))
    },
    receive: () => {
      const length = orErrno(sys().recv(fd, address, RECEIVE_BYTES, 0))
      return length > 0 ? bytes.subarray(0, length) : length
    },
  })

  const close = (): void => {
    clearImmediate(nextRead)
    watching?.stop()
    sys().close(fd)
  }
  /** Reads the table; if messages were dropped, again in the next turn of the event loop. */
  const read = (): void => {
    clearImmediate(nextRead)
    nextRead = readTable() ? undefined : setImmediate(onReadable)
  }
  const onReadable = (): void => {
    try {
      read()
    } catch (error) {
      // The table stays as it is, and later changes are not followed.
      if (!(error instanceof SystemError)) throw error
      watching?.stop()
    }
  }

  try {
    bytes.fill(0, 0, SOCKADDR)
    view.setUint16(0, AF_NETLINK, true)
    view.setUint32(8, GROUPS, true)
    check('netlink: bind', sys().bind(fd, address, SOCKADDR))
    read()
    watching = watch(fd, { readable: true }, onReadable)
  } catch (error) {
    if (!(error instanceof SystemError)) throw error
    close()
    return undefined
  }
  const { links, addresses, withAddress, neighbourOf, listen } = table
  return { links: () => links, addresses, withAddress, neighbourOf, listen, close }
}
