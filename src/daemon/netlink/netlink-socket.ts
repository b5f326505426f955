/*
 * One NETLINK_RDMA socket of a program. The program has the peer end of a socket pair. Each packet is a netlink
 * datagram.
 *
 * As in Linux, an answer that does not fit in the socket is lost. Then NLMSG_OVERRUN is sent as soon as it fits, unless
 * NETLINK_NO_ENOBUFS is set. A list (NLM_F_DUMP) waits until its next datagram fits.
 */
import { fstatSync } from 'node:fs'
import { EAGAIN } from '../../host/errno.ts'
import { type Watch, watch } from '../../host/event-loop/poll.ts'
import {
  close,
  MAX_MESSAGE,
  recvBytes,
  sendBytes,
  setBlocking,
  setSendTimeout,
  socketPair,
} from '../../host/net/sockets.ts'
import { NetlinkOption, NlmsgType } from '../../spec/linux/nldev.ts'
import { DescriptorMark, InstallKind } from '../../spec/session.ts'
import { writeMessage } from '../../uapi/nldev/messages.ts'
import type { Containment } from '../containment.ts'
import type { ToolShare } from '../tool-time.ts'

/** Yields the datagrams of a list, in order, and undefined after a step that has completed none. */
export type Datagrams = Generator<Uint8Array | undefined>

export interface NetlinkSocket {
  /** The daemon's copy of the peer end, until `closePeerEnd` is called. */
  readonly peerEnd: number
  /** The target of the peer end's links in /proc/PID/fd: 'socket:[inode]'. */
  readonly target: string
  /** Whether the process that opened the socket may send requests that need CAP_NET_ADMIN on Linux. */
  readonly isAdmin: boolean
  /** The time for requests of the socket's user. */
  readonly time: ToolShare
  /** The network namespace of the process that opened the socket; undefined: unknown. */
  readonly namespace: string | undefined
  /** SOCK_RAW or SOCK_DGRAM, as the program has requested. */
  readonly type: number
  /** 0: not bound. */
  port: number
  /** Bit n−1: membership in group n. */
  groups: number
  /** The options of level SOL_NETLINK that are on. */
  readonly options: Set<number>
  /** Whether a list is being sent. */
  readonly isListing: boolean
  /** Call once the peer end was passed to the program. */
  closePeerEnd(): void
  /** Sends a datagram. Drops it if it does not fit in the socket, or NLMSG_OVERRUN must be sent first. */
  send(datagram: Uint8Array): void
  /**
   * Sends the first datagrams now, the others in slices, when they fit. Throws what `datagrams` throws now. If it
   * throws later, the socket hangs up.
   */
  sendList(datagrams: Datagrams): void
  close(): void
}

/**
 * Of a list: most lists end with them. A step, such as making a datagram of 40 queue pairs, takes up to half a
 * millisecond.
 */
const FIRST_STEPS = 3
/** Maximum number of datagrams that one callback of the event loop reads. */
const BURST = 16

const OVERRUN = writeMessage({ type: NlmsgType.OVERRUN, flags: 0, sequence: 0, port: 0, body: new Uint8Array() })

interface NetlinkSocketParts {
  readonly containment: Containment
  readonly time: ToolShare
  /** See `NetlinkSocket`. */
  readonly namespace?: string | undefined
  /** Called with a datagram that bypassed the shim. Returns a promise if the answer takes long. */
  onDatagram(socket: NetlinkSocket, datagram: Uint8Array): Promise<void> | undefined
  /** Called when the peer end was closed, or a callback of the socket has thrown. */
  onHangUp(socket: NetlinkSocket): void
}

/** One buffer for all sockets. */
const incoming = new Uint8Array(MAX_MESSAGE)

export const createNetlinkSocket = (parts: NetlinkSocketParts, type: number, isAdmin: boolean): NetlinkSocket => {
  const { containment, time } = parts
  const [ours, peerEnd] = socketPair()
  setBlocking(peerEnd)
  // The mark by which shims recognize the peer end.
  setSendTimeout(peerEnd, DescriptorMark.FIRST + InstallKind.NETLINK, DescriptorMark.MICROSECONDS)
  let isPeerEndOpen = true
  let isClosed = false
  /** Whether an answer was lost and NLMSG_OVERRUN was not sent yet. */
  let hasLost = false
  let list: Datagrams | undefined
  /** The list's next datagram; undefined if the list has not made it yet. */
  let nextDatagram: Uint8Array | undefined
  /** Whether slices of the list run. */
  let isSending = false
  /** While a datagram is being answered, no other datagram is read. */
  let isAnswering = false

  /** Sends a datagram; false if it does not fit in the socket. */
  const trySend = (datagram: Uint8Array): boolean => isClosed || sendBytes(ours, datagram) !== -EAGAIN
  const updateWatcher = (): void => {
    if (!isClosed) watcher.update({ readable: !isAnswering, writable: hasLost || nextDatagram !== undefined })
  }

  /** Sets `nextDatagram`; at the end of the list, clears `list`. */
  const takeStep = (): void => {
    const next = list?.next()
    if (next?.done) list = undefined
    else nextDatagram = next?.value
  }
  /**
   * Sends datagrams of the list, then takes one more step, to notice the end of the list. True if the list has not
   * ended and its next datagram may fit.
   */
  const advance = (maxSteps: number): boolean => {
    for (let steps = 0; steps < maxSteps && list !== undefined && !isClosed; steps++) {
      if (nextDatagram === undefined) takeStep()
      if (nextDatagram !== undefined && !trySend(nextDatagram)) return false
      nextDatagram = undefined
    }
    if (!isClosed) takeStep()
    return list !== undefined && !isClosed
  }
  function* remaining(): Generator<undefined, void> {
    while (advance(1)) yield
  }
  /** Sends the rest of the list in slices. */
  const continueSending = (): void => {
    if (isSending || list === undefined) {
      updateWatcher()
      return
    }
    isSending = true
    const ended = (): void => {
      isSending = false
      updateWatcher()
    }
    time.run(remaining()).then(ended, error => {
      containment.report('a list of a netlink socket', error)
      // The program waits for the end of the list, which it would never get.
      parts.onHangUp(socket)
    })
  }

  const onReadable = (): void => {
    for (let datagrams = 0; datagrams < BURST && !isClosed && !isAnswering; datagrams++) {
      const length = recvBytes(ours, incoming)
      if (length === -EAGAIN) return
      if (length <= 0) {
        parts.onHangUp(socket)
        return
      }
      const pending = parts.onDatagram(socket, incoming.slice(0, length))
      if (pending === undefined) continue
      isAnswering = true
      updateWatcher()
      void pending
        .catch(error => containment.report('an answer of a netlink socket', error))
        .finally(() => {
          isAnswering = false
          updateWatcher()
        })
    }
  }
  const onReady = (readable: boolean, writable: boolean): void => {
    if (writable && hasLost) hasLost = !trySend(OVERRUN)
    if (writable) continueSending()
    if (readable) onReadable()
  }
  const watcher: Watch = watch(
    ours,
    { readable: true },
    containment.guard('a netlink socket', onReady, () => parts.onHangUp(socket)),
  )

  const socket: NetlinkSocket = {
    peerEnd,
    target: `socket:[${fstatSync(peerEnd).ino}]`,
    isAdmin,
    time,
    namespace: parts.namespace,
    type,
    port: 0,
    groups: 0,
    options: new Set(),
    get isListing() {
      return list !== undefined
    },
    closePeerEnd() {
      if (isPeerEndOpen) close(peerEnd)
      isPeerEndOpen = false
    },
    send(datagram) {
      if (!hasLost && trySend(datagram)) return
      hasLost = !socket.options.has(NetlinkOption.NO_ENOBUFS)
      updateWatcher()
    },
    sendList(datagrams) {
      list = datagrams
      try {
        advance(FIRST_STEPS)
      } catch (error) {
        list = nextDatagram = undefined
        throw error
      }
      continueSending()
    },
    close() {
      if (isClosed) return
      isClosed = true
      list = undefined
      watcher.stop()
      close(ours)
      socket.closePeerEnd()
    },
  }
  return socket
}
