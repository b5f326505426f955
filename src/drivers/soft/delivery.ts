/*
 * Passes received packets by their destination QPN: to a queue pair of the engine, to all queue pairs of a multicast
 * group, or to a core client's queue pair (core-queues.ts).
 */

import { MULTICAST_QPN } from '../../spec/wire/headers.ts'
import { TRANSPORT_MASK } from '../../spec/wire/opcodes.ts'
import { Service, serviceBits } from '../../spec/wire/services.ts'
import type { Engine } from '../../transport/engine/engine.ts'
import { type FlowAddress, type Port, type ReceivedRun, SCRATCH_BYTES } from '../../transport/phy/port.ts'
import { bthDestQp, bthOpcode } from '../../transport/wire/bth.ts'
import { ECN_CE, ECN_MASK } from '../../transport/wire/flow.ts'
import type { Paths } from './address/path.ts'
import type { CoreQueue, SoftState } from './state.ts'
import { WaitingPackets } from './waiting-packets.ts'

/** `peer` of a multicast packet: its receivers are UD queue pairs, which have no peer. */
const NO_PEER = -1

/** After this many received bytes, the runs are released to the port. */
const BURST_BYTES = 1 << 20

/** After so many packets that had waited, those of the port are next. */
const MAX_WAITING_PASSED = 64

/** What receiving packets needs of a port. */
export type ReceivingPort = Pick<Port, 'arena' | 'scratch' | 'receive' | 'release'>

/** `run`: the record into which `port` writes each run of packets. */
export class PacketDelivery {
  readonly #port: ReceivingPort
  readonly #engine: Engine
  readonly #run: ReceivedRun
  readonly #waiting = new WaitingPackets()
  // properties of the state, copied because every run of packets reads them
  readonly #rowOf: SoftState['qpns']['rowOf']
  readonly #groups: SoftState['groups']
  readonly #coreQueues: ReadonlyMap<number, CoreQueue>
  readonly #qps: SoftState['qps']
  readonly #paths: Paths
  /** Of the last run, and whether it goes to a group only. */
  #lastFlow: FlowAddress | undefined
  #isToGroup = false

  constructor(
    { qpns, groups, coreQueues, qps, paths }: SoftState,
    port: ReceivingPort,
    engine: Engine,
    run: ReceivedRun,
  ) {
    this.#port = port
    this.#qps = qps
    this.#engine = engine
    this.#run = run
    this.#rowOf = qpns.rowOf
    this.#groups = groups
    this.#paths = paths
    this.#coreQueues = coreQueues.byNumber
  }

  /** Whether packets wait for the next `deliver`. */
  get hasWaiting(): boolean {
    return this.#waiting.size > 0
  }

  /** Passes the packets that the port delivers in this poll; returns their number. `time` in microseconds. */
  deliver(time: number): number {
    let received = this.#waiting.size > 0 ? this.#deliverWaiting(time) : 0
    if (!this.#port.receive(this.#run)) return received
    let unreleased = 0
    do {
      this.#deliverRun(time)
      received += this.#run.count
      unreleased += this.#run.count * this.#run.packetBytes
      // `endBurst` writes deferred payloads, which still lie in the runs
      if (unreleased >= BURST_BYTES) {
        this.#engine.endBurst()
        this.#port.release()
        unreleased = 0
      }
    } while (this.#port.receive(this.#run))
    this.#engine.endBurst()
    this.#port.release()
    return received
  }

  /** Passes waiting packets until they have taken long; returns their number. */
  #deliverWaiting(time: number): number {
    const { arena, scratch } = this.#port
    let passed = 0
    while (!this.#engine.isBusy() && passed < MAX_WAITING_PASSED) {
      const packet = this.#waiting.take()
      if (packet === undefined) break
      passed++
      const { qpn, bytes, peer, isMarked } = packet
      const row = this.#rowOf(qpn)
      if (row < 0) this.#engine.counters.dropped++
      else {
        arena.bytes.set(bytes, scratch)
        this.#pass(row, scratch, bytes.length, 1, bytes.length, peer, isMarked, time)
        // the next packet comes to the same place
        this.#engine.endBurst()
      }
    }
    return passed
  }

  /** Passes packets for a queue pair of the engine, and returns how many it has handled. */
  #pass(
    row: number,
    at: number,
    packetBytes: number,
    count: number,
    lastBytes: number,
    peer: number,
    isMarked: boolean,
    time: number,
  ): number {
    const { arena } = this.#port
    const packets = this.#engine.onRun(row, arena, at, packetBytes, count, lastBytes, peer, time)
    if (isMarked) this.#engine.onMarked(row, arena, at, packets, peer, time)
    return packets
  }

  /**
   * Whether the packet must not be passed now. It waits for the next poll, as a copy; datagrams, which have the GRH of
   * their run, are dropped, as by a full queue.
   */
  #isHeld(row: number, qpn: number, at: number, length: number, peer: number, isMarked: boolean): boolean {
    if (!this.#engine.isScattered(row) || length > SCRATCH_BYTES) return false
    const { arena } = this.#port
    if (!this.#engine.isBusy() && !this.#waiting.isBehind(qpn, arena, at)) return false
    const isDatagram = (bthOpcode(arena.view, at) & TRANSPORT_MASK) === serviceBits[Service.UD]
    const receiver = { context: this.#qps[row]?.context, qpn }
    if (isDatagram || !this.#waiting.add(receiver, arena, at, length, peer, isMarked)) this.#engine.counters.dropped++
    return true
  }

  #deliverToGroup(at: number, length: number, time: number): void {
    this.#engine.counters.multicastReceived++
    const rows = this.#groups.rowsOf(this.#paths.groupOf(this.#run.flowAddress))
    if (rows.length === 0) this.#engine.counters.dropped++
    // The groups list a core client's queue pair by its negated QPN, because it has no row.
    for (let i = 0; i < rows.length; i++)
      if (rows[i] < 0) this.#deliverToCore(-rows[i], at, length)
      else if (this.#engine.isBusy() && this.#engine.isScattered(rows[i])) this.#engine.counters.dropped++
      else this.#engine.onPacket(rows[i], this.#port.arena, at, length, NO_PEER, time)
  }

  /** Drops the packet if the QPN is not in use. */
  #deliverToCore(qpn: number, at: number, length: number): void {
    const queue = this.#coreQueues.get(qpn)
    if (queue === undefined) this.#engine.counters.dropped++
    else queue.onPacket(this.#port.arena, at, length, this.#run.flowAddress)
  }

  #deliverRun(time: number): void {
    const { arena } = this.#port
    const { count, packetBytes, lastBytes, peer, flowAddress } = this.#run
    if (flowAddress !== this.#lastFlow) {
      this.#lastFlow = flowAddress
      this.#isToGroup = this.#paths.isToGroup(flowAddress)
    }
    const isMarked = (flowAddress.trafficClass & ECN_MASK) === ECN_CE
    let qpn = -1
    let row = -1
    for (let i = 0, at = this.#run.offset; i < count; ) {
      const destQpn = bthDestQp(arena.view, at)
      if (destQpn !== qpn) {
        qpn = destQpn
        row = this.#rowOf(destQpn)
      }
      let packets = 1
      if (destQpn === MULTICAST_QPN) this.#deliverToGroup(at, i === count - 1 ? lastBytes : packetBytes, time)
      else if (this.#isToGroup) this.#engine.counters.dropped++
      else if (row < 0) this.#deliverToCore(destQpn, at, i === count - 1 ? lastBytes : packetBytes)
      else {
        const length = i === count - 1 ? lastBytes : packetBytes
        if (!this.#isHeld(row, qpn, at, length, peer, isMarked))
          packets = this.#pass(row, at, packetBytes, count - i, lastBytes, peer, isMarked, time)
      }
      i += packets
      at += packets * packetBytes
    }
  }
}
