/*
 * The sending half of a UDP port: runs are built in a staging area, cut into messages of up to 124 datagrams of equal
 * size, sealed, and sent with one system call per turn. The kernel segments a message (UDP_SEGMENT); its datagrams have
 * IPv4 identification 0, 1, 2 …, a single datagram has 0, and the ICRC is computed for that.
 *
 * A peer that has never sent such an identification may be of another vendor, behind a network card that numbers
 * segments differently: it gets single datagrams. So do all peers when the kernel refuses to segment. Datagrams that
 * the system refuses (no route, interface down, beyond the MTU, address removed) are lost and counted; while the socket
 * buffer is full, the staging area fills up.
 */
import { EADDRNOTAVAIL, EAGAIN, EINVAL, EIO, EMSGSIZE } from '../../host/errno.ts'
import type { UdpBatches, UdpSocket } from '../../host/net/udp.ts'
import { sealIcrc, sealIcrcs } from '../../wire/icrc.ts'
import type { FlowTable } from '../flow-table.ts'
import { emptyTappedRun, type PortCounters, type PortTap } from '../port.ts'
import { RUN_BYTES, requireRun, requireRunBytes } from '../runs/limits.ts'
import type { Senders } from './senders.ts'

export interface SendCounters extends PortCounters {
  /** System calls, and messages that were cut into several datagrams. */
  sendCalls: number
  cutMessages: number
  /** Datagrams that the system refused to send, and the last error number. */
  sendErrors: number
  lastSendError: number
}

export interface UdpSending {
  /** As in `Port`. */
  reserve(bytes: number): number
  commit(offset: number, packetBytes: number, count: number, lastBytes: number, flow: number): void
  flush(): void
  /** Assigns a new flow to a socket. */
  addFlow(flow: number, socket: number): void
  /** Sends what is queued; false if the sockets are full. */
  sendQueued(): boolean
}

/** Staging area for queued runs, at the beginning of the arena. */
export const STAGING = 2 * RUN_BYTES
export const FLOWS = 16384
const MESSAGES = 2048
/** One more message, for parts that have to be sent again. */
const SPARE = MESSAGES
export const ALL_MESSAGES = MESSAGES + 1
/**
 * Datagrams of one message, and its bytes, below the kernel's limits: 128 segments, 64 in older kernels; 65,507 bytes.
 */
const MESSAGE_PACKETS = 124
const FEWER_PACKETS = 62
const MESSAGE_BYTES = 65000
/**
 * After this many datagrams the queue is sent before the turn ends, so that the receiver can start while further small
 * datagrams are built.
 */
export const FLUSH_EARLY_PACKETS = 62

export const createUdpSending = (
  { arena, putMessage, send }: UdpBatches,
  sockets: readonly (UdpSocket | undefined)[],
  flows: FlowTable,
  senders: Senders,
  counters: SendCounters,
  options: {
    /** Whether UDP_SEGMENT may be used. */
    readonly cut: boolean
    readonly tap: () => PortTap | null
    /** Called when the sockets become full, and when they are no longer full. */
    readonly onBlocked: (blocked: boolean) => void
  },
): UdpSending => {
  const { tap, onBlocked } = options
  let cuts = options.cut
  let messagePackets = MESSAGE_PACKETS
  /** By flow: its socket. */
  const socketOf = new Int32Array(FLOWS)
  /** Messages waiting to be sent: [sent, queued). */
  const offsets = new Int32Array(MESSAGES)
  const sizes = new Int32Array(MESSAGES)
  const packetSizes = new Int32Array(MESSAGES)
  const flowsOf = new Int32Array(MESSAGES)
  let sent = 0
  let queued = 0
  let queuedPackets = 0
  /** The last reservation: its end, -1 for none, and how far it is filled. */
  let roomEnd = -1
  let filled = 0
  let blocked = false

  const put = (slot: number, offset: number, bytes: number, flow: number, segment: number): void => {
    const { hopLimit, trafficClass } = flows.recordOf(flow)
    putMessage(slot, offset, bytes, flow, segment, hopLimit, trafficClass)
  }

  const refused = (errno: number, packets: number): void => {
    counters.sendErrors += packets
    counters.lastSendError = errno
    counters.dropped += packets
  }

  /** Seals packets that are sent as one message. */
  const seal = (offset: number, packet: number, count: number, last: number, flow: number): void => {
    const icrcFlow = flows.icrcFlowOf(flow)
    const full = last === packet ? count : count - 1
    if (full > 0) sealIcrcs(arena, offset, packet, full, icrcFlow, 0)
    if (full < count) sealIcrc(arena, offset + full * packet, last, icrcFlow, full)
  }

  /**
   * The kernel has refused message `slot`: sends it with fewer segments, then one by one, if segmentation may be the
   * reason; otherwise it is lost.
   */
  const resendRefused = (socket: UdpSocket, slot: number, errno: number): void => {
    const bytes = sizes[slot]
    const packetBytes = packetSizes[slot]
    const count = Math.ceil(bytes / packetBytes)
    if (count <= FEWER_PACKETS || errno !== EINVAL) {
      sendSingly(socket, slot, 0, bytes, errno)
      return
    }
    messagePackets = FEWER_PACKETS
    for (let i = 0; i < count; i += FEWER_PACKETS) {
      const packets = Math.min(FEWER_PACKETS, count - i)
      const from = i * packetBytes
      const length = Math.min(packets * packetBytes, bytes - from)
      const at = offsets[slot] + from
      seal(at, packetBytes, packets, length - (packets - 1) * packetBytes, flowsOf[slot])
      put(SPARE, at, length, flowsOf[slot], packets > 1 ? packetBytes : 0)
      counters.sendCalls++
      const result = send(socket, SPARE, 1)
      if (result < 0) sendSingly(socket, slot, from, length, -result)
    }
  }

  /** Sends `bytes` bytes of a message from byte `from` on packet by packet, after the kernel has returned `errno`. */
  const sendSingly = (socket: UdpSocket, slot: number, from: number, bytes: number, errno: number): void => {
    const packet = packetSizes[slot]
    if (bytes <= packet || (errno !== EIO && errno !== EINVAL && errno !== EMSGSIZE)) {
      refused(errno, Math.ceil(bytes / packet))
      return
    }
    const flow = flowsOf[slot]
    for (let at = from; at < from + bytes; at += packet) {
      const length = Math.min(packet, from + bytes - at)
      seal(offsets[slot] + at, length, 1, length, flow)
      put(SPARE, offsets[slot] + at, length, flow, 0)
      counters.sendCalls++
      const result = send(socket, SPARE, 1)
      if (result < 0) refused(-result, 1)
      // single datagrams are sent: segmentation is the reason, and fails for all messages (because of the network card
      // or the kernel). When an MTU shrinks, single datagrams fail too, and segmentation works again once it has grown.
      else if (length === packet) cuts = false
    }
  }

  const setBlocked = (value: boolean): void => {
    if (blocked === value) return
    blocked = value
    onBlocked(value)
  }

  const sendQueued = (): boolean => {
    while (sent < queued) {
      const number = socketOf[flowsOf[sent]]
      const socket = sockets[number]
      if (socket === undefined) {
        refused(EADDRNOTAVAIL, Math.ceil(sizes[sent] / packetSizes[sent]))
        sent++
        continue
      }
      let end = sent + 1
      while (end < queued && socketOf[flowsOf[end]] === number) end++
      counters.sendCalls++
      const result = send(socket, sent, end - sent)
      if (result === -EAGAIN) {
        setBlocked(true)
        return false
      }
      if (result >= 0) sent += result
      else {
        resendRefused(socket, sent, -result)
        sent++
      }
    }
    for (let i = 0; i < queued; i++) flows.drop(flowsOf[i])
    sent = 0
    queued = 0
    queuedPackets = 0
    setBlocked(false)
    return true
  }

  const tapped = emptyTappedRun(arena, 'sent')

  const queueMessage = (offset: number, packet: number, count: number, last: number, flow: number): void => {
    if (queued === MESSAGES && !sendQueued()) {
      counters.dropped += count
      return
    }
    seal(offset, packet, count, last, flow)
    const bytes = (count - 1) * packet + last
    put(queued, offset, bytes, flow, count > 1 ? packet : 0)
    offsets[queued] = offset
    sizes[queued] = bytes
    packetSizes[queued] = packet
    flowsOf[queued] = flow
    queued++
    flows.hold(flow)
    if (count > 1) counters.cutMessages++
    const observe = tap()
    if (observe === null) return
    tapped.offset = offset
    tapped.packetBytes = packet
    tapped.count = count
    tapped.lastBytes = last
    tapped.flow = flows.recordOf(flow)
    observe(tapped)
  }

  return {
    sendQueued,
    addFlow: (flow, socket) => {
      socketOf[flow] = socket
    },
    reserve: bytes => {
      requireRunBytes(bytes)
      let at = queued === 0 ? 0 : (filled + 63) & ~63
      if (at + bytes > STAGING || blocked) {
        if (!sendQueued()) return -1
        at = 0
      }
      filled = at
      roomEnd = at + bytes
      return at
    },
    commit: (offset, size, count, last, flow) => {
      const end = requireRun(offset, size, count, last, filled, roomEnd)
      if (!flows.isOpen(0, flow)) throw new Error(`flow ${flow} is not open`)
      filled = end
      // not this run: the sender may still change its bytes
      if (queuedPackets >= FLUSH_EARLY_PACKETS && !blocked) sendQueued()
      counters.sentPackets += count
      counters.sentBytes += end - offset
      const peer = flows.peerOf(0, flows.words(), flows.destinationAt(flow))
      const mayCut = cuts && (flows.icrcFlowOf(flow).version === 6 || senders.peerCounts(peer))
      const maxPackets = mayCut ? Math.max(1, Math.min(messagePackets, Math.floor(MESSAGE_BYTES / size))) : 1
      for (let i = 0; i < count; i += maxPackets) {
        const packets = Math.min(maxPackets, count - i)
        const lastBytes = i + packets === count ? last : size
        queueMessage(offset + i * size, packets === 1 ? lastBytes : size, packets, lastBytes, flow)
      }
      queuedPackets += count
    },
    flush: () => {
      roomEnd = -1
      sendQueued()
    },
  }
}
