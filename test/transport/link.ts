/*
 * Two nodes connected in virtual time by a link that drops, duplicates, delays and corrupts packets at random, from a
 * seed. A corrupted packet is dropped, because a port never delivers a packet with a wrong ICRC. Packets that are due
 * at the same time are one burst, in runs of at most MAX_RUN packets.
 */
import type { TestNode } from './node.ts'

/** Maximum packets of a run. */
const MAX_RUN = 20

/** Probabilities for each packet, 0 to 1, and the latency. */
export interface LinkOptions {
  readonly drop?: number
  /** A second copy arrives after one to 21 latencies. */
  readonly duplicate?: number
  /** The packet is delayed by one to five latencies more. */
  readonly reorder?: number
  readonly corrupt?: number
  /** One-way latency, µs; 10 by default. */
  readonly latency?: number
}

/** Random numbers in [0, 1) from a seed (mulberry32). */
export const createRandom = (seed: number): (() => number) => {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000
  }
}

interface InFlight {
  /** Time of delivery, µs. */
  readonly deliveryTime: number
  /** Counts packets: those with the same time are delivered in the order in which they were sent. */
  readonly order: number
  /** The receiving node: 0 or 1. */
  readonly to: number
  readonly bytes: Uint8Array
}

/** `random`: numbers in [0, 1). */
export const linkNodes = (nodes: readonly [TestNode, TestNode], options: LinkOptions, random: () => number) => {
  const latency = options.latency ?? 10
  const inFlight: InFlight[] = []
  /** By node and QPN: the row of the queue pair in the node's engine. */
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
    // Packets of one size form a run, whose last may be shorter, whatever their destination QPs.
    for (let i = 0; i < due.length; ) {
      const { to, bytes } = due[i]
      const run = [bytes]
      for (i++; i < due.length && due[i].to === to && run.length < MAX_RUN; i++) {
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
    /** Delivers packets for QP number `qpn` of node `side` to the queue pair that its engine has in `row`. */
    bind(side: number, qpn: number, row: number): void {
      rowsByQpn[side].set(qpn, row)
    },
    /**
     * One step: both engines send all they may, then time moves to the next timer or delivery, which takes place. False
     * if there is none by `until`; time then moves to `until` if there is a later one.
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
