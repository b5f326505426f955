/*
 * One NETLINK_RDMA socket of a program: the state that the kernel keeps for netlink sockets (port, groups, options),
 * the datagrams for the program, and the list in progress.
 *
 * The program has the other end of a socket pair; a message is a netlink datagram. Nothing is queued here for a program
 * that does not read: an answer that does not fit is lost, as in Linux, and NLMSG_OVERRUN is sent as soon as it fits; a
 * list waits until its next datagram fits.
 */
import { fstatSync } from 'node:fs'
import { EAGAIN } from '../../host/errno.ts'
import { type Watch, watch } from '../../host/event-loop/poll.ts'
import type { Slices } from '../../host/event-loop/slices.ts'
import {
  close,
  MAX_MESSAGE,
  recvSmall,
  sendSmall,
  setBlocking,
  setSendTimeout,
  socketPair,
} from '../../host/net/sockets.ts'
import { NetlinkOption, NlmsgType } from '../../spec/linux/nldev.ts'
import { DescriptorMark, InstallKind } from '../../spec/session.ts'
import { writeMessage } from '../../uapi/nldev/messages.ts'
import type { Containment } from '../containment.ts'

/** The datagrams of a list, in order; undefined between steps. */
export type Datagrams = Generator<Uint8Array | undefined>

export interface NetlinkSocket {
  /** The program's end, until `passed` is called. */
  readonly peerEnd: number
  /** The target of its descriptors in /proc/PID/fd: 'socket:[inode]'. */
  readonly target: string
  /** The process that opened it has the permission for which Linux requires CAP_NET_ADMIN. */
  readonly admin: boolean
  /** SOCK_RAW or SOCK_DGRAM, as requested. */
  readonly type: number
  /** 0 until it is bound. */
  port: number
  /** Bit n-1: membership in group n. */
  groups: number
  readonly options: Set<number>
  /** A list is in progress. */
  readonly busy: boolean
  /** The program's end was passed to it: closes our copy. */
  passed(): void
  /** Sends a datagram, or drops it. */
  send(datagram: Uint8Array): void
  /** Sends a list: the first datagrams now, the others when they fit. */
  sendList(datagrams: Datagrams): void
  close(): void
}

/** Steps of a list per slice: a datagram of 40 queue pairs takes up to half a millisecond. */
const STEPS = 3
/** Maximum number of a program's datagrams read per turn. */
const BURST = 16

const OVERRUN = writeMessage({ type: NlmsgType.OVERRUN, flags: 0, sequence: 0, port: 0, body: new Uint8Array() })

export interface NetlinkSocketParts {
  readonly containment: Containment
  readonly slices: Slices
  /**
   * Called with a datagram that the program sent directly, without the preload library; returns a promise if the answer
   * takes long.
   */
  received(socket: NetlinkSocket, datagram: Uint8Array): Promise<void> | undefined
  /** Called when the program has closed its last copy. */
  hungUp(socket: NetlinkSocket): void
}

/** One buffer for all sockets: a datagram is copied before the next one is read. */
const incoming = new Uint8Array(MAX_MESSAGE)

export const createNetlinkSocket = (parts: NetlinkSocketParts, type: number, admin: boolean): NetlinkSocket => {
  const { containment, slices } = parts
  const [ours, peerEnd] = socketPair()
  setBlocking(peerEnd)
  setSendTimeout(peerEnd, DescriptorMark.FIRST + InstallKind.NETLINK, DescriptorMark.MICROSECONDS)
  let isPeerEndOpen = true
  let closed = false
  let lost = false
  let list: Datagrams | undefined
  /** The next datagram of the list; it did not fit or was not tried yet. */
  let held: Uint8Array | undefined
  let working = false
  /** A datagram is being answered: the next one is not read yet. */
  let answering = false

  const fits = (datagram: Uint8Array): boolean => closed || sendSmall(ours, datagram) !== -EAGAIN
  const listen = (): void => {
    if (!closed) watcher.update({ readable: !answering, writable: lost || held !== undefined })
  }

  /** Takes a step of the list; the resulting datagram is in `held`. */
  const step = (): void => {
    const next = list?.next()
    if (next?.done) list = undefined
    else held = next?.value
  }
  /**
   * Sends datagrams of the list, and takes one more step, so that a list whose last datagram was sent has ended. True
   * if it can continue now.
   */
  const advance = (): boolean => {
    for (let left = STEPS; left > 0 && list !== undefined && !closed; left--) {
      if (held === undefined) step()
      if (held !== undefined && !fits(held)) return false
      held = undefined
    }
    if (!closed) step()
    return list !== undefined && !closed
  }
  function* remaining(): Generator<undefined, void> {
    while (advance()) yield
  }
  /** The lists of all sockets share the slices of a turn. */
  const continueSending = (): void => {
    if (working || list === undefined) {
      listen()
      return
    }
    working = true
    const ended = (): void => {
      working = false
      listen()
    }
    slices.run(remaining()).then(ended, error => {
      containment.report('a list of a netlink socket', error)
      list = undefined
      ended()
    })
  }

  const onReadable = (): void => {
    for (let left = BURST; left > 0 && !closed && !answering; left--) {
      const length = recvSmall(ours, incoming)
      if (length === -EAGAIN) return
      if (length <= 0) {
        parts.hungUp(socket)
        return
      }
      const later = parts.received(socket, incoming.slice(0, length))
      if (later === undefined) continue
      answering = true
      listen()
      void later
        .catch(error => containment.report('an answer of a netlink socket', error))
        .finally(() => {
          answering = false
          listen()
        })
    }
  }
  const onReady = (readable: boolean, writable: boolean): void => {
    if (writable && lost) lost = !fits(OVERRUN)
    if (writable) continueSending()
    if (readable) onReadable()
  }
  const watcher: Watch = watch(
    ours,
    { readable: true },
    containment.guard('a netlink socket', onReady, () => parts.hungUp(socket)),
  )

  const socket: NetlinkSocket = {
    peerEnd: peerEnd,
    target: `socket:[${fstatSync(peerEnd).ino}]`,
    admin,
    type,
    port: 0,
    groups: 0,
    options: new Set(),
    get busy() {
      return list !== undefined
    },
    passed() {
      if (isPeerEndOpen) close(peerEnd)
      isPeerEndOpen = false
    },
    send(datagram) {
      if (!lost && fits(datagram)) return
      lost = !socket.options.has(NetlinkOption.NO_ENOBUFS)
      listen()
    },
    sendList(datagrams) {
      list = datagrams
      advance()
      continueSending()
    },
    close() {
      if (closed) return
      closed = true
      list = undefined
      watcher.stop()
      close(ours)
      socket.passed()
    },
  }
  return socket
}
