/*
 * Passes received packets by their destination QPN: to a queue pair of the engine, to all queue pairs of a multicast
 * group, or to a core client's queue pair (core-queues.ts).
 */

import { MULTICAST_QPN } from '../../spec/wire/headers.ts'
import type { Engine } from '../../transport/engine/engine.ts'
import type { Port, ReceivedRun } from '../../transport/phy/port.ts'
import { bthDestQp } from '../../transport/wire/bth.ts'
import { ECN_CE, ECN_MASK } from '../../transport/wire/flow.ts'
import type { CoreQueue, SoftState } from './state.ts'

/** `peer` of a multicast packet: its receivers are UD queue pairs, which have no peer. */
const NO_PEER = -1

/** After this many received bytes, the runs are released to the port. */
const BURST_BYTES = 1 << 20

/** `run`: the record into which `port` writes each run of packets. */
export class PacketDelivery {
  readonly #port: Port
  readonly #engine: Engine
  readonly #run: ReceivedRun
  // properties of the state, copied because every run of packets reads them
  readonly #rowOf: SoftState['qpns']['rowOf']
  readonly #groups: SoftState['groups']
  readonly #coreQueues: ReadonlyMap<number, CoreQueue>

  constructor({ qpns, groups, coreQueues }: SoftState, port: Port, engine: Engine, run: ReceivedRun) {
    this.#port = port
    this.#engine = engine
    this.#run = run
    this.#rowOf = qpns.rowOf
    this.#groups = groups
    this.#coreQueues = coreQueues.byNumber
  }

  /** Passes the packets that the port delivers in this poll; returns their number. `time` in microseconds. */
  deliver(time: number): number {
    if (!this.#port.receive(this.#run)) return 0
    let received = 0
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

  #deliverToGroup(at: number, length: number, time: number): void {
    this.#engine.counters.multicastReceived++
    const rows = this.#groups.rowsOf(this.#run.flowAddress.destination)
    if (rows.length === 0) this.#engine.counters.dropped++
    // The groups list a core client's queue pair by its negated QPN, because it has no row.
    for (let i = 0; i < rows.length; i++)
      if (rows[i] < 0) this.#deliverToCore(-rows[i], at, length)
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
      else if (row < 0) this.#deliverToCore(destQpn, at, i === count - 1 ? lastBytes : packetBytes)
      else {
        packets = this.#engine.onRun(row, arena, at, packetBytes, count - i, lastBytes, peer, time)
        if (isMarked) this.#engine.onMarked(row, arena, at, packets, peer, time)
      }
      i += packets
      at += packets * packetBytes
    }
  }
}
