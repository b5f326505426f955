/*
 * The UDP port: sends and receives runs of packets on sockets at port 4791 of the device's addresses (RoCEv2,
 * InfiniBand Architecture Specification, annex A17; docs/decisions/udp.md). This file has addresses, flows and
 * interface changes; sending.ts and receiving.ts have the data path.
 */
import { EADDRINUSE, EADDRNOTAVAIL, SystemError } from '../../../host/errno.ts'
import { type Watch, watch } from '../../../host/event-loop/poll.ts'
import { hopLimitBetween, routeBetween, routeError } from '../../../host/net/route.ts'
import { closeUdpSocket, createUdpBatches, isMulticast, openUdpSocket, type UdpSocket } from '../../../host/net/udp.ts'
import { ROCE_UDP_PORT } from '../../../spec/wire/headers.ts'
import { addressText, isLinkLocal, isMappedIpv4 } from '../../wire/address.ts'
import { createFlowTable, ONLY_PORT, requireFlowRanges } from '../flow-table.ts'
import { type Port, SCRATCH_BYTES } from '../port.ts'
import { RUN_BYTES, RUN_PACKETS } from '../runs/limits.ts'
import { createAddresses, LAYER_BUFFERS_BYTES, socketPortParts } from '../socket-port.ts'
import { createOutlets } from './outlets.ts'
import { createUdpReceiving, RECEIVE_BUFFERS, type ReceiveCounters } from './receiving.ts'
import { createSenders } from './senders.ts'
import {
  createUdpSending,
  FLUSH_EARLY_PACKETS,
  MAX_FLOWS,
  MESSAGE_SLOTS,
  SEND_AREA_BYTES,
  type SendCounters,
} from './sending.ts'
import { MAX_SHARED_WINDOW_BYTES, MAX_WINDOW_BYTES, pathMtuOf, sharedWindowOf } from './window.ts'

interface UdpCounters extends SendCounters, ReceiveCounters {}

export interface UdpPort extends Port {
  readonly counters: UdpCounters
}

export interface UdpPortOptions {
  /** Maximum IP packet of the interface, bytes. */
  readonly mtu: number
  /** Index of the interface, for link-local addresses and multicast groups. */
  readonly interfaceIndex: number
  /** `never`: one datagram per message. Default `auto`: UDP_SEGMENT is used where possible (sending.ts). */
  readonly segmentation?: 'auto' | 'never'
}

const noCounts = (): UdpCounters => ({
  sentPackets: 0,
  sentBytes: 0,
  receivedPackets: 0,
  receivedBytes: 0,
  icrcErrors: 0,
  dropped: 0,
  unexpectedIdentifications: 0,
  sendCalls: 0,
  segmentedMessages: 0,
  sendErrors: 0,
  lastSendError: 0,
})

/** The error for a flow from `address`. */
const noAddress = (
  address: Uint8Array,
  { addresses, sockets }: ReturnType<typeof createAddresses<UdpSocket>>,
): RangeError => {
  const own = addresses.filter((ownAddress, i) => sockets[i] !== undefined && !isMulticast(ownAddress))
  return new RangeError(
    `flow: this port has no address ${addressText(address)}; it has ${own.map(addressText).join(', ') || 'none'}`,
  )
}

/** The router to which the system sends packets of one of these addresses. */
const routerTo = (sources: readonly Uint8Array[], address: Uint8Array): string | undefined => {
  const isIpv4 = isMappedIpv4(address)
  const source = sources.find(one => isMappedIpv4(one) === isIpv4 && !isMulticast(one) && !isLinkLocal(one))
  const gateway = source && !isLinkLocal(address) ? routeBetween(source, address)?.gateway : undefined
  return gateway && addressText(gateway)
}

/** Joins groups on another interface. Throws the first error. */
const joinAgain = (port: Pick<Port, 'addAddress' | 'removeAddress'>, groups: readonly Uint8Array[]): void => {
  let firstError: unknown
  for (const group of groups) {
    port.removeAddress(group)
    try {
      port.addAddress(group)
    } catch (error) {
      // For example an IPv6 group, on an interface whose MTU is too small for IPv6. The port joins the other groups.
      firstError ??= error
    }
  }
  if (firstError !== undefined) throw firstError
}

export const createUdpPort = ({ mtu, interfaceIndex, segmentation = 'auto' }: UdpPortOptions): UdpPort => {
  let currentInterface = interfaceIndex
  const batches = createUdpBatches({
    staging: SEND_AREA_BYTES + LAYER_BUFFERS_BYTES + SCRATCH_BYTES,
    messages: MESSAGE_SLOTS,
    destinations: MAX_FLOWS,
    receives: RECEIVE_BUFFERS,
  })
  const flows = createFlowTable()
  const senders = createSenders(flows)
  const addressTable = createAddresses<UdpSocket>()
  const { addresses, sockets, numberOf } = addressTable
  /** By number of the address: the index of its VLAN interface. */
  const vlans: (number | undefined)[] = []
  const interfaceOf = (address: Uint8Array): number => vlans[numberOf(address)] ?? currentInterface
  /** By number of the address. */
  const watches: (Watch | undefined)[] = []
  let isClosed = false
  /** Number of taps and layers that need exact identifications. */
  let sealReasons = 0

  const counters = noCounts()
  const tap = () => port.tap
  const outlets = createOutlets({
    interfaceIndex: () => currentInterface,
    sendQueued: () => sending.sendQueued(),
    wake: () => port.wake?.(),
  })
  const sending = createUdpSending(batches, outlets.sockets, flows, senders, counters, {
    canSegment: segmentation === 'auto',
    tap,
    // Only the blocked socket: another one is always writable, and would wake the process without end.
    onBlocked: outlets.setBlocked,
  })
  const setDestination = (flow: number): void => {
    const { destination, flowLabel } = flows.recordOf(flow)
    batches.setDestination(flow, destination, ROCE_UDP_PORT, currentInterface, flowLabel)
  }
  const receiving = createUdpReceiving(batches, sockets, addresses, senders, counters, {
    tap,
    needsIdentifications: () => sealReasons > 0,
  })

  const parts = socketPortParts(flows, senders, SEND_AREA_BYTES)
  const port: UdpPort & { windowBytes: number; sharedWindowBytes: number } = {
    arena: batches.arena,
    ...parts,
    scratch: SEND_AREA_BYTES + LAYER_BUFFERS_BYTES,
    maxPackets: RUN_PACKETS,
    maxSinglePacketRun: FLUSH_EARLY_PACKETS,
    maxFlows: MAX_FLOWS,
    maxBytes: RUN_BYTES,
    pathMtu: pathMtuOf(mtu),
    hasGroupSockets: true,
    windowBytes: MAX_WINDOW_BYTES,
    sharedWindowBytes: MAX_SHARED_WINDOW_BYTES,
    counters,
    hopLimitOf: hopLimitBetween,
    routerTo: address => routerTo(addresses, address),
    wake: null,
    tap: null,

    addAddress: (address, claim, vlan) => {
      if (sockets[numberOf(address)] !== undefined) return
      let socket: UdpSocket
      try {
        socket = openUdpSocket(address, ROCE_UDP_PORT, vlan?.index || currentInterface, claim)
      } catch (error) {
        // A link-local address is the default GID of a RoCE device. The interface need not have this address, and
        // several devices of one interface share it.
        const errno = error instanceof SystemError ? error.errno : 0
        if (isLinkLocal(address) && (errno === EADDRNOTAVAIL || errno === EADDRINUSE)) return
        throw error
      }
      port.sharedWindowBytes = Math.min(port.sharedWindowBytes, sharedWindowOf(socket.receiveBuffer))
      port.windowBytes = Math.min(MAX_WINDOW_BYTES, port.sharedWindowBytes)
      const number = addressTable.setSocket(address, socket)
      vlans[number] = vlan?.index || undefined
      const watcher = watch(socket.fd, { readable: true }, (_readable, writable) => {
        if (isClosed) return
        if (writable) sending.sendQueued()
        port.wake?.()
      })
      watches[number] = watcher
      if (!isMulticast(address)) outlets.setSocket(address, socket, watcher)
    },
    removeAddress: address => {
      const number = numberOf(address)
      const socket = sockets[number]
      if (socket === undefined) return
      watches[number]?.stop()
      outlets.removeSockets(address)
      closeUdpSocket(socket)
      sockets[number] = undefined
      watches[number] = undefined
      // Packets queued for this socket are lost, and must not block others.
      sending.sendQueued()
    },
    // Opening a socket on a multicast address joins its group (`openUdpSocket`).
    joinGroup: group => port.addAddress(group),
    // Joins all groups again, because the kernel has ended the memberships together with the old interface.
    setInterface: newInterface => {
      currentInterface = newInterface
      for (let flow = 0; flow < MAX_FLOWS; flow++) if (flows.isOpen(ONLY_PORT, flow)) setDestination(flow)
      // Also the groups without a socket, which could not be joined on the interface before.
      joinAgain(port, addresses.filter(isMulticast))
    },
    leaveGroup: group => {
      const number = numberOf(group)
      if (number < 0) return
      port.removeAddress(group)
      addressTable.freeNumber(number)
    },
    openFlow: address => {
      if (sockets[numberOf(address.source)] === undefined) throw noAddress(address.source, addressTable)
      requireFlowRanges(address)
      const outlet = outlets.take(address.source, address.sourcePort)
      const flow = flows.open(ONLY_PORT, { ...address, sourcePort: outlets.sourcePortOf(outlet) })
      const refuse = (error: Error): Error => {
        flows.close(ONLY_PORT, flow)
        outlets.release(outlet)
        return error
      }
      if (flow >= MAX_FLOWS) throw refuse(new RangeError(`flow: this port has ${MAX_FLOWS} flows already`))
      // a group needs no route: it is sent through the port's interface
      const { source, destination } = address
      const error = isMulticast(destination) ? 0 : routeError(source, destination, interfaceOf(source))
      if (error !== 0)
        throw refuse(new SystemError('route', error, `from ${addressText(source)} to ${addressText(destination)}`))
      sending.addFlow(flow, outlet)
      setDestination(flow)
      return flow
    },
    reopenFlow: flow => {
      parts.reopenFlow(flow)
      outlets.retain(sending.outletOf(flow))
    },
    closeFlow: flow => {
      parts.closeFlow(flow)
      outlets.release(sending.outletOf(flow))
    },

    reserve: bytes => (isClosed ? -1 : sending.reserve(bytes)),
    commit: sending.commit,
    flush: () => {
      if (!isClosed) sending.flush()
    },
    receive: run => !isClosed && receiving.receive(run),
    release: receiving.release,

    requireSeal: change => {
      sealReasons += change
    },
    close: () => {
      if (isClosed) return
      sending.sendQueued()
      isClosed = true
      receiving.clear()
      for (const watcher of watches) watcher?.stop()
      for (const address of addresses) outlets.removeSockets(address)
      for (const socket of sockets) if (socket !== undefined) closeUdpSocket(socket)
      // A later `removeAddress` must not close these descriptors again: they may have been reused.
      sockets.fill(undefined)
      flows.closeAll(ONLY_PORT)
      batches.close()
    },
  }
  return port
}
