/*
 * The UDP port: runs of packets go out of real sockets, port 4791 of the device's addresses, and come in there (RoCEv2,
 * InfiniBand Architecture Specification, annex A17; design.md section 7). Devices of one daemon, of different daemons and
 * those of other makers are all reached in this one way.
 *
 * Sending: runs are built in a staging area, cut into messages of up to 62 datagrams of equal size, and leave with one
 * system call per turn. The kernel cuts a message (UDP_SEGMENT); its datagrams have IPv4 identification 0, 1, 2 …, a
 * datagram alone has 0, and the ICRC is made for that. Who has never sent us such an identification may be reached over
 * hardware that counts in another way: it gets its datagrams one by one, and so does everybody when the kernel refuses to cut.
 *
 * Receiving: a UDP socket does not show the identification, which the ICRC covers, so it is found from the ICRC itself
 * (`findIdentification`); what that leaves of the check is in docs/cli.md. Nothing is allocated per packet. Knows no queue
 * pairs and no clock.
 */
import { EADDRINUSE, EADDRNOTAVAIL, EAGAIN, EINVAL, EIO, SystemError } from '../host/errno.ts'
import { type Watch, watch } from '../host/poll.ts'
import { closeUdpSocket, createUdpBatches, openUdpSocket, type UdpSocket } from '../host/udp.ts'
import { ROCE_UDP_PORT } from '../spec/headers.ts'
import { addressText } from '../wire/address.ts'
import { findIdentification, sealIcrc } from '../wire/icrc.ts'
import { createFlowTable } from './flow-table.ts'
import { addressWords } from './key-table.ts'
import { type Fate, noAddress, type Port, type PortCounters, type TappedRun } from './port.ts'
import { createSenders } from './senders.ts'

export interface UdpCounters extends PortCounters {
  /** Datagrams whose IPv4 identification was not the expected one and was found from their ICRC. */
  unexpectedIdentifications: number
  /** System calls, and messages that were cut into several datagrams. */
  sendCalls: number
  cutMessages: number
  /** Datagrams that the system refused to send, and the error number of the last one. */
  sendErrors: number
  lastSendError: number
}

export interface UdpPort extends Port {
  readonly counters: UdpCounters
}

export interface UdpPortOptions {
  /** Largest IP packet of the interface, bytes. */
  readonly mtu: number
  /** Its number, for link-local addresses. */
  readonly interfaceIndex: number
  /** `never`: datagrams leave one by one. Default `auto`. */
  readonly cut?: 'auto' | 'never'
  /** UDP port, both ends' (4791); another one is for tests. */
  readonly udpPort?: number
}

/** As on the memory link: 64 packets of path MTU 4096, or 990 of path MTU 256. */
const RUN_BYTES = 270336
const RUN_PACKETS = 1024
/** Datagrams of one message, and its bytes: below the kernel's limits (64 or 128 segments, 65,507 bytes). */
const MESSAGE_PACKETS = 62
const MESSAGE_BYTES = 65000
/** Room for runs that wait to be sent, and for layers that keep packets. */
const STAGING = 4 * RUN_BYTES
const ROOMS = 8
const MESSAGES = 2048
/** One more message, for what has to be sent again in another way. */
const SPARE = MESSAGES
const FLOWS = 16384
const RECEIVES = 32
/** Buffers that one call fills at most. */
const RECEIVE_AT_ONCE = 8
/** BTH and ICRC. */
const SHORTEST_PACKET = 16

/** All headers that a RoCEv2 packet may have around its payload, as Linux counts them (iboe_get_mtu). */
const HEADERS = 96

/** Largest path MTU that fits an interface whose IP packets have at most `mtu` bytes; at least 256. */
export const pathMtuOf = (mtu: number): number => {
  for (const size of [4096, 2048, 1024, 512]) if (mtu >= size + HEADERS) return size
  return 256
}

/**
 * What one sender may have unacknowledged, payload and 64 bytes a packet: half of a receiver's socket buffer that is
 * like ours. A datagram alone costs the kernel up to 2.2 times its bytes.
 */
const WINDOW_SHARE = 4.5
const LARGEST_WINDOW = 0x4_0000
const SMALLEST_WINDOW = 0x4000

const UNKNOWN = -2

const isLinkLocal = (address: Uint8Array): boolean => address[0] === 0xfe && (address[1] & 0xc0) === 0x80

export const createUdpPort = (options: UdpPortOptions): UdpPort => {
  const { mtu, interfaceIndex, cut = 'auto', udpPort = ROCE_UDP_PORT } = options
  const batches = createUdpBatches({
    staging: STAGING + ROOMS * RUN_BYTES,
    messages: MESSAGES + 1,
    destinations: FLOWS,
    receives: RECEIVES,
  })
  const { arena } = batches
  const flows = createFlowTable()
  const senders = createSenders(flows, udpPort)
  const sockets: UdpSocket[] = []
  const watches: Watch[] = []
  const addresses: Uint8Array[] = []
  const scratch = new Uint32Array(8)
  let closed = false
  let seals = 0
  /** The kernel cuts messages. */
  let cuts = cut === 'auto'

  // ---- sending ----

  /** By flow: which socket it leaves from, and whether messages to it must not be cut. */
  const socketOf = new Int32Array(FLOWS)
  const uncut = new Uint8Array(FLOWS)
  /** Messages waiting to be sent: [sent, queued). */
  const offsets = new Int32Array(MESSAGES)
  const sizes = new Int32Array(MESSAGES)
  const packetSizes = new Int32Array(MESSAGES)
  const flowsOf = new Int32Array(MESSAGES)
  let sent = 0
  let queued = 0
  /** The room that was reserved last: where it ends, and how far it is filled. */
  let roomEnd = -1
  let filled = 0
  let blocked = false

  const tapped: TappedRun = {
    direction: 'sent',
    fate: 'passed',
    arena,
    offset: 0,
    packetBytes: 0,
    count: 0,
    lastBytes: 0,
    flow: noAddress,
    identification: 0,
  }

  const putMessage = (slot: number, offset: number, bytes: number, flow: number, segment: number): void => {
    const { hopLimit, trafficClass } = flows.recordOf(flow)
    batches.putMessage(slot, offset, bytes, flow, segment, hopLimit, trafficClass)
  }

  const refused = (packets: number, errno: number): void => {
    counters.sendErrors += packets
    counters.lastSendError = errno
    counters.dropped += packets
  }

  /** The kernel would not have message `slot`: goes on packet by packet if it was several, else the packet is lost. */
  const sendOtherwise = (slot: number, errno: number): void => {
    const bytes = sizes[slot]
    const packet = packetSizes[slot]
    if (bytes <= packet) {
      refused(1, errno)
      return
    }
    if (errno === EIO || errno === EINVAL) cuts = false
    const flow = flowsOf[slot]
    uncut[flow] = 1
    const icrcFlow = flows.icrcFlowOf(flow)
    for (let at = 0; at < bytes; at += packet) {
      const length = Math.min(packet, bytes - at)
      sealIcrc(arena, offsets[slot] + at, length, icrcFlow, 0)
      putMessage(SPARE, offsets[slot] + at, length, flow, 0)
      counters.sendCalls++
      const result = batches.send(sockets[socketOf[flow]], SPARE, 1)
      if (result < 0) refused(1, -result)
    }
  }

  const setBlocked = (now: boolean): void => {
    if (blocked === now) return
    blocked = now
    for (const one of watches) one.update({ readable: true, writable: now })
  }

  /** Sends what is queued; false if the sockets take no more now. */
  const sendQueued = (): boolean => {
    while (sent < queued) {
      const socket = socketOf[flowsOf[sent]]
      let end = sent + 1
      while (end < queued && socketOf[flowsOf[end]] === socket) end++
      counters.sendCalls++
      const result = batches.send(sockets[socket], sent, end - sent)
      if (result === -EAGAIN) {
        setBlocked(true)
        return false
      }
      if (result >= 0) sent += result
      else {
        sendOtherwise(sent, -result)
        sent++
      }
    }
    for (let i = 0; i < queued; i++) flows.drop(flowsOf[i])
    sent = 0
    queued = 0
    setBlocked(false)
    return true
  }

  const showSent = (offset: number, packet: number, count: number, last: number, flow: number): void => {
    tapped.direction = 'sent'
    tapped.fate = 'passed'
    tapped.offset = offset
    tapped.packetBytes = packet
    tapped.count = count
    tapped.lastBytes = last
    tapped.flow = flows.recordOf(flow)
    tapped.identification = 0
    port.tap?.(tapped)
  }

  const queueMessage = (offset: number, packet: number, count: number, last: number, flow: number): void => {
    if (queued === MESSAGES && !sendQueued()) {
      counters.dropped += count
      return
    }
    const icrcFlow = flows.icrcFlowOf(flow)
    for (let i = 0; i < count; i++) sealIcrc(arena, offset + i * packet, i === count - 1 ? last : packet, icrcFlow, i)
    const bytes = (count - 1) * packet + last
    putMessage(queued, offset, bytes, flow, count > 1 ? packet : 0)
    offsets[queued] = offset
    sizes[queued] = bytes
    packetSizes[queued] = packet
    flowsOf[queued] = flow
    queued++
    flows.hold(flow)
    if (count > 1) counters.cutMessages++
    if (port.tap !== null) showSent(offset, packet, count, last, flow)
  }

  // ---- receiving ----

  /** Buffers [cursor, got) were filled and not handed out; `packet` is the next one of the first of them. */
  let cursor = 0
  let packet = 0
  let got = 0
  /** The identification of that packet, if it was looked at already. */
  let known = UNKNOWN
  let outstanding = false
  const senderOf = new Int32Array(RECEIVES)
  const packetsIn = new Int32Array(RECEIVES)
  /** The socket to ask next. */
  let turn = 0

  const fill = (): boolean => {
    if (closed) return false
    if (got === 0) senders.settle()
    for (let tries = sockets.length; tries > 0; tries--) {
      turn = turn + 1 < sockets.length ? turn + 1 : 0
      const room = Math.min(RECEIVE_AT_ONCE, RECEIVES - got)
      if (room === 0) return false
      const filledNow = batches.receive(sockets[turn], got, room)
      if (filledNow <= 0) continue
      for (let end = got + filledNow; got < end; got++) {
        const length = batches.lengths[got]
        packetsIn[got] = length <= 0 ? 0 : Math.ceil(length / batches.segments[got])
        if (length <= 0) counters.dropped++
        senderOf[got] = senders.find(batches, got, addresses[turn], turn)
      }
      return true
    }
    return false
  }

  const lengthOf = (buffer: number, index: number): number =>
    index === packetsIn[buffer] - 1
      ? batches.lengths[buffer] - index * batches.segments[buffer]
      : batches.segments[buffer]

  /** The identification of a packet, -1 if its ICRC is wrong. */
  const identify = (buffer: number, index: number): number => {
    const sender = senderOf[buffer]
    const expected = senders.nextIdentification(sender)
    const offset = batches.bufferAt(buffer) + index * batches.segments[buffer]
    const found = findIdentification(arena, offset, lengthOf(buffer, index), senders.icrcFlowOf(sender), expected)
    if (found < 0) return found
    if (found !== expected && found !== 0) counters.unexpectedIdentifications++
    senders.sawIdentification(sender, found)
    return found
  }

  const showReceived = (fate: Fate, buffer: number, from: number, count: number, identification: number): void => {
    tapped.direction = 'received'
    tapped.fate = fate
    tapped.offset = batches.bufferAt(buffer) + from * batches.segments[buffer]
    tapped.packetBytes = batches.segments[buffer]
    tapped.count = count
    tapped.lastBytes = lengthOf(buffer, from + count - 1)
    tapped.flow = senders.recordOf(senderOf[buffer])
    tapped.identification = identification
    port.tap?.(tapped)
  }

  const wrong = (buffer: number, index: number): void => {
    counters.icrcErrors++
    if (port.tap !== null) showReceived('wrong icrc', buffer, index, 1, senders.nextIdentification(senderOf[buffer]))
  }

  const takeIdentification = (buffer: number, index: number): number => {
    const found = known === UNKNOWN ? identify(buffer, index) : known
    known = UNKNOWN
    return found
  }
  /** Packet `index` of the buffer at `cursor`, or the next buffer's first one, comes next. */
  const goTo = (index: number): void => {
    packet = index
    if (index < packetsIn[cursor]) return
    cursor++
    packet = 0
  }

  const startAgain = (): void => {
    if (cursor < got || outstanding) return
    cursor = 0
    got = 0
  }

  const addressIndex = (address: Uint8Array): number =>
    addresses.findIndex(known => known.every((byte, i) => byte === address[i]))

  const onReady = (_readable: boolean, writable: boolean): void => {
    if (closed) return
    if (writable) sendQueued()
    port.wake?.()
  }

  const counters: UdpCounters = {
    sentPackets: 0,
    sentBytes: 0,
    receivedPackets: 0,
    receivedBytes: 0,
    icrcErrors: 0,
    dropped: 0,
    unexpectedIdentifications: 0,
    sendCalls: 0,
    cutMessages: 0,
    sendErrors: 0,
    lastSendError: 0,
  }

  const freeRooms = Array.from({ length: ROOMS }, (_, i) => STAGING + i * RUN_BYTES)

  const port: UdpPort & { windowBytes: number } = {
    arena,
    maxPackets: RUN_PACKETS,
    maxBytes: RUN_BYTES,
    pathMtu: pathMtuOf(mtu),
    windowBytes: LARGEST_WINDOW,
    counters,
    wake: null,
    tap: null,

    addAddress: address => {
      if (addressIndex(address) >= 0) return
      let socket: UdpSocket
      try {
        socket = openUdpSocket(address, udpPort, interfaceIndex)
      } catch (error) {
        // The default GID of a RoCE device; interfaces need not have that address, and may have it for several devices.
        const errno = error instanceof SystemError ? error.errno : 0
        if (isLinkLocal(address) && (errno === EADDRNOTAVAIL || errno === EADDRINUSE)) return
        throw error
      }
      port.windowBytes = Math.max(
        SMALLEST_WINDOW,
        Math.min(port.windowBytes, Math.floor(socket.receiveBuffer / WINDOW_SHARE)),
      )
      sockets.push(socket)
      addresses.push(address.slice())
      watches.push(watch(socket.fd, { readable: true }, onReady))
    },
    openFlow: address => {
      const socket = addressIndex(address.source)
      if (socket < 0)
        throw new RangeError(
          `flow: this port has no address ${addressText(address.source)}; it has ${addresses.map(addressText).join(', ')}`,
        )
      const flow = flows.open(0, address)
      if (flow >= FLOWS) {
        flows.close(0, flow)
        throw new RangeError(`flow: this port has ${FLOWS} paths already`)
      }
      socketOf[flow] = socket
      uncut[flow] = 0
      batches.setDestination(flow, address.destination, udpPort, interfaceIndex)
      return flow
    },
    closeFlow: flow => {
      const { destination } = flows.recordOf(flow) ?? noAddress
      const peer = port.peerOf(destination)
      flows.close(0, flow)
      if (peer >= 0 && port.peerOf(destination) < 0) senders.forgetPeer(peer)
    },
    peerOf: address => {
      addressWords(address, scratch, 0)
      return flows.peerOf(0, scratch, 0)
    },

    reserve: bytes => {
      if (bytes > RUN_BYTES) throw new RangeError(`a run has at most ${RUN_BYTES} bytes, not ${bytes}`)
      if (closed) return -1
      let at = queued === 0 ? 0 : (filled + 63) & ~63
      if (at + bytes > STAGING || (blocked && queued > 0)) {
        if (!sendQueued()) return -1
        at = 0
      }
      filled = at
      roomEnd = at + bytes
      return at
    },
    commit: (offset, size, count, last, flow) => {
      if (roomEnd < 0) throw new Error('commit without reserve')
      const end = offset + (count - 1) * size + last
      if (count < 1 || count > RUN_PACKETS || last < SHORTEST_PACKET || last > size || offset < filled || end > roomEnd)
        throw new RangeError(
          `a run of ${count} packets of ${size} bytes, the last of ${last}, at ${offset} does not fit the room reserved`,
        )
      if (!flows.isOpen(0, flow)) throw new Error(`flow ${flow} is not open`)
      filled = end
      counters.sentPackets += count
      counters.sentBytes += end - offset
      const peer = flows.peerOf(0, flows.words(), flows.destinationAt(flow))
      const most =
        cuts && uncut[flow] === 0 && (flows.icrcFlowOf(flow).version === 6 || senders.peerCounts(peer))
          ? Math.max(1, Math.min(MESSAGE_PACKETS, Math.floor(MESSAGE_BYTES / size)))
          : 1
      for (let i = 0; i < count; i += most) {
        const now = Math.min(most, count - i)
        const lastNow = i + now === count ? last : size
        queueMessage(offset + i * size, now === 1 ? lastNow : size, now, lastNow, flow)
      }
    },
    flush: () => {
      roomEnd = -1
      sendQueued()
    },

    receive: run => {
      for (;;) {
        while (cursor < got) {
          const buffer = cursor
          const packets = packetsIn[buffer]
          const from = packet
          const first = from < packets ? takeIdentification(buffer, from) : -1
          if (first < 0) {
            if (from < packets) wrong(buffer, from)
            goTo(from + 1)
            continue
          }
          let end = from + 1
          while (end < packets) {
            known = identify(buffer, end)
            // Whoever looks at packets wants to know each one's identification: it counts up within a run.
            if (known < 0 || (seals > 0 && known !== ((first + end - from) & 0xffff))) break
            known = UNKNOWN
            end++
          }
          run.offset = batches.bufferAt(buffer) + from * batches.segments[buffer]
          run.packetBytes = batches.segments[buffer]
          run.count = end - from
          run.lastBytes = lengthOf(buffer, end - 1)
          if (run.count === 1) run.packetBytes = run.lastBytes
          run.peer = senders.peerOf(senderOf[buffer])
          run.from = senders.recordOf(senderOf[buffer])
          run.identification = first
          counters.receivedPackets += run.count
          counters.receivedBytes += (run.count - 1) * run.packetBytes + run.lastBytes
          if (port.tap !== null) showReceived('passed', buffer, from, run.count, first)
          goTo(end)
          outstanding = true
          return true
        }
        startAgain()
        if (!fill()) return false
      }
    },
    release: () => {
      outstanding = false
      startAgain()
    },
    requireSeal: change => {
      seals += change
    },
    takeRoom: bytes => {
      if (bytes > RUN_BYTES) throw new RangeError(`room is at most ${RUN_BYTES} bytes, not ${bytes}`)
      return freeRooms.pop() ?? -1
    },
    giveRoom: offset => {
      freeRooms.push(offset)
    },

    nextTimeout: () => Number.POSITIVE_INFINITY,
    onTimeout: () => {},
    close: () => {
      if (closed) return
      sendQueued()
      closed = true
      cursor = 0
      got = 0
      for (const one of watches) one.stop()
      for (const socket of sockets) closeUdpSocket(socket)
      flows.closeAll(0)
    },
  }
  return port
}
