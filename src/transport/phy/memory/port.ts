/*
 * A port of a memory link (transport/phy/memory.ts).
 */
import type { Arena } from '../../wire/arena.ts'
import { addressWords } from '../key-table.ts'
import type { PacketCarrier } from '../links/packet-carrier.ts'
import {
  emptyTappedRun,
  type FlowAddress,
  type Port,
  type PortFabric,
  type PortLinks,
  type PortTap,
  type ReceivedRun,
  type TappedRun,
} from '../port.ts'
import { RUN_BYTES, RUN_PACKETS, requireRun, requireRunBytes } from '../runs/limits.ts'
import { allocateRecord } from '../runs/records.ts'
import { pathMtuOf } from '../udp/window.ts'
import { HostTraffic } from './host-traffic.ts'
import { GROUP, type MemoryRoutes, NOWHERE } from './routes.ts'
import { RunQueue, type Transit } from './run-queue.ts'
import type { MemoryRuns } from './runs.ts'

const PATH_MTU = 4096

/** `direct`: messages may be passed without packets (`Port.receiverOf`) while no ICRCs and taps are needed. */
export type Path = 'packets' | 'direct'

/** What the ports of a link share. */
export interface MemoryMedium {
  readonly runs: MemoryRuns
  readonly routes: MemoryRoutes
  /** By number. */
  readonly ports: (MemoryPort | undefined)[]
  /** With a carrier. */
  readonly portOfHost: (MemoryPort | undefined)[]
  readonly path: Path
  readonly transit: Transit | undefined
  /** Of the carrier's next packet: captures tell copies by it that are in flight at the same time. */
  nextIdentification: number
}

/** Places in the arena (`Port.scratch`, `Port.staging`). */
interface PortPlaces {
  readonly scratch: number
  readonly staging: number
}

/** Functions are properties, since layers that wrap a port pass them on as their own. */
export class MemoryPort implements Port {
  readonly arena: Arena
  readonly scratch: number
  readonly staging: number
  readonly maxPackets: number
  readonly maxBytes: number
  readonly pathMtu: number
  readonly pathBytes: number | undefined
  readonly hasRoceV1 = true
  readonly hasGroupSockets = false
  readonly links: PortLinks | undefined
  readonly counters = {
    sentPackets: 0,
    sentBytes: 0,
    receivedPackets: 0,
    receivedBytes: 0,
    icrcErrors: 0,
    dropped: 0,
  }
  wake: (() => void) | null = null
  tap: PortTap | null = null
  receiver: object | null | undefined = null

  readonly #medium: MemoryMedium
  readonly #runs: MemoryRuns
  readonly #routes: MemoryRoutes
  readonly #number: number
  readonly #host: number
  readonly #carrier: PacketCarrier | undefined
  /** With a carrier. */
  readonly #traffic: HostTraffic | undefined
  readonly #queue: RunQueue
  readonly #tapped: TappedRun
  readonly #key = new Uint32Array(4)
  /** Whether runs were delivered since the last release. */
  #hasUnreleased = false
  /** Buffer of the last reservation (-1: none), and end of its used part. */
  #reserved = -1
  #filled = 0
  #isClosed = false
  /** This port's share of `MemoryRuns.sealReasons`. */
  #sealReasons = 0

  constructor(medium: MemoryMedium, number: number, host: number, { scratch, staging }: PortPlaces) {
    const { runs, routes, ports, portOfHost, transit } = medium
    const carrier = transit?.carrier
    this.#host = host
    this.arena = runs.arena
    this.scratch = scratch
    this.staging = staging
    this.maxPackets = carrier?.maxPackets ?? RUN_PACKETS
    this.maxBytes = carrier?.maxBytes ?? RUN_BYTES
    this.pathMtu = carrier === undefined ? PATH_MTU : pathMtuOf(carrier.mtuOf(host))
    this.pathBytes = carrier?.windowBytes
    this.#medium = medium
    this.#runs = runs
    this.#routes = routes
    this.#number = number
    this.#carrier = carrier
    this.#queue = new RunQueue(runs, transit)
    this.#tapped = emptyTappedRun(runs.arena, 'sent')
    ports[number] = this
    if (carrier !== undefined) portOfHost[host] = this
    this.#traffic = carrier && new HostTraffic(runs, routes, carrier, number, other => ports[other]?.host)
    this.links = this.#traffic
  }

  receiverOf = (flow: number): object | null => {
    const { path, ports } = this.#medium
    if (path === 'packets' || this.#runs.sealReasons > 0 || this.tap !== null) return null
    const destination = this.#routes.route(flow)
    const port = destination < 0 ? undefined : ports[destination]
    return port === undefined || port.tap !== null ? null : (port.receiver as object | null)
  }
  peerAt = (flow: number): number => this.#routes.peerOf(flow)
  routerTo = (address: Uint8Array): string | undefined => this.#traffic?.routerTo(address)
  isWaiting = (): boolean => this.#queue.hasArrived() || this.#traffic?.hasArrived() === true

  addAddress = (address: Uint8Array, _claim?: 'own' | 'spare', vlan?: { readonly id: number }): void =>
    this.#routes.addAddress(this.#number, address, vlan?.id)
  vlanOf = (address: Uint8Array): number | undefined => this.#routes.vlanOf(address)
  removeAddress = (address: Uint8Array): void => this.#routes.removeAddress(this.#number, address)
  joinGroup = (group: Uint8Array): void => this.#routes.joinGroup(this.#number, group)
  leaveGroup = (group: Uint8Array): void => this.#routes.leaveGroup(this.#number, group)
  setFabric = (fabric: PortFabric): void => this.#routes.setFabric(this.#number, fabric)
  openFlow = (address: FlowAddress): number => this.#runs.flows.open(this.#number, address)
  reopenFlow = (flow: number): void => this.#runs.flows.reopen(this.#number, flow)
  closeFlow = (flow: number): void => this.#runs.flows.close(this.#number, flow)
  recordOf = (flow: number): FlowAddress => this.#runs.flows.recordOf(flow)
  peerOf = (address: Uint8Array, isRoceV1?: boolean): number => {
    addressWords(address, this.#key, 0)
    return this.#runs.flows.peerOf(this.#number, this.#key, 0, isRoceV1)
  }

  reserve = (bytes: number): number => {
    requireRunBytes(bytes)
    const traffic = this.#traffic
    if (traffic !== undefined) {
      traffic.sendPending()
      if (traffic.isFull(this.#medium.transit!.now())) return -1
    }
    const buffer = this.#isClosed ? -1 : this.#runs.takeBuffer(this.#number, bytes)
    if (buffer < 0) return -1
    this.#endReservation()
    this.#reserved = buffer
    this.#filled = this.#runs.startOf(buffer)
    return this.#filled
  }
  commit = (offset: number, packetBytes: number, count: number, lastBytes: number, flow: number): void => {
    this.#traffic?.sendPending()
    const medium = this.#medium
    const runs = this.#runs
    const { records } = runs
    const reserved = this.#reserved
    const reservationEnd = reserved < 0 ? -1 : runs.endOf(reserved)
    const end = requireRun(offset, packetBytes, count, lastBytes, this.#filled, reservationEnd)
    if (!runs.flows.isOpen(this.#number, flow)) throw new Error(`flow ${flow} is not open`)
    this.#filled = end
    runs.retainBuffer(reserved)
    const run = allocateRecord(records)
    records.buffer[run] = reserved
    records.offset[run] = offset
    records.packetBytes[run] = packetBytes
    records.count[run] = count
    records.lastBytes[run] = lastBytes
    records.flow[run] = flow
    records.isSealed[run] = 0
    if (this.#traffic !== undefined) {
      records.identification[run] = medium.nextIdentification
      medium.nextIdentification = (medium.nextIdentification + count) & 0xffff
    }
    if (runs.sealReasons > 0) runs.seal(run)
    if (this.tap !== null) this.#show('sent', 'passed', run, 0, count)
    this.#pass(run, this.#routes.route(flow), end - offset)
  }
  flush = (): void => {
    this.#traffic?.sendPending()
    this.#endReservation()
  }

  receive = (received: ReceivedRun): boolean => {
    const queue = this.#queue
    const runs = this.#runs
    const { records } = runs
    if (this.#traffic !== undefined && queue.head < 0) this.#traffic.receive(queue)
    while (queue.hasArrived()) {
      const run = queue.head
      // A run that was sent before a tap or a layer needed ICRCs.
      if (runs.sealReasons > 0 && !records.isSealed[run]) runs.seal(run)
      const packets = records.count[run]
      const isSealed = records.isSealed[run] !== 0
      const firstPacket = isSealed ? this.#skipWrong(run, queue.cursor) : queue.cursor
      if (firstPacket === packets) {
        queue.advance()
        continue
      }
      let end = packets
      if (isSealed) {
        end = firstPacket + 1
        while (end < packets && runs.hasCorrectIcrc(run, end)) end++
      }
      received.offset = runs.packetOffset(run, firstPacket)
      received.packetBytes = records.packetBytes[run]
      received.count = end - firstPacket
      received.lastBytes = runs.packetLength(run, end - 1)
      received.peer = this.#routes.peerAt(records.flow[run], this.#number)
      received.flowAddress = runs.flowOf(run)
      received.identification = records.identification[run] + firstPacket
      this.counters.receivedPackets += received.count
      this.counters.receivedBytes += (received.count - 1) * received.packetBytes + received.lastBytes
      if (this.tap !== null) this.#show('received', records.isMarked[run] ? 'marked' : 'passed', run, firstPacket, end)
      // Skips following packets with wrong ICRCs now, so that the run is released with its last correct packet.
      queue.cursor = end < packets ? this.#skipWrong(run, end) : end
      if (queue.cursor === packets) queue.advance()
      this.#hasUnreleased = true
      return true
    }
    // Nothing was delivered, so no `release` follows: runs with wrong ICRCs are released here.
    if (!this.#hasUnreleased) queue.releaseDelivered()
    return false
  }
  release = (): void => {
    this.#hasUnreleased = false
    this.#queue.releaseDelivered()
  }

  requireSeal = (change: 1 | -1): void => {
    // `close` has withdrawn all reasons of this port: a tap may be removed later.
    if (this.#isClosed) return
    this.#sealReasons += change
    this.#runs.sealReasons += change
  }
  takeLayerBuffer = (bytes: number): number => {
    requireRunBytes(bytes)
    return this.#isClosed ? -1 : this.#runs.takeLayerBuffer(this.#number)
  }
  releaseLayerBuffer = (offset: number): void => this.#runs.releaseLayerBuffer(offset)

  nextTimeout = (): number => {
    if (this.#medium.transit === undefined) return Number.POSITIVE_INFINITY
    const arrival = this.#queue.nextArrival()
    return this.#traffic === undefined ? arrival : Math.min(arrival, this.#traffic.nextTimeout())
  }
  onTimeout = (): void => this.#traffic?.onTimeout()
  close = (): void => {
    if (this.#isClosed) return
    this.#isClosed = true
    this.flush()
    while (this.#queue.head >= 0) this.#queue.advance()
    this.#queue.releaseDelivered()
    this.#routes.removePort(this.#number)
    this.#runs.flows.closeAll(this.#number)
    this.#runs.sealReasons -= this.#sealReasons
    this.#sealReasons = 0
    this.#medium.ports[this.#number] = undefined
    this.#medium.portOfHost[this.#host] = undefined
    this.#carrier?.setTaken(this.#host, false)
    this.#runs.removeOwner(this.#number)
  }

  /** With a carrier. */
  get host(): number {
    return this.#host
  }

  /** Appends a run to the queue of received runs. */
  enqueue(run: number): void {
    const { transit } = this.#medium
    const wasEmpty = this.#queue.head < 0
    this.#queue.append(run, transit === undefined ? 0 : transit.now() + transit.delay)
    if (wasEmpty) this.wake?.()
  }

  /** The carrier has lost a packet to this port, and has its bytes at `at`. */
  showLost(packet: number, at: number, length: number): void {
    if (this.tap !== null) this.#traffic?.showLost(this.tap, packet, at, length)
  }

  /** Passes a committed run on to where its route leads. */
  #pass(run: number, destination: number, bytes: number): void {
    const { ports } = this.#medium
    const runs = this.#runs
    const flow = runs.records.flow[run]
    const count = runs.records.count[run]
    if (destination === NOWHERE) {
      this.counters.dropped += count
      this.#routes.lost(flow, count)
      runs.release(run)
      return
    }
    this.counters.sentPackets += count
    this.counters.sentBytes += bytes
    const traffic = this.#traffic
    if (destination <= GROUP) {
      for (const member of this.#routes.membersOf(destination, flow))
        if (traffic === undefined || member === this.#number) ports[member]?.enqueue(runs.copy(run))
      if (traffic === undefined) runs.release(run)
      else traffic.sendLater(run, destination)
    } else if (traffic !== undefined && destination !== this.#number) traffic.sendLater(run, destination)
    else {
      runs.flows.retain(flow)
      ports[destination]?.enqueue(run)
    }
  }

  #endReservation(): void {
    if (this.#reserved >= 0) this.#runs.releaseBuffer(this.#reserved)
    this.#reserved = -1
  }

  /**
   * Counts and skips packets with wrong ICRCs from `firstPacket` on. Returns the index of the next correct packet, or
   * the number of packets if there is none.
   */
  #skipWrong(run: number, firstPacket: number): number {
    let packet = firstPacket
    while (packet < this.#runs.records.count[run] && !this.#runs.hasCorrectIcrc(run, packet)) {
      this.counters.icrcErrors++
      if (this.tap !== null) this.#show('received', 'wrong icrc', run, packet, packet + 1)
      packet++
    }
    return packet
  }

  /** Shows the tap packets [firstPacket, end) of a run. */
  #show(
    direction: TappedRun['direction'],
    outcome: TappedRun['outcome'],
    run: number,
    firstPacket: number,
    end: number,
  ): void {
    const runs = this.#runs
    const tapped = this.#tapped
    tapped.direction = direction
    tapped.outcome = outcome
    tapped.arena = runs.arena
    tapped.offset = runs.packetOffset(run, firstPacket)
    tapped.packetBytes = runs.records.packetBytes[run]
    tapped.count = end - firstPacket
    tapped.lastBytes = runs.packetLength(run, end - 1)
    tapped.flow = runs.flowOf(run)
    tapped.identification = runs.records.identification[run] + firstPacket
    this.tap?.(tapped)
  }
}
