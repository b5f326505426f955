/*
 * The receiving half of a UDP port. One system call reads several messages into buffers. A message is one datagram, or
 * several that the kernel has joined (UDP_GRO). A UDP socket does not report the IPv4 identification, which the ICRC
 * covers. The identification is therefore derived from the ICRC (`findIdentification`).
 *
 * Buffers are used in order, and again from the first when all packets have been delivered and released.
 */
import type { UdpBatches, UdpSocket } from '../../../host/net/udp.ts'
import { countRightIcrcs, findIdentification } from '../../wire/icrc.ts'
import { emptyTappedRun, type PortCounters, type PortTap, type ReceivedRun, type TapOutcome } from '../port.ts'
import type { Senders } from './senders.ts'

export interface ReceiveCounters extends PortCounters {
  /** Packets with an identification that was neither the expected one nor 0. */
  unexpectedIdentifications: number
}

interface UdpReceiving {
  /** As in `Port`. */
  receive(run: ReceivedRun): boolean
  release(): void
  /** Drops packets that were received but not delivered. */
  clear(): void
}

/** Number of receive buffers. */
export const RECEIVE_BUFFERS = 32
/** Maximum number of buffers that one system call fills. */
const CALL_BUFFERS = 4
/**
 * After this many bytes or packets a poll reads no more from the sockets; `release` begins the next poll. Wrong packets
 * count too, so that a flood of them cannot stall the process. ACKs are sent between polls. A poll is short, so that a
 * sender gets an ACK before its window is full, but not too short, because each ACK costs both sides a system call:
 * polls of 64 KiB take a third more processor time per byte.
 */
const POLL_BYTES = 0x4_0000
const POLL_PACKETS = 124
/** Value of `checkedIdentification` for a packet that was not checked yet. */
const NOT_CHECKED = -2

// biome-ignore lint/complexity/noExcessiveLinesPerFunction: per packet, with the state of a poll
export const createUdpReceiving = (
  { arena, receive, bufferAt, lengths, segments: segmentBytes, ...batches }: UdpBatches,
  sockets: readonly (UdpSocket | undefined)[],
  addresses: readonly Uint8Array[],
  senders: Senders,
  counters: ReceiveCounters,
  options: {
    readonly tap: () => PortTap | null
    /** Whether identifications must count up within a run, for a tap or layer. */
    readonly needsIdentifications: () => boolean
  },
): UdpReceiving => {
  const { tap, needsIdentifications } = options
  /** Buffers [cursor, filled) have undelivered packets. */
  let cursor = 0
  let filled = 0
  /** Index of the next packet in buffer `cursor`. */
  let nextPacket = 0
  /** The identification of the next packet if it was already checked; -1 if its ICRC is wrong. */
  let checkedIdentification = NOT_CHECKED
  /** Whether packets were delivered since the last release. */
  let hasUnreleased = false
  /** Bytes and packets of this poll, delivered or wrong. */
  let polledBytes = 0
  let polledPackets = 0
  /** By buffer: number of the sender, and number of packets. */
  const senderOf = new Int32Array(RECEIVE_BUFFERS)
  const packetsOf = new Int32Array(RECEIVE_BUFFERS)
  /** Index of the socket that was read last. */
  let lastSocket = 0
  /** By socket: the poll in which it was found empty. It is not read again in the same poll. */
  let emptyInPoll = new Uint32Array(4)
  let pollNumber = 1

  /** Reads from the next socket with datagrams. False if no socket has datagrams, or no buffer is free. */
  const fillBuffers = (): boolean => {
    if (filled === 0) senders.clearIfFull()
    const maxBuffers = Math.min(CALL_BUFFERS, RECEIVE_BUFFERS - filled)
    if (maxBuffers === 0) return false
    if (emptyInPoll.length < sockets.length) emptyInPoll = new Uint32Array(2 * sockets.length)
    for (let tries = sockets.length; tries > 0; tries--) {
      lastSocket = lastSocket + 1 < sockets.length ? lastSocket + 1 : 0
      const socket = sockets[lastSocket]
      if (socket === undefined || emptyInPoll[lastSocket] === pollNumber) continue
      const received = receive(socket, filled, maxBuffers)
      if (received < maxBuffers) emptyInPoll[lastSocket] = pollNumber
      // No datagram, or an error of the socket.
      if (received <= 0) continue
      for (const end = filled + received; filled < end; filled++) {
        const length = lengths[filled]
        // Empty, or truncated by the kernel: counted as one packet with a wrong ICRC.
        if (length <= 0) counters.icrcErrors++
        packetsOf[filled] = length <= 0 ? 0 : Math.ceil(length / segmentBytes[filled])
        senderOf[filled] = senders.findOrAdd(batches, filled, addresses[lastSocket], lastSocket)
      }
      return true
    }
    return false
  }

  const beginPoll = (): void => {
    pollNumber = (pollNumber + 1) >>> 0
    polledBytes = 0
    polledPackets = 0
  }

  const reuseBuffers = (): void => {
    if (cursor < filled || hasUnreleased) return
    cursor = 0
    filled = 0
  }

  const packetOffset = (buffer: number, index: number): number => bufferAt(buffer) + index * segmentBytes[buffer]
  const packetLength = (buffer: number, index: number): number =>
    index === packetsOf[buffer] - 1 ? lengths[buffer] - index * segmentBytes[buffer] : segmentBytes[buffer]

  /** Derives and records the identification of a packet; -1: wrong ICRC. */
  const identify = (buffer: number, index: number): number => {
    const sender = senderOf[buffer]
    const expected = senders.nextIdentification(sender)
    const icrcFlow = senders.icrcFlowOf(sender)
    const identification = findIdentification(
      arena,
      packetOffset(buffer, index),
      packetLength(buffer, index),
      icrcFlow,
      expected,
    )
    if (identification < 0) return identification
    if (identification !== expected && identification !== 0) counters.unexpectedIdentifications++
    senders.recordIdentification(sender, identification)
    return identification
  }
  /** As `identify`, but uses `checkedIdentification` if the packet was already checked. */
  const takeIdentification = (buffer: number, index: number): number => {
    const identification = checkedIdentification === NOT_CHECKED ? identify(buffer, index) : checkedIdentification
    checkedIdentification = NOT_CHECKED
    return identification
  }

  /**
   * Number of packets from `index` on with equal length and correct ICRCs, if the identifications count up from
   * `identification`. Records the last identification. 0 if fewer than two packets of equal length are left.
   */
  const countCorrect = (buffer: number, index: number, identification: number): number => {
    const packets = packetsOf[buffer]
    const equalPackets = (packets * segmentBytes[buffer] === lengths[buffer] ? packets : packets - 1) - index
    if (equalPackets < 2) return 0
    const sender = senderOf[buffer]
    const flow = senders.icrcFlowOf(sender)
    const correctCount = countRightIcrcs(
      arena,
      packetOffset(buffer, index),
      segmentBytes[buffer],
      equalPackets,
      flow,
      identification,
    )
    if (correctCount > 0) senders.recordIdentification(sender, (identification + correctCount - 1) & 0xffff)
    return correctCount
  }
  /** The probable identification of a packet. A message that the peer's kernel has segmented begins with 0. */
  const guessIdentification = (buffer: number, index: number): number => {
    const sender = senderOf[buffer]
    return index === 0 && senders.numbersSegments(senders.peerOf(sender)) ? 0 : senders.nextIdentification(sender)
  }

  /** Moves to packet `index` of the current buffer, or, at its end, to the next buffer. */
  const advanceTo = (index: number): void => {
    nextPacket = index
    if (index < packetsOf[cursor]) return
    cursor++
    nextPacket = 0
  }

  const tapped = emptyTappedRun(arena, 'received')
  const showTap = (
    outcome: TapOutcome,
    buffer: number,
    firstPacket: number,
    count: number,
    identification: number,
  ): void => {
    const currentTap = tap()
    if (currentTap === null) return
    tapped.outcome = outcome
    tapped.offset = packetOffset(buffer, firstPacket)
    tapped.packetBytes = segmentBytes[buffer]
    tapped.count = count
    tapped.lastBytes = packetLength(buffer, firstPacket + count - 1)
    tapped.flow = senders.recordOf(senderOf[buffer])
    tapped.identification = identification
    currentTap(tapped)
  }

  /**
   * Delivers packets from `nextPacket` on, up to the first with a wrong ICRC, or, if identifications are needed, the
   * first that does not count up. A wrong first packet is counted and skipped. False in this case, or if the buffer has
   * no packet.
   */
  const deliver = (run: ReceivedRun): boolean => {
    const buffer = cursor
    const packets = packetsOf[buffer]
    const firstPacket = nextPacket
    const guess = guessIdentification(buffer, firstPacket)
    const correctCount = checkedIdentification === NOT_CHECKED ? countCorrect(buffer, firstPacket, guess) : 0
    let identification = -1
    if (correctCount > 0) identification = guess
    else if (firstPacket < packets) identification = takeIdentification(buffer, firstPacket)
    if (identification < 0) {
      polledPackets++
      if (firstPacket < packets) {
        polledBytes += packetLength(buffer, firstPacket)
        counters.icrcErrors++
        showTap('wrong icrc', buffer, firstPacket, 1, senders.nextIdentification(senderOf[buffer]))
      }
      advanceTo(firstPacket + 1)
      return false
    }
    const correctPackets =
      correctCount > 0 ? correctCount : 1 + countCorrect(buffer, firstPacket + 1, (identification + 1) & 0xffff)
    let end = firstPacket + correctPackets
    while (end < packets) {
      checkedIdentification = identify(buffer, end)
      const expected = (identification + end - firstPacket) & 0xffff
      if (checkedIdentification < 0 || (needsIdentifications() && checkedIdentification !== expected)) break
      checkedIdentification = NOT_CHECKED
      end++
    }
    const sender = senderOf[buffer]
    run.offset = packetOffset(buffer, firstPacket)
    run.count = end - firstPacket
    run.lastBytes = packetLength(buffer, end - 1)
    run.packetBytes = run.count === 1 ? run.lastBytes : segmentBytes[buffer]
    run.peer = senders.peerOf(sender)
    run.flowAddress = senders.recordOf(sender)
    run.identification = identification
    counters.receivedPackets += run.count
    const bytes = (run.count - 1) * run.packetBytes + run.lastBytes
    counters.receivedBytes += bytes
    polledBytes += bytes
    polledPackets += run.count
    showTap('passed', buffer, firstPacket, run.count, identification)
    advanceTo(end)
    hasUnreleased = true
    return true
  }

  return {
    receive: run => {
      for (;;) {
        while (cursor < filled) if (deliver(run)) return true
        reuseBuffers()
        // The poll ends only when all buffers are delivered. Then the first buffers, still in the cache, are used
        // again.
        const isPollOver = polledBytes >= POLL_BYTES || polledPackets >= POLL_PACKETS
        if (!isPollOver && fillBuffers()) continue
        // Nothing was delivered, so no `release` follows.
        if (!hasUnreleased) beginPoll()
        return false
      }
    },
    release: () => {
      hasUnreleased = false
      beginPoll()
      reuseBuffers()
    },
    clear: () => {
      cursor = 0
      nextPacket = 0
      filled = 0
      checkedIdentification = NOT_CHECKED
    },
  }
}
