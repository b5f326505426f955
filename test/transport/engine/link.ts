/*
 * A link between two nodes, in virtual time, with random faults. Packets that are due together are one burst.
 */
import { createRandom as createIntegers } from '../../../src/base/random.ts'
import type { TestNode } from './node.ts'

const MAX_RUN_PACKETS = 20

/** Faults are probabilities per packet, 0 to 1. */
export interface LinkOptions {
  readonly drop?: number
  /** A second copy arrives after one to 21 latencies. */
  readonly duplicate?: number
  /** The packet is delayed by one to five latencies more. */
  readonly reorder?: number
  /** The packet is dropped, as a port drops a packet with a wrong ICRC. */
  readonly corrupt?: number
  /** One-way latency, µs; 10 by default. */
  readonly latency?: number
}

/** Random numbers in [0, 1) from a seed. */
export const createRandom = (seed: number): (() => number) => {
  const next = createIntegers(seed)
  return () => next() / 0x1_0000_0000
}

interface InFlight {
  /** Virtual time, µs. */
  readonly deliveryTime: number
  /** Packets with one delivery time are delivered in this order. */
  readonly order: number
  /** The receiving node: 0 or 1. */
  readonly to: number
  readonly bytes: Uint8Array
}

/** `random` returns numbers in [0, 1). */
export const linkNodes = (nodes: readonly [TestNode, TestNode], options: LinkOptions, random: () => number) => {
  const latency = options.latency ?? 10
  const inFlight: InFlight[] = []
  /** The engine's row numbers of queue pairs, by node and QPN. */
  const rowsByQpn: Map<number, number>[] = [new Map(), new Map()]
  let now = 0
  let order = 0
  const schedule = (to: number, bytes: Uint8Array, delay: number): void => {
    inFlight.push({ deliveryTime: now + delay, order: order++, to, bytes })
  }
  const send = (from: number): void => {
    const node = nodes[from]
    node.transmit(now)
    for (const { bytes } of node.sent) {
      const to = 1 - from
      if (random() < (options.drop ?? 0) || random() < (options.corrupt ?? 0)) continue
      const delay = random() < (options.reorder ?? 0) ? latency * (1 + random() * 4) : 0
      schedule(to, bytes, latency + delay)
      if (random() < (options.duplicate ?? 0)) schedule(to, bytes, latency * (1 + random() * 20))
    }
    node.sent.length = 0
  }
  const rowFor = (to: number, bytes: Uint8Array): number => {
    // BTH.DestQP
    const row = rowsByQpn[to].get((bytes[5] << 16) | (bytes[6] << 8) | bytes[7])
    if (row === undefined) throw new Error('a packet for an unknown QP')
    return row
  }
  const deliver = (): void => {
    const due = inFlight
      .filter(packet => packet.deliveryTime <= now)
      .sort((a, b) => a.deliveryTime - b.deliveryTime || a.order - b.order)
    if (due.length === 0) return
    const later = inFlight.filter(packet => packet.deliveryTime > now)
    inFlight.length = 0
    inFlight.push(...later)
    // a run may have several destination QPs; its packets have one size, except for a shorter last packet
    for (let i = 0; i < due.length; ) {
      const { to, bytes } = due[i]
      const run = [bytes]
      for (i++; i < due.length && due[i].to === to && run.length < MAX_RUN_PACKETS; i++) {
        const next = due[i].bytes
        if (run[run.length - 1].length < bytes.length || next.length > bytes.length) break
        run.push(next)
      }
      nodes[to].injectRun(run, packet => rowFor(to, packet), now)
    }
    for (const node of nodes) node.endBurst()
  }
  return {
    get now() {
      return now
    },
    /** Packets to `qpn` of node `side` go to the queue pair in `row`. */
    bind(side: number, qpn: number, row: number): void {
      rowsByQpn[side].set(qpn, row)
    },
    /**
     * Lets both engines send, and moves time to the next timer or delivery. Returns false if nothing is due by `until`;
     * time then moves to `until` if something is due later.
     */
    step(until = Number.POSITIVE_INFINITY): boolean {
      send(0)
      send(1)
      let next = Math.min(nodes[0].engine.nextTimeout(), nodes[1].engine.nextTimeout())
      for (const { deliveryTime } of inFlight) next = Math.min(next, deliveryTime)
      if (next === Number.POSITIVE_INFINITY) return false
      if (next > until) {
        now = until
        return false
      }
      now = Math.max(now, next)
      for (const node of nodes) if (node.engine.nextTimeout() <= now) node.engine.onTimeout(now)
      deliver()
      return true
    },
    inFlight,
  }
}
