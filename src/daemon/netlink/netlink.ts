/*
 * The programs' NETLINK_RDMA sockets, with ports, groups, options and multicast, as Linux's kernel has for netlink
 * sockets. requests.ts answers the requests.
 */

import type { Account } from '../../core/model.ts'
import { orRelease, take } from '../../core/objects/limits.ts'
import { oneSlice } from '../../host/event-loop/slices.ts'
import { callError } from '../../spec/errno.ts'
import { NetlinkOption } from '../../spec/linux/nldev.ts'
import { type Message, readMessages } from '../../uapi/nldev/messages.ts'
import type { Containment } from '../containment.ts'
import type { ToolShare } from '../tool-time.ts'
import { createNetlinkSocket, type NetlinkSocket } from './netlink-socket.ts'

/** The network namespace of which a descriptor of the sender is; undefined: of none, or the sender is not known. */
export type NamespaceOfFd = (fd: number) => string | undefined

/** Answers a message on a socket. Returns a promise if the answer takes long. */
export type AnswerMessage = (
  socket: NetlinkSocket,
  message: Message,
  isAdmin: boolean,
  namespaceOfFd: NamespaceOfFd,
) => Promise<void> | undefined

const noDescriptors: NamespaceOfFd = () => undefined

interface NetlinkParts {
  readonly containment: Containment
  readonly answer: AnswerMessage
  /** Called when a socket was closed. */
  onClosed?(): void
}

/** The sender of a request. */
interface Sender {
  /** In the sender's own namespace; 0: unknown. */
  readonly pid: number
  /** Whether the program may send requests that need CAP_NET_ADMIN on Linux. */
  readonly isAdmin: boolean
  readonly namespaceOfFd?: NamespaceOfFd
}

export interface Netlink {
  /**
   * A new socket. `time`: for its requests. `namespace`: see `NetlinkSocket`. The caller passes `peerEnd` to the
   * program. Throws CallError EMFILE, ENFILE; SystemError.
   */
  open(type: number, isAdmin: boolean, account: Account, time: ToolShare, namespace?: string): NetlinkSocket
  /** `target`: 'socket:[inode]', the target of the program's end in /proc/PID/fd. */
  find(target: string): NetlinkSocket | undefined
  /**
   * Binds a port (0: a free port, preferably `pid`) and sets the groups, a bit mask. For a socket with a port, `port`
   * must be that port. Throws CallError EINVAL, EADDRINUSE.
   */
  bind(socket: NetlinkSocket, pid: number, port: number, groups: number): void
  /** Sets or gets an option of level SOL_NETLINK. Throws CallError ENOPROTOOPT, EINVAL. */
  setOption(socket: NetlinkSocket, option: number, value: number): void
  getOption(socket: NetlinkSocket, option: number): number
  /** Answers the messages of a datagram. Returns a promise if the answers take long. */
  receive(socket: NetlinkSocket, sender: Sender, datagram: Uint8Array): Promise<void> | undefined
  /** Sends a datagram to the members of a group that `mayReceive`. */
  multicast(group: number, datagram: Uint8Array, mayReceive?: (socket: NetlinkSocket) => boolean): void
  readonly count: number
  closeAll(): void
}

/** Linux uses groups up to 4. NetlinkOperation.NAME answers groups and port (32 bits) as one safe integer. */
const MAX_GROUPS = 20
const { ADD_MEMBERSHIP, DROP_MEMBERSHIP, LIST_MEMBERSHIPS } = NetlinkOption
const KNOWN_OPTIONS: ReadonlySet<number> = new Set(Object.values(NetlinkOption))
/** The first port for programs whose pid is unknown or in use as a port. As in Linux, it is above all pids. */
const FIRST_SPARE_PORT = 0x8000_0000

export const createNetlink = ({ containment, answer, onClosed = () => {} }: NetlinkParts): Netlink => {
  const sockets = new Map<string, NetlinkSocket>()
  const descriptorReleases = new Map<NetlinkSocket, () => void>()
  const ports = new Map<number, NetlinkSocket>()
  let nextSparePort = FIRST_SPARE_PORT

  const removeSocket = (socket: NetlinkSocket): void => {
    if (!sockets.delete(socket.target)) return
    if (ports.get(socket.port) === socket) ports.delete(socket.port)
    socket.close()
    descriptorReleases.get(socket)?.()
    descriptorReleases.delete(socket)
    onClosed()
  }

  const takePort = (socket: NetlinkSocket, port: number): void => {
    socket.port = port
    ports.set(port, socket)
  }

  /** A free port: `pid` if possible, otherwise a spare port. */
  const freePort = (pid: number): number => {
    if (pid > 0 && !ports.has(pid)) return pid
    while (ports.has(nextSparePort))
      nextSparePort = nextSparePort === 0xffff_ffff ? FIRST_SPARE_PORT : nextSparePort + 1
    return nextSparePort
  }

  /** Answers messages from index `first` on, in order, each when the socket's user has time. */
  const answerAll = (
    socket: NetlinkSocket,
    messages: readonly Message[],
    isAdmin: boolean,
    namespaceOfFd: NamespaceOfFd,
    first = 0,
  ): Promise<void> | undefined => {
    const { time } = socket
    for (let i = first; i < messages.length; i++) {
      const answerNext = (): Promise<void> | undefined => answer(socket, messages[i]!, isAdmin, namespaceOfFd)
      const pending = time.hasTime ? time.charge(answerNext) : time.run(oneSlice(answerNext))
      if (pending !== undefined) return pending.then(() => answerAll(socket, messages, isAdmin, namespaceOfFd, i + 1))
    }
    return undefined
  }

  const netlink: Netlink = {
    open(type, isAdmin, account, time, namespace) {
      const releaseDescriptor = take(account.descriptors, account, 'a netlink socket')
      const parts = {
        containment,
        time,
        namespace,
        onDatagram: (socket: NetlinkSocket, datagram: Uint8Array) =>
          netlink.receive(socket, { pid: 0, isAdmin: socket.isAdmin }, datagram),
        onHangUp: removeSocket,
      }
      const socket = orRelease(releaseDescriptor, () => createNetlinkSocket(parts, type, isAdmin))
      sockets.set(socket.target, socket)
      descriptorReleases.set(socket, releaseDescriptor)
      return socket
    },
    find: target => sockets.get(target),
    bind(socket, pid, port, groups) {
      if (socket.port !== 0 && port !== socket.port) throw callError.EINVAL`the socket has port ${socket.port} already`
      if (socket.port === 0 && port !== 0 && ports.has(port))
        throw callError.EADDRINUSE`another socket has port ${port}`
      if (socket.port === 0) takePort(socket, port === 0 ? freePort(pid) : port)
      socket.groups = groups & ((1 << MAX_GROUPS) - 1)
    },
    setOption(socket, option, value) {
      const isMembership = option === ADD_MEMBERSHIP || option === DROP_MEMBERSHIP
      if (!KNOWN_OPTIONS.has(option) || option === LIST_MEMBERSHIPS)
        throw callError.ENOPROTOOPT`netlink option ${option} cannot be set here`
      if (isMembership && (value < 1 || value > MAX_GROUPS))
        throw callError.EINVAL`group ${value} is not in 1 to ${MAX_GROUPS}`
      const bit = 1 << (value - 1)
      if (option === ADD_MEMBERSHIP) socket.groups |= bit
      else if (option === DROP_MEMBERSHIP) socket.groups &= ~bit
      else if (value !== 0) socket.options.add(option)
      else socket.options.delete(option)
    },
    getOption(socket, option) {
      if (!KNOWN_OPTIONS.has(option) || option === ADD_MEMBERSHIP || option === DROP_MEMBERSHIP)
        throw callError.ENOPROTOOPT`netlink option ${option} cannot be queried here`
      return option === LIST_MEMBERSHIPS ? socket.groups : +socket.options.has(option)
    },
    receive(socket, { pid, isAdmin, namespaceOfFd = noDescriptors }, datagram) {
      if (socket.port === 0) netlink.bind(socket, pid, 0, socket.groups)
      return answerAll(socket, readMessages(datagram), isAdmin && socket.isAdmin, namespaceOfFd)
    },
    multicast(group, datagram, mayReceive = () => true) {
      const bit = 1 << (group - 1)
      for (const socket of sockets.values()) if (socket.groups & bit && mayReceive(socket)) socket.send(datagram)
    },
    get count() {
      return sockets.size
    },
    closeAll() {
      for (const socket of [...sockets.values()]) removeSocket(socket)
    },
  }
  return netlink
}
