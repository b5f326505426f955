/*
 * Carries packets of the data path over links between switches that have a rate, a delay or a loss: a port of the
 * memory link to which all ports send what passes such a link, and which sends what has arrived, as the trunk to
 * another process does (trunk.ts). In between the packets are the fabric's (services/subnet-engine/fabric.ts).
 */
import type { CarrierOwner, DataCarrier } from '../../services/subnet-client/embedded-subnet.ts'
import { FIRST_MULTICAST_LID, PERMISSIVE_LID } from '../../spec/wire/subnet.ts'
import { emptyRun, type FlowAddress, type Port, type PortFabric } from '../../transport/phy/port.ts'
import { lidOf } from '../../transport/wire/address.ts'

type CarriedPacket = Parameters<CarrierOwner['carry']>[1]

interface DataPacket extends CarriedPacket {
  readonly data: Uint8Array
  readonly flow: FlowAddress
}

/** Bytes of a packet beside those that the memory link has: LRH and VCRC, and the GRH. */
const LINK_BYTES = 8 + 2
const GRH_BYTES = 40
/** Flows that are open for packets that have arrived. */
const MAX_FLOWS = 1024
/** Microseconds after which packets look again for a buffer of the link. */
const RETRY = 100

export class LinkCarrier implements PortFabric, DataCarrier {
  readonly lid = PERMISSIVE_LID
  readonly isTrunk = true
  readonly #port: Port
  readonly #owner: CarrierOwner
  readonly #run = emptyRun()
  /** Packets of `#run` that the fabric has; -1: it has none. */
  #taken = -1
  /** What has arrived, until the link has a buffer. */
  readonly #arrived: { readonly to: object; readonly packet: DataPacket }[] = []
  /** By their records, which the link keeps as they are. */
  readonly #flows = new Map<FlowAddress, number>()
  /** Where the packet to a group arrives that is sent. */
  #exit: object | undefined
  #retryAt = Number.POSITIVE_INFINITY

  constructor(port: Port, owner: CarrierOwner) {
    this.#port = port
    this.#owner = owner
    port.wake = () => owner.wake()
    port.setFabric?.(this)
  }

  close(): void {
    this.#port.close()
  }

  // ---- the link's questions ----

  reached(dlid: number): readonly object[] {
    const to = dlid >= FIRST_MULTICAST_LID ? this.#exit : this.#owner.portWith(dlid)
    return to === undefined ? [] : [to]
  }

  lost(): void {}

  // ---- packets ----

  #take(): void {
    const port = this.#port
    for (;;) {
      if (this.#taken < 0) {
        if (!port.receive(this.#run)) return
        this.#taken = 0
      }
      const { offset, packetBytes, count, lastBytes, flowAddress: flow } = this.#run
      const [slid, dlid] = [lidOf(flow.source), lidOf(flow.destination)]
      const headers = LINK_BYTES + (flow.grh === undefined ? 0 : GRH_BYTES)
      for (; this.#taken < count && this.#owner.hasRoom(); this.#taken++) {
        const length = this.#taken === count - 1 ? lastBytes : packetBytes
        const at = offset + this.#taken * packetBytes
        const packet: DataPacket = {
          dlid,
          bytes: headers + length,
          data: port.arena.bytes.slice(at, at + length),
          flow,
        }
        this.#owner.carry(slid, packet)
      }
      if (this.#taken < count) return
      this.#taken = -1
      port.release()
    }
  }

  /** A packet has arrived at the port that has given `to` to the link. */
  arrived(to: object, packet: CarriedPacket): void {
    if (this.#arrived.push({ to, packet: packet as DataPacket }) === 1) this.#retryAt = Number.NEGATIVE_INFINITY
  }

  /** False: there is no buffer. */
  #send(to: object, { dlid, data, flow }: DataPacket): boolean {
    const port = this.#port
    const at = port.reserve(data.length)
    if (at < 0) return false
    port.arena.bytes.set(data, at)
    if (dlid >= FIRST_MULTICAST_LID && this.#exit !== to) {
      this.#exit = to
      port.setFabric?.(this)
    }
    port.commit(at, data.length, 1, data.length, this.#flowOf(flow))
    return true
  }

  #flowOf(record: FlowAddress): number {
    const known = this.#flows.get(record)
    if (known !== undefined) return known
    if (this.#flows.size >= MAX_FLOWS) {
      for (const number of this.#flows.values()) this.#port.closeFlow(number)
      this.#flows.clear()
    }
    const opened = this.#port.openFlow(record)
    this.#flows.set(record, opened)
    return opened
  }

  // ---- turns ----

  nextTimeout(): number {
    const next = this.#arrived.length > 0 ? this.#retryAt : Number.POSITIVE_INFINITY
    // Room is made when a packet arrives, for which the fabric has a time.
    if (this.#taken >= 0 ? this.#owner.hasRoom() : this.#port.isWaiting?.() === true) return Number.NEGATIVE_INFINITY
    return this.#taken >= 0 ? next : Math.min(next, this.#port.nextTimeout())
  }

  onTimeout(now: number): void {
    this.#take()
    let sent = 0
    for (const { to, packet } of this.#arrived)
      if (this.#send(to, packet)) sent++
      else break
    this.#arrived.splice(0, sent)
    this.#port.flush()
    this.#retryAt = now + RETRY
    // Arrivals at ports of memory wake nobody.
    if (sent > 0) this.#owner.wake()
  }
}
