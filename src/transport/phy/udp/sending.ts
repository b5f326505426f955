/*
 * The sending half of a UDP port. Runs are built in the send area, divided into messages of up to 124 datagrams of
 * equal size (the last may be shorter), sealed (their ICRCs are written), and queued. The queue is sent at the end of
 * the poll, or earlier if it is long.
 *
 * The kernel segments a message (UDP_SEGMENT), and gives its datagrams the IPv4 identifications 0, 1, 2 …. The ICRCs
 * are computed for these. But a network card that segments may number differently, and only this port accepts other
 * numbers (receiving.ts). An IPv4 peer therefore gets single datagrams until it has sent identification 0: then it
 * probably is such a port too. If the kernel refuses to segment, all peers get single datagrams.
 *
 * Datagrams that the system refuses (no route, interface down, beyond the MTU) are lost and counted. While the buffer
 * of one socket is full, the port is full: `reserve` returns -1, whichever socket the packets are for.
 */
import { EADDRNOTAVAIL, EAGAIN, EINVAL, EIO, EMSGSIZE } from '../../../host/errno.ts'
import type { UdpBatches, UdpSocket } from '../../../host/net/udp.ts'
import { sealIcrc, sealIcrcs } from '../../wire/icrc.ts'
import { type FlowTable, ONLY_PORT } from '../flow-table.ts'
import { emptyTappedRun, type PortCounters, type PortTap } from '../port.ts'
import { RUN_BYTES, requireRun, requireRunBytes } from '../runs/limits.ts'
import type { Senders } from './senders.ts'

export interface SendCounters extends PortCounters {
  /** System calls for sending, and queued messages of several datagrams. */
  sendCalls: number
  segmentedMessages: number
  /** Datagrams that the system refused to send, and the errno of the last. */
  sendErrors: number
  lastSendError: number
}

interface UdpSending {
  /** As in `Port`. */
  reserve(bytes: number): number
  commit(offset: number, packetBytes: number, count: number, lastBytes: number, flow: number): void
  flush(): void
  /** Packets of the flow are sent through the outlet with this number. */
  addFlow(flow: number, outlet: number): void
  outletOf(flow: number): number
  /** Sends the queued messages; false if a socket's buffer is full and some are still queued. */
  sendQueued(): boolean
}

/** Bytes of the send area for queued runs, at the beginning of the arena. */
export const SEND_AREA_BYTES = 2 * RUN_BYTES
export const MAX_FLOWS = 16384
/** Maximum number of queued messages. */
const MAX_MESSAGES = 2048
/** Message slot (`UdpBatches`) for parts of messages that are sent again. */
const RESEND_SLOT = MAX_MESSAGES
export const MESSAGE_SLOTS = MAX_MESSAGES + 1
/** Limits of one message, below the kernel's limits: 128 segments (64 in older kernels) and 65,507 bytes. */
const MESSAGE_PACKETS = 124
const OLD_KERNEL_PACKETS = 62
const MESSAGE_BYTES = 65000
/** With this many queued datagrams the next `commit` first sends the queue, so that the receiver can start early. */
export const FLUSH_EARLY_PACKETS = 62

/** Instead of an outlet's number: no socket's buffer is full. */
const NOT_BLOCKED = -1

// biome-ignore lint/complexity/noExcessiveLinesPerFunction: per packet, with one queue of messages
export const createUdpSending = (
  { arena, putMessage, send }: UdpBatches,
  sockets: readonly (UdpSocket | undefined)[],
  flows: FlowTable,
  senders: Senders,
  counters: SendCounters,
  options: {
    /** Whether UDP_SEGMENT may be used, until the kernel refuses it. */
    readonly canSegment: boolean
    readonly tap: () => PortTap | null
    /** Called with the number of an outlet when its buffer is full, and with NOT_BLOCKED when the queue was sent. */
    readonly onBlocked: (outlet: number) => void
  },
): UdpSending => {
  const { tap, onBlocked } = options
  let isSegmenting = options.canSegment
  let messagePackets = MESSAGE_PACKETS
  /** By flow: the number of its outlet. */
  const outletOf = new Int32Array(MAX_FLOWS)
  /** The queue: messages [sent, queued) wait to be sent. Each is an area of the arena with packets of one flow. */
  const offsets = new Int32Array(MAX_MESSAGES)
  const sizes = new Int32Array(MAX_MESSAGES)
  const packetSizes = new Int32Array(MAX_MESSAGES)
  const flowsOf = new Int32Array(MAX_MESSAGES)
  let sent = 0
  let queued = 0
  let queuedPackets = 0
  /** The last reservation: its end (-1: none), and the end of its filled part. */
  let reservationEnd = -1
  let filled = 0
  /** Number of the outlet whose socket's buffer is full. */
  let blockedOutlet = NOT_BLOCKED

  /** `segment`: as for `UdpBatches.putMessage`. */
  const setMessage = (slot: number, offset: number, bytes: number, flow: number, segment: number): void => {
    const { hopLimit, trafficClass } = flows.recordOf(flow)
    putMessage(slot, offset, bytes, flow, segment, hopLimit, trafficClass)
  }

  const countSent = (bytes: number, packetBytes: number): void => {
    counters.sentPackets += Math.ceil(bytes / packetBytes)
    counters.sentBytes += bytes
  }

  const countRefused = (errno: number, packets: number): void => {
    counters.sendErrors += packets
    counters.lastSendError = errno
    counters.dropped += packets
  }

  /** Seals the packets of one message: their identifications count from 0. */
  const seal = (offset: number, packetBytes: number, count: number, lastBytes: number, flow: number): void => {
    const icrcFlow = flows.icrcFlowOf(flow)
    const fullPackets = lastBytes === packetBytes ? count : count - 1
    if (fullPackets > 0) sealIcrcs(arena, offset, packetBytes, fullPackets, icrcFlow, 0)
    if (fullPackets < count) sealIcrc(arena, offset + fullPackets * packetBytes, lastBytes, icrcFlow, fullPackets)
  }

  /**
   * Handles message `slot`, which the kernel has refused. If segmentation may be the reason, sends it with fewer
   * segments, then packet by packet. Otherwise the message is lost.
   */
  const resendRefused = (socket: UdpSocket, slot: number, errno: number): void => {
    const bytes = sizes[slot]
    const packetBytes = packetSizes[slot]
    const count = Math.ceil(bytes / packetBytes)
    if (count <= OLD_KERNEL_PACKETS || errno !== EINVAL) {
      sendSingly(socket, slot, 0, bytes, errno)
      return
    }
    for (let i = 0; i < count; i += OLD_KERNEL_PACKETS) {
      const packets = Math.min(OLD_KERNEL_PACKETS, count - i)
      const firstByte = i * packetBytes
      const length = Math.min(packets * packetBytes, bytes - firstByte)
      const at = offsets[slot] + firstByte
      seal(at, packetBytes, packets, length - (packets - 1) * packetBytes, flowsOf[slot])
      setMessage(RESEND_SLOT, at, length, flowsOf[slot], packets > 1 ? packetBytes : 0)
      counters.sendCalls++
      const result = send(socket, RESEND_SLOT, 1)
      if (result < 0) {
        sendSingly(socket, slot, firstByte, length, -result)
        continue
      }
      countSent(length, packetBytes)
      // The kernel has accepted fewer segments, so the number of segments was the reason.
      if (packets > 1) messagePackets = OLD_KERNEL_PACKETS
    }
  }

  /**
   * Handles `bytes` bytes of a message, from byte `firstByte` on, which the kernel has refused with `errno`. If
   * segmentation may be the reason, sends them packet by packet. Otherwise they are lost.
   */
  const sendSingly = (socket: UdpSocket, slot: number, firstByte: number, bytes: number, errno: number): void => {
    const packetBytes = packetSizes[slot]
    const isSegmented = bytes > packetBytes
    const isSegmentationError = errno === EIO || errno === EINVAL || errno === EMSGSIZE
    if (!isSegmented || !isSegmentationError) {
      countRefused(errno, Math.ceil(bytes / packetBytes))
      return
    }
    const flow = flowsOf[slot]
    for (let at = firstByte; at < firstByte + bytes; at += packetBytes) {
      const length = Math.min(packetBytes, firstByte + bytes - at)
      seal(offsets[slot] + at, length, 1, length, flow)
      setMessage(RESEND_SLOT, offsets[slot] + at, length, flow, 0)
      counters.sendCalls++
      const result = send(socket, RESEND_SLOT, 1)
      if (result < 0) {
        countRefused(-result, 1)
        continue
      }
      countSent(length, packetBytes)
      // The kernel has accepted a full single datagram, so the MTU is not the reason: segmentation does not work.
      if (length === packetBytes) isSegmenting = false
    }
  }

  const setBlocked = (outlet: number): void => {
    if (blockedOutlet === outlet) return
    blockedOutlet = outlet
    onBlocked(outlet)
  }

  const sendQueued = (): boolean => {
    while (sent < queued) {
      const outlet = outletOf[flowsOf[sent]]
      const socket = sockets[outlet]
      if (socket === undefined) {
        countRefused(EADDRNOTAVAIL, Math.ceil(sizes[sent] / packetSizes[sent]))
        sent++
        continue
      }
      let end = sent + 1
      while (end < queued && outletOf[flowsOf[end]] === outlet) end++
      counters.sendCalls++
      const result = send(socket, sent, end - sent)
      if (result === -EAGAIN) {
        setBlocked(outlet)
        return false
      }
      if (result < 0) {
        resendRefused(socket, sent, -result)
        sent++
        continue
      }
      for (let i = sent; i < sent + result; i++) countSent(sizes[i], packetSizes[i])
      sent += result
    }
    for (let i = 0; i < queued; i++) flows.release(flowsOf[i])
    sent = 0
    queued = 0
    queuedPackets = 0
    setBlocked(NOT_BLOCKED)
    return true
  }

  const tapped = emptyTappedRun(arena, 'sent')

  /** Queues packets as one message. If the queue is full and cannot be sent, drops them. */
  const queueMessage = (offset: number, packetBytes: number, count: number, lastBytes: number, flow: number): void => {
    if (queued === MAX_MESSAGES && !sendQueued()) {
      counters.dropped += count
      return
    }
    seal(offset, packetBytes, count, lastBytes, flow)
    const bytes = (count - 1) * packetBytes + lastBytes
    setMessage(queued, offset, bytes, flow, count > 1 ? packetBytes : 0)
    offsets[queued] = offset
    sizes[queued] = bytes
    packetSizes[queued] = packetBytes
    flowsOf[queued] = flow
    queued++
    flows.retain(flow)
    if (count > 1) counters.segmentedMessages++
    const currentTap = tap()
    if (currentTap === null) return
    tapped.offset = offset
    tapped.packetBytes = packetBytes
    tapped.count = count
    tapped.lastBytes = lastBytes
    tapped.flow = flows.recordOf(flow)
    currentTap(tapped)
  }

  return {
    sendQueued,
    addFlow: (flow, outlet) => {
      outletOf[flow] = outlet
    },
    outletOf: flow => outletOf[flow],
    reserve: bytes => {
      requireRunBytes(bytes)
      let at = queued === 0 ? 0 : (filled + 63) & ~63
      if (at + bytes > SEND_AREA_BYTES || blockedOutlet !== NOT_BLOCKED) {
        if (!sendQueued()) return -1
        at = 0
      }
      filled = at
      reservationEnd = at + bytes
      return at
    },
    commit: (offset, packetBytes, count, lastBytes, flow) => {
      const end = requireRun(offset, packetBytes, count, lastBytes, filled, reservationEnd)
      if (!flows.isOpen(ONLY_PORT, flow)) throw new Error(`flow ${flow} is not open`)
      filled = end
      // Sends only earlier runs, because a fault layer may change the bytes of this run after `commit`.
      if (queuedPackets >= FLUSH_EARLY_PACKETS && blockedOutlet === NOT_BLOCKED) sendQueued()
      const peer = flows.peerOf(ONLY_PORT, flows.words(), flows.destinationAt(flow))
      const maySegment = isSegmenting && (flows.icrcFlowOf(flow).version === 6 || senders.numbersSegments(peer))
      const maxPackets = maySegment ? Math.max(1, Math.min(messagePackets, Math.floor(MESSAGE_BYTES / packetBytes))) : 1
      for (let i = 0; i < count; i += maxPackets) {
        const packets = Math.min(maxPackets, count - i)
        const last = i + packets === count ? lastBytes : packetBytes
        queueMessage(offset + i * packetBytes, packets === 1 ? last : packetBytes, packets, last, flow)
      }
      queuedPackets += count
    },
    flush: () => {
      reservationEnd = -1
      sendQueued()
    },
  }
}
