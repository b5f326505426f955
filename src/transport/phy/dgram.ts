/*
 * The UDP port without native code: single datagrams by node:dgram (docs/decisions/udp.md).
 *
 * It works only with other ports of this kind. The kernel chooses the IPv4 identification, which the ICRC covers, so
 * this port cannot compute the standard ICRC. Ports of this kind therefore compute the ICRC for identification 0, and
 * mark their packets: the ICRC is XORed with ICRC_MARK. Packets with a standard ICRC are dropped, counted and reported.
 * Hop limit, traffic class and flow label can neither be set for a flow nor read.
 */

import { EADDRINUSE, EADDRNOTAVAIL, EOPNOTSUPP, SystemError } from '../../host/errno.ts'
import { type DgramSocket, openDgramSocket } from '../../host/net/dgram.ts'
import { ICRC_BYTES, ROCE_UDP_PORT } from '../../spec/wire/headers.ts'
import { addressText, hasLinkScope, isLinkLocal, isMappedIpv4, isMulticastGid, parseAddress } from '../wire/address.ts'
import { type Arena, plainArena } from '../wire/arena.ts'
import { findIdentification, sealIcrc, verifyIcrc } from '../wire/icrc.ts'
import { createFlowTable, type FlowTable, ONLY_PORT, requireFlowRanges } from './flow-table.ts'
import { addressWords } from './key-table.ts'
import {
  emptyTappedRun,
  type FlowAddress,
  type Port,
  type PortCounters,
  type ReceivedRun,
  SCRATCH_BYTES,
  type TapOutcome,
} from './port.ts'
import { RUN_BYTES, RUN_PACKETS, requireRun, requireRunBytes, SHORTEST_PACKET } from './runs/limits.ts'
import { createAddresses, LAYER_BUFFERS_BYTES, socketPortParts } from './socket-port.ts'
import { createSenders, type Senders } from './udp/senders.ts'
import { MAX_SHARED_WINDOW_BYTES, MAX_WINDOW_BYTES_WITHOUT_GSO, pathMtuOf, sharedWindowOf } from './udp/window.ts'

interface DgramCounters extends PortCounters {
  /** Dropped packets from other kinds of ports. */
  foreignPackets: number
  /** Received packets that were dropped because the memory for received packets was full. */
  receiveOverflows: number
  /** Datagrams that could not be sent, and the errno of the last one. */
  sendErrors: number
  lastSendError: number
}

export interface DgramPort extends Port {
  readonly counters: DgramCounters
}

interface DgramPortOptions {
  /** Maximum IP packet of the interface, bytes; name of the interface, for link-local addresses and groups. */
  readonly mtu: number
  readonly interfaceName: string
  /** Creates the memory for packets; `release` is called when the port is closed. Default: ordinary memory. */
  readonly makeArena?: (bytes: number) => { readonly arena: Arena; release(): void }
  /** Called once for each address that sends packets with a standard ICRC; for at most MAX_PEER_ADDRESSES addresses. */
  readonly onForeign?: (address: Uint8Array) => void
}

/** XORed with the ICRC. No IPv4 identification changes the ICRC of a packet by this value. */
export const ICRC_MARK = 0x756d_6461

/** Parts of the arena: runs to send, buffers of layers, the owner's scratch memory, received packets. */
const SEND_AREA_BYTES = 4 * RUN_BYTES
const LAYER_BUFFERS_AT = SEND_AREA_BYTES
const SCRATCH_AT = LAYER_BUFFERS_AT + LAYER_BUFFERS_BYTES
const RECEIVED_AT = SCRATCH_AT + SCRATCH_BYTES
const RECEIVED_BYTES = 4 << 20
/** Received packets begin at 4 modulo 16, so that the payload after the BTH (12 bytes) is aligned for copies. */
const PHASE = 4
/** Maximum number of cached parsed addresses, and of addresses reported to `onForeign`. */
const MAX_PEER_ADDRESSES = 4096

interface ReceivedPacket {
  readonly offset: number
  readonly length: number
  /** Number in `senders`. */
  readonly sender: number
}

interface QueuedPacket {
  readonly at: number
  readonly length: number
  /** Number of the source address in `addresses`. */
  readonly source: number
  /** As Node writes addresses. */
  readonly destination: string
}

/** What both halves of the port use. `addresses` and `sockets` are those of `Addresses`. */
interface Shared {
  readonly arena: Arena
  readonly flows: FlowTable
  readonly senders: Senders
  readonly addresses: readonly Uint8Array[]
  readonly sockets: readonly (DgramSocket | undefined)[]
  readonly counters: DgramCounters
  /** Wakes the port's owner. */
  wake(): void
  showTap(direction: 'sent' | 'received', outcome: TapOutcome, flow: FlowAddress, offset: number, length: number): void
}

/** Whether an address is valid on one link only, or is a group of one interface (ff01::/16, ff11::/16 …). */
const needsZone = (address: Uint8Array): boolean =>
  hasLinkScope(address) || (address[0] === 0xff && (address[1] & 0xf) === 1)

/** Marks the ICRC of a packet, or removes the mark. */
const mark = (arena: Arena, offset: number, length: number): void => {
  const at = offset + length - ICRC_BYTES
  arena.view.setUint32(at, arena.view.getUint32(at) ^ ICRC_MARK)
}

/**
 * The sending half: packets are sealed and queued in `commit`, sent in `flush`, or in `reserve` if the area is full.
 */
const createSending = ({ arena, flows, sockets, counters, wake, showTap }: Shared) => {
  /** By flow: number of the source address, and the destination's text for Node. */
  const sourceOf: number[] = []
  const destinationOf: string[] = []
  let isClosed = false
  /** End of the used part of the send area. */
  let filled = 0
  /** -1: no reservation. */
  let reservationEnd = -1
  /** Datagrams that Node has not sent yet. */
  let unsentDatagrams = 0
  /** Whether a reservation failed and waits for `unsentDatagrams` to be 0. */
  let isReserveWaiting = false
  /** Packets with ICRCs, for `sendQueued`. */
  const queue: QueuedPacket[] = []

  const onSent = (errno: number, bytes: number): void => {
    if (errno === 0) {
      counters.sentPackets++
      counters.sentBytes += bytes
    } else {
      counters.sendErrors++
      counters.lastSendError = errno
      counters.dropped++
    }
    if (--unsentDatagrams > 0 || !isReserveWaiting || isClosed) return
    isReserveWaiting = false
    wake()
  }

  const queuePacket = (flow: number, at: number, length: number): void => {
    sealIcrc(arena, at, length, flows.icrcFlowOf(flow), 0)
    showTap('sent', 'passed', flows.recordOf(flow), at, length)
    queue.push({ at, length, source: sourceOf[flow], destination: destinationOf[flow] })
  }

  const sendQueued = (): void => {
    unsentDatagrams += queue.length
    for (const { at, length, source: sourceNumber, destination } of queue) {
      mark(arena, at, length)
      const socket = sockets[sourceNumber]
      if (socket === undefined) onSent(EADDRNOTAVAIL, length)
      else socket.send(arena.bytes, at, length, ROCE_UDP_PORT, destination, onSent)
    }
    queue.length = 0
  }

  return {
    /** `source`: number of the source address. `destination`: as Node writes addresses. */
    addFlow(flow: number, source: number, destination: string): void {
      sourceOf[flow] = source
      destinationOf[flow] = destination
    },
    reserve(bytes: number): number {
      requireRunBytes(bytes)
      if (isClosed) return -1
      let at = unsentDatagrams === 0 && queue.length === 0 ? 0 : (filled + 63) & ~63
      if (at + bytes > SEND_AREA_BYTES) {
        sendQueued()
        isReserveWaiting = unsentDatagrams > 0
        if (isReserveWaiting) return -1
        at = 0
      }
      filled = at
      reservationEnd = at + bytes
      return at
    },
    commit(offset: number, size: number, count: number, last: number, flow: number): void {
      const end = requireRun(offset, size, count, last, filled, reservationEnd)
      if (!flows.isOpen(ONLY_PORT, flow)) throw new Error(`flow ${flow} is not open`)
      filled = end
      for (let i = 0; i < count; i++) queuePacket(flow, offset + i * size, i === count - 1 ? last : size)
    },
    flush(): void {
      reservationEnd = -1
      if (!isClosed) sendQueued()
    },
    close(): void {
      isClosed = true
    },
  }
}

/** The receiving half: checks packets when they arrive, and keeps them until they are received and released. */
const createReceiving = (
  { arena, senders, addresses, counters, wake, showTap }: Shared,
  onForeign: DgramPortOptions['onForeign'],
) => {
  /** Bytes of addresses, by their text. */
  const parsedAddresses = new Map<string, Uint8Array>()
  const reportedAddresses = new Set<string>()
  /** One row, for `senders.findOrAdd`. */
  const sourceColumns = {
    addresses: new Uint32Array(4),
    ports: new Uint16Array(1),
    trafficClasses: [0],
    hopLimits: [0],
  }
  let isClosed = false
  /** Packets in the memory for received packets; those from `cursor` on are not delivered yet. */
  let received: ReceivedPacket[] = []
  let cursor = 0
  /** Used bytes of this memory. */
  let usedBytes = 0
  /** Whether packets were delivered and not released yet. */
  let hasUnreleased = false

  /** The 16 bytes of a Node address. */
  const bytesOf = (text: string): Uint8Array => {
    let bytes = parsedAddresses.get(text)
    if (bytes === undefined) {
      if (parsedAddresses.size >= MAX_PEER_ADDRESSES) parsedAddresses.clear()
      bytes = parseAddress(text.split('%')[0]) ?? new Uint8Array(16)
      parsedAddresses.set(text, bytes)
    }
    return bytes
  }

  const countForeign = (sourceText: string): void => {
    counters.foreignPackets++
    if (reportedAddresses.has(sourceText) || reportedAddresses.size >= MAX_PEER_ADDRESSES) return
    reportedAddresses.add(sourceText)
    onForeign?.(bytesOf(sourceText))
  }

  const reuseMemory = (): void => {
    if (hasUnreleased || cursor < received.length) return
    received = []
    cursor = 0
    usedBytes = 0
    senders.clearIfFull()
  }

  return {
    /** A datagram has arrived. `localNumber`: number of the destination address in `addresses`. */
    onMessage(localNumber: number, bytes: Uint8Array, sourceText: string, sourcePort: number): void {
      if (isClosed) return
      reuseMemory()
      const at = RECEIVED_AT + PHASE + ((usedBytes + 15) & ~15)
      if (bytes.length < SHORTEST_PACKET) {
        counters.icrcErrors++
        return
      }
      if (at + bytes.length > RECEIVED_AT + RECEIVED_BYTES) {
        counters.receiveOverflows++
        return
      }
      arena.bytes.set(bytes, at)
      addressWords(bytesOf(sourceText), sourceColumns.addresses, 0)
      sourceColumns.ports[0] = sourcePort
      const sender = senders.findOrAdd(sourceColumns, 0, addresses[localNumber], localNumber)
      const flow = senders.icrcFlowOf(sender)
      mark(arena, at, bytes.length)
      if (!verifyIcrc(arena, at, bytes.length, flow, 0)) {
        mark(arena, at, bytes.length)
        if (findIdentification(arena, at, bytes.length, flow, 0) >= 0) countForeign(sourceText)
        else counters.icrcErrors++
        showTap('received', 'wrong icrc', senders.recordOf(sender), at, bytes.length)
        return
      }
      usedBytes = at + bytes.length - RECEIVED_AT
      received.push({ offset: at, length: bytes.length, sender })
      if (cursor === received.length - 1) wake()
    },
    receive(run: ReceivedRun): boolean {
      if (isClosed || cursor === received.length) return false
      const { offset, length, sender } = received[cursor++]
      run.offset = offset
      run.packetBytes = length
      run.count = 1
      run.lastBytes = length
      run.peer = senders.peerOf(sender)
      run.flowAddress = senders.recordOf(sender)
      run.identification = 0
      counters.receivedPackets++
      counters.receivedBytes += length
      showTap('received', 'passed', run.flowAddress, offset, length)
      hasUnreleased = true
      return true
    },
    release(): void {
      hasUnreleased = false
      reuseMemory()
    },
    close(): void {
      isClosed = true
    },
  }
}

export const createDgramPort = ({
  mtu,
  interfaceName,
  makeArena = bytes => ({ arena: plainArena(bytes), release: () => {} }),
  onForeign,
}: DgramPortOptions): DgramPort => {
  const { arena, release } = makeArena(RECEIVED_AT + RECEIVED_BYTES)
  const flows = createFlowTable()
  const senders = createSenders(flows)
  const addressTable = createAddresses<DgramSocket>()
  const { addresses, sockets, numberOf } = addressTable
  const counters: DgramCounters = {
    sentPackets: 0,
    sentBytes: 0,
    receivedPackets: 0,
    receivedBytes: 0,
    icrcErrors: 0,
    dropped: 0,
    foreignPackets: 0,
    receiveOverflows: 0,
    sendErrors: 0,
    lastSendError: 0,
  }
  let isClosed = false

  const tapped = { sent: emptyTappedRun(arena, 'sent'), received: emptyTappedRun(arena, 'received') }
  const shared: Shared = {
    arena,
    flows,
    senders,
    addresses,
    sockets,
    counters,
    wake: () => port.wake?.(),
    showTap: (direction, outcome, flow, offset, length) => {
      if (port.tap === null) return
      const run = tapped[direction]
      Object.assign(run, { outcome, flow, offset, packetBytes: length, count: 1, lastBytes: length })
      port.tap(run)
    },
  }
  const sending = createSending(shared)
  const receiving = createReceiving(shared, onForeign)

  /** The text of an address for Node. */
  const textOf = (address: Uint8Array): string =>
    needsZone(address) ? `${addressText(address)}%${interfaceName}` : addressText(address)

  /** The interface in Node's multicast options: for IPv4 its address. */
  const interfaceText = (ownAddress: Uint8Array): string =>
    isMappedIpv4(ownAddress) ? addressText(ownAddress) : `::%${interfaceName}`

  /** Opens a socket for an address or group. Throws as `openDgramSocket`. */
  const openSocket = (address: Uint8Array, multicast: { sendThrough?: string; memberOn?: string }): void => {
    const number = addressTable.numberIfAdded(address)
    const onDatagram = (bytes: Uint8Array, sourceText: string, sourcePort: number): void =>
      receiving.onMessage(number, bytes, sourceText, sourcePort)
    const socket = openDgramSocket(textOf(address), ROCE_UDP_PORT, onDatagram, multicast)
    port.sharedWindowBytes = Math.min(port.sharedWindowBytes, sharedWindowOf(socket.receiveBuffer))
    port.windowBytes = Math.min(MAX_WINDOW_BYTES_WITHOUT_GSO, port.sharedWindowBytes)
    addressTable.setSocket(address, socket)
  }

  const port: DgramPort & { windowBytes: number; sharedWindowBytes: number } = {
    arena,
    ...socketPortParts(flows, senders, LAYER_BUFFERS_AT),
    scratch: SCRATCH_AT,
    maxPackets: RUN_PACKETS,
    maxBytes: RUN_BYTES,
    pathMtu: pathMtuOf(mtu),
    hasGroupSockets: true,
    windowBytes: MAX_WINDOW_BYTES_WITHOUT_GSO,
    sharedWindowBytes: MAX_SHARED_WINDOW_BYTES,
    counters,
    wake: null,
    tap: null,

    addAddress: (address, claim) => {
      if (sockets[numberOf(address)] !== undefined) return
      if (claim === 'spare')
        throw new SystemError('bind', EOPNOTSUPP, 'a socket of node:dgram cannot release an address to other processes')
      try {
        openSocket(address, { sendThrough: interfaceText(address) })
      } catch (error) {
        // The default GID need not exist on the interface, and may be shared by devices.
        const errno = error instanceof SystemError ? error.errno : 0
        if (isLinkLocal(address) && (errno === EADDRNOTAVAIL || errno === EADDRINUSE)) return
        throw error
      }
    },
    removeAddress: address => {
      const number = numberOf(address)
      sockets[number]?.close()
      if (number >= 0) sockets[number] = undefined
    },
    joinGroup: group => {
      if (sockets[numberOf(group)] !== undefined) return
      const isIpv4 = isMappedIpv4(group)
      const ownAddress = addresses.find(
        (address, i) => sockets[i] !== undefined && !isMulticastGid(address) && isMappedIpv4(address) === isIpv4,
      )
      if (ownAddress === undefined)
        throw new RangeError(`group ${addressText(group)}: this port has no address of its family`)
      openSocket(group, { memberOn: interfaceText(ownAddress) })
    },
    leaveGroup: group => {
      const number = numberOf(group)
      if (number < 0) return
      port.removeAddress(group)
      addressTable.freeNumber(number)
    },
    openFlow: address => {
      const number = numberOf(address.source)
      if (sockets[number] === undefined)
        throw new RangeError(`flow: this port has no address ${addressText(address.source)}`)
      requireFlowRanges(address)
      const flow = flows.open(ONLY_PORT, { ...address, sourcePort: ROCE_UDP_PORT })
      sending.addFlow(flow, number, textOf(address.destination))
      return flow
    },

    reserve: sending.reserve,
    commit: sending.commit,
    flush: sending.flush,
    receive: receiving.receive,
    release: receiving.release,

    requireSeal: () => {},
    close: () => {
      if (isClosed) return
      isClosed = true
      sending.close()
      receiving.close()
      for (const socket of sockets) socket?.close()
      // A later `removeAddress` must not close them again: Node throws an Error.
      sockets.fill(undefined)
      flows.closeAll(ONLY_PORT)
      release()
    },
  }
  return port
}
