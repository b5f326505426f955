/*
 * What a port of a memory link on a host sends to other hosts and receives from them, by the carrier of the link
 * (transport/phy/links/packet-carrier.ts), which copies packets.
 */
import { sealIcrc } from '../../wire/icrc.ts'
import { MAX_PACKET_BYTES, type PacketCarrier } from '../links/packet-carrier.ts'
import type { FlowAddress, HeldClass, PathLoss, PortLinks, PortTap } from '../port.ts'
import { RUN_BYTES } from '../runs/limits.ts'
import { allocateRecord } from '../runs/records.ts'
import { GROUP, type MemoryRoutes, NOWHERE } from './routes.ts'
import type { RunQueue } from './run-queue.ts'
import type { MemoryRuns } from './runs.ts'

export class HostTraffic implements PortLinks {
  readonly #runs: MemoryRuns
  readonly #routes: MemoryRoutes
  readonly #carrier: PacketCarrier
  readonly #host: number
  readonly #portNumber: number
  /** The host of a port; undefined: the port is closed. */
  readonly #hostOf: (portNumber: number) => number | undefined
  /**
   * The committed run whose packets the carrier gets at the next call of `reserve`, `commit` or `flush`, as a layer may
   * change them until then; -1: none. And its route.
   */
  #pending = -1
  #pendingRoute = NOWHERE
  /** Whether `reserve` has failed because the host's link has enough to send. */
  #wasFull = false

  constructor(
    runs: MemoryRuns,
    routes: MemoryRoutes,
    carrier: PacketCarrier,
    portNumber: number,
    hostOf: (portNumber: number) => number | undefined,
  ) {
    this.#runs = runs
    this.#routes = routes
    this.#carrier = carrier
    this.#host = hostOf(portNumber)!
    this.#portNumber = portNumber
    this.#hostOf = hostOf
  }

  crosses(flow: FlowAddress, direction: 'sent' | 'received', router: string): boolean {
    const [from, to] = this.#endsOf(flow, direction)
    return from !== undefined && to !== undefined && this.#carrier.crosses(flow, from, to, router)
  }

  lostAt(flow: FlowAddress, direction: 'sent' | 'received', router: string): void {
    const [from, to] = this.#endsOf(flow, direction)
    if (from !== undefined && to !== undefined) this.#carrier.lostAt(flow, from, to, router, direction === 'sent')
  }

  routerTo(address: Uint8Array): string | undefined {
    const to = this.#hostAt(address)
    return to === undefined ? undefined : this.#carrier.routerBetween(this.#host, to)
  }

  heldClass(flow: FlowAddress): HeldClass | undefined {
    const to = this.#hostAt(flow.destination)
    return to === undefined ? undefined : this.#carrier.heldClass(flow, this.#host, to)
  }

  lossOf(flow: FlowAddress): PathLoss | undefined {
    const carrier = this.#carrier
    const to = this.#hostAt(flow.destination)
    if (to === undefined) return undefined
    const back = { ...flow, source: flow.destination, destination: flow.source }
    for (const { from, to: end, reason, packets } of [
      ...carrier.lossesOf(flow, this.#host, to),
      ...carrier.lossesOf(back, to, this.#host),
    ])
      if (reason === 'mtu' || reason === 'ttl' || reason === 'route')
        return { packets, reason, from, to: end, mtu: end === undefined ? 0 : carrier.mtuBetween(from, end) }
    return undefined
  }

  /** The hosts of a flow from or to this port; undefined: none, or several of a group. */
  #endsOf(
    flow: FlowAddress,
    direction: 'sent' | 'received',
  ): readonly [from: number | undefined, to: number | undefined] {
    return direction === 'sent' ? [this.#host, this.#hostAt(flow.destination)] : [this.#hostAt(flow.source), this.#host]
  }

  #hostAt(address: Uint8Array): number | undefined {
    return this.#hostOf(this.#routes.portAt(address))
  }

  /** Whether the host's link has enough to send: then the port has a timeout. */
  isFull(now: number): boolean {
    if (this.#carrier.fullUntil(this.#host) <= now) return false
    this.#wasFull = true
    return true
  }

  nextTimeout(): number {
    return this.#wasFull ? this.#carrier.fullUntil(this.#host) : Number.POSITIVE_INFINITY
  }

  onTimeout(): void {
    this.#wasFull = false
  }

  hasArrived(): boolean {
    return this.#carrier.hasArrived(this.#host)
  }

  sendLater(run: number, destination: number): void {
    this.#pending = run
    this.#pendingRoute = destination
    this.#runs.flows.retain(this.#runs.records.flow[run])
  }

  sendPending(): void {
    const run = this.#pending
    if (run < 0) return
    this.#pending = -1
    const flow = this.#runs.records.flow[run]
    if (this.#pendingRoute > GROUP) this.#send(run, this.#pendingRoute)
    else
      for (const member of this.#routes.membersOf(this.#pendingRoute, flow))
        if (member !== this.#portNumber) this.#send(run, member)
    this.#runs.flows.release(flow)
    this.#runs.release(run)
  }

  #send(run: number, portNumber: number): void {
    const runs = this.#runs
    const { records, flows } = runs
    const to = this.#hostOf(portNumber)
    if (to === undefined) return
    this.#carrier.begin(flows.recordOf(records.flow[run]), this.#host, to, records.count[run])
    for (let i = 0; i < records.count[run]; i++) {
      const packet = allocateRecord(records)
      records.flow[packet] = records.flow[run]
      records.isSealed[packet] = records.isSealed[run]
      records.identification[packet] = (records.identification[run] + i) & 0xffff
      flows.retain(records.flow[run])
      this.#carrier.send(packet, runs.arena.bytes, runs.packetOffset(run, i), runs.packetLength(run, i))
    }
  }

  /** Takes packets that have arrived, as many as fit in a buffer. None while no buffer is free. */
  receive(queue: RunQueue): void {
    const runs = this.#runs
    const { records, flows } = runs
    const by = this.#carrier
    if (!by.hasArrived(this.#host)) return
    const buffer = runs.takeBuffer(this.#portNumber, RUN_BYTES)
    if (buffer < 0) return
    const end = runs.endOf(buffer)
    let at = runs.startOf(buffer)
    while (at + MAX_PACKET_BYTES <= end) {
      const packet = by.receive(this.#host, runs.arena.bytes, at)
      if (packet < 0) break
      const destination = this.#routes.route(records.flow[packet])
      // The device that had the address was removed, and another one has its host.
      if (destination !== this.#portNumber && destination > GROUP) {
        runs.releaseCarried(packet)
        continue
      }
      records.buffer[packet] = buffer
      runs.retainBuffer(buffer)
      records.offset[packet] = at
      records.packetBytes[packet] = by.length
      records.count[packet] = 1
      records.lastBytes[packet] = by.length
      records.isMarked[packet] = by.isMarked ? 1 : 0
      records.hops[packet] = flows.recordOf(records.flow[packet]).hopLimit - by.ttl
      queue.append(packet, 0)
      at += (by.length + 15) & ~15
    }
    runs.releaseBuffer(buffer)
  }

  /** Shows a tap a packet that the carrier has lost, and whose bytes it has at `offset`. */
  showLost(tap: PortTap, packet: number, offset: number, length: number): void {
    const { records, flows, sealReasons } = this.#runs
    const { arena } = this.#carrier.links
    const identification = records.identification[packet]
    if (sealReasons > 0 && !records.isSealed[packet])
      sealIcrc(arena, offset, length, flows.icrcFlowOf(records.flow[packet]), identification)
    const flow = flows.recordOf(records.flow[packet])
    const shown = { direction: 'received', outcome: 'dropped', arena, offset, count: 1, flow } as const
    tap({ ...shown, packetBytes: length, lastBytes: length, identification })
  }
}
