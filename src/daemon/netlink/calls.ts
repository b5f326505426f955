/*
 * Runs a session's NETLINK messages: operations on NETLINK_RDMA sockets (`NetlinkOperation` in spec/session.ts).
 */
import type { Account } from '../../core/model.ts'
import { callError } from '../../spec/errno.ts'
import { NetlinkOperation } from '../../spec/session.ts'
import type { Request } from '../../uapi/session-codec.ts'
import type { ToolShare } from '../tool-time.ts'
import type { NamespaceOfFd, Netlink } from './netlink.ts'
import type { NetlinkSocket } from './netlink-socket.ts'

/** The calling program. */
export interface NetlinkCaller {
  /** Whether the program may send requests that need CAP_NET_ADMIN on Linux. */
  readonly isAdmin: boolean
  readonly account: Account
  /** For requests on sockets that it opens. */
  readonly time: ToolShare
  /** The target of a descriptor in /proc/PID/fd; undefined if the descriptor is not open. */
  target(fd: number): string | undefined
  /** Throws CallError EFAULT. */
  copyIn(address: bigint, length: number): Uint8Array
  namespaceOfFd: NamespaceOfFd
  /** Its network namespace; undefined if it has ended. */
  namespace(): string | undefined
}

/** `ret`: the operation's result, ≥ 0. `socket`: a new socket, whose peer end is passed with the answer. */
export interface NetlinkAnswer {
  readonly ret: number
  readonly socket?: NetlinkSocket
}

/** Maximum bytes of a program's datagram. */
const MAX_BYTES = 65536

const LOW_WORD = 0xffff_ffffn

const { OPEN, SEND, BIND, NAME, SET, GET, TYPE } = NetlinkOperation

const send = (
  netlink: Netlink,
  caller: NetlinkCaller,
  socket: NetlinkSocket,
  { extra: length, argument, pid }: Request,
): NetlinkAnswer | Promise<NetlinkAnswer> => {
  if (length > MAX_BYTES) throw callError.EMSGSIZE`a netlink datagram of ${length} bytes; the maximum is ${MAX_BYTES}`
  const datagram = caller.copyIn(argument, length)
  const pending = netlink.receive(
    socket,
    { pid, isAdmin: caller.isAdmin, namespaceOfFd: caller.namespaceOfFd },
    datagram,
  )
  return pending === undefined ? { ret: length } : pending.then(() => ({ ret: length }))
}

/** Throws CallError or SystemError to refuse. */
export const netlinkCall = (
  netlink: Netlink,
  caller: NetlinkCaller,
  request: Request,
): NetlinkAnswer | Promise<NetlinkAnswer> => {
  const { operation, extra, argument, fd, pid } = request
  if (operation === OPEN) {
    const { isAdmin, account, time } = caller
    return { ret: 0, socket: netlink.open(extra, isAdmin, account, time, caller.namespace()) }
  }
  const target = caller.target(fd)
  const socket = target === undefined ? undefined : netlink.find(target)
  if (socket === undefined) throw callError.EBADF`descriptor ${fd} is not a socket of NETLINK_RDMA`
  switch (operation) {
    case SEND:
      return send(netlink, caller, socket, request)
    case BIND: {
      const port = Number(argument & LOW_WORD)
      const groups = Number(argument >> 32n)
      netlink.bind(socket, pid, port, groups)
      return { ret: 0 }
    }
    case NAME:
      // The groups are in the high 32 bits.
      return { ret: socket.port + socket.groups * 2 ** 32 }
    case SET:
      netlink.setOption(socket, extra, Number(argument & LOW_WORD))
      return { ret: 0 }
    case GET:
      return { ret: netlink.getOption(socket, extra) }
    case TYPE:
      return { ret: socket.type }
    default:
      throw callError.EOPNOTSUPP`there is no operation ${operation} on sockets of NETLINK_RDMA`
  }
}
