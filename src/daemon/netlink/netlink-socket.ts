/*
 * One NETLINK_RDMA socket of a program: the state that the kernel keeps for netlink sockets (port, groups, options),
 * the answers to the program, and the list (NLM_F_DUMP) that is being sent.
 *
 * The program has the other end of a socket pair; each packet is a netlink datagram. Nothing is queued here for a
 * program that does not read. An answer that does not fit is lost, as in Linux, and NLMSG_OVERRUN is sent as soon as it
 * fits (unless NETLINK_NO_ENOBUFS is set). A list waits until its next datagram fits.
 */
import { fstatSync } from 'node:fs'
import { EAGAIN } from '../../host/errno.ts'
import { type Watch, watch } from '../../host/event-loop/poll.ts'
import type { Slices } from '../../host/event-loop/slices.ts'
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

/** The datagrams of a list, in order; undefined between steps. */
export type Datagrams = Generator<Uint8Array | undefined>

export interface NetlinkSocket {
  /** The program's end, until `closePeerEnd` is called. */
  readonly peerEnd: number
  /** The target of the program's descriptors of its end in /proc/PID/fd: 'socket:[inode]'. */
  readonly target: string
  /** Whether the process that opened the socket has the permission for which Linux requires CAP_NET_ADMIN. */
  readonly isAdmin: boolean
  /** SOCK_RAW or SOCK_DGRAM, as requested. */
  readonly type: number
  /** 0 until it is bound. */
  port: number
  /** Bit n-1: membership in group n. */
  groups: number
  /** The options of level SOL_NETLINK that are on. */
  readonly options: Set<number>
  /** Whether a list is being sent. */
  readonly isListing: boolean
  /** Closes the daemon's copy of the program's end, once it was passed to the program. */
  closePeerEnd(): void
  /** Sends a datagram, or drops it if it does not fit in the socket. */
  send(datagram: Uint8Array): void
  /** Sends a list: the first datagrams now, the others in slices, when they fit. */
  sendList(datagrams: Datagrams): void
  close(): void
}

/**
 * Steps of a list per slice; `advance` takes one more. A step, such as making a datagram of 40 queue pairs, takes up to
 * half a millisecond.
 */
const STEPS_PER_SLICE = 3
/** Maximum number of a program's datagrams read in one callback of the event loop. */
const BURST = 16

const OVERRUN = writeMessage({ type: NlmsgType.OVERRUN, flags: 0, sequence: 0, port: 0, body: new Uint8Array() })

export interface NetlinkSocketParts {
  readonly containment: Containment
  readonly slices: Slices
  /**
   * Called with a datagram that the program sent directly, without the preload library; returns a promise if the answer
   * takes long.
   */
  onDatagram(socket: NetlinkSocket, datagram: Uint8Array): Promise<void> | undefined
  /** Called when the program's end was closed, or a callback of the socket has thrown. */
  onHangUp(socket: NetlinkSocket): void
}

/** One buffer for all sockets: a datagram is copied before the next one is read. */
const incoming = new Uint8Array(MAX_MESSAGE)

export const createNetlinkSocket = (parts: NetlinkSocketParts, type: number, isAdmin: boolean): NetlinkSocket => {
  const { containment, slices } = parts
  const [ours, peerEnd] = socketPair()
  setBlocking(peerEnd)
  setSendTimeout(peerEnd, DescriptorMark.FIRST + InstallKind.NETLINK, DescriptorMark.MICROSECONDS)
  let isPeerEndOpen = true
  let isClosed = false
  /** Whether an answer was lost and NLMSG_OVERRUN was not sent yet. */
  let hasLost = false
  let list: Datagrams | undefined
  /**
   * The next datagram of the list, which did not fit or was not sent yet; undefined if the list has not made it yet.
   */
  let nextDatagram: Uint8Array | undefined
  /** Whether slices of the list run. */
  let isSending = false
  /** Whether a datagram is being answered: the next one is read only afterwards. */
  let isAnswering = false

  /** Sends a datagram; false if it does not fit in the socket. */
  const trySend = (datagram: Uint8Array): boolean => isClosed || sendBytes(ours, datagram) !== -EAGAIN
  const updateWatcher = (): void => {
    if (!isClosed) watcher.update({ readable: !isAnswering, writable: hasLost || nextDatagram !== undefined })
  }

  /** Takes a step of the list; the resulting datagram is in `nextDatagram`. */
  const takeStep = (): void => {
    const next = list?.next()
    if (next?.done) list = undefined
    else nextDatagram = next?.value
  }
  /**
   * Sends datagrams of the list, and takes one step more, so that a list whose last datagram was sent has ended. True
   * if the list is not at its end and its next datagram may fit.
   */
  const advance = (): boolean => {
    for (let steps = 0; steps < STEPS_PER_SLICE && list !== undefined && !isClosed; steps++) {
      if (nextDatagram === undefined) takeStep()
      if (nextDatagram !== undefined && !trySend(nextDatagram)) return false
      nextDatagram = undefined
    }
    if (!isClosed) takeStep()
    return list !== undefined && !isClosed
  }
  function* remaining(): Generator<undefined, void> {
    while (advance()) yield
  }
  /** Sends the rest of the list in slices. The lists of all sockets share the slices of a turn of the event loop. */
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
    slices.run(remaining()).then(ended, error => {
      containment.report('a list of a netlink socket', error)
      list = undefined
      ended()
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
      advance()
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
