/*
 * A hostile network in virtual time: it loses, duplicates, delays and corrupts packets, replays old ones, and lets an
 * attacker inject forged ones. Every packet has its real ICRC, computed here like a port's and checked on arrival, so
 * that corrupted packets are dropped like at a port. Its quality changes with time.
 */
import assert from 'node:assert/strict'
import { arenaOver } from '../../src/wire/arena.ts'
import { type Flow, makeFlow, sealIcrc, verifyIcrc } from '../../src/wire/icrc.ts'
import type { RandomSource } from './random.ts'

/** Faults as fractions of packets, 0 to 1. `weight`: how often the network has this quality. */
export interface Quality {
  readonly name: string
  readonly weight: number
  readonly drop: number
  readonly duplicate: number
  readonly reorder: number
  readonly corrupt: number
  /** Replayed and forged packets per packet sent. */
  readonly replay: number
  readonly forge: number
}

const noFaults = { drop: 0, duplicate: 0, reorder: 0, corrupt: 0, replay: 0, forge: 0 }
export const qualities: readonly Quality[] = [
  { name: 'calm', weight: 2, ...noFaults },
  { name: 'lossy', weight: 4, ...noFaults, drop: 0.02, duplicate: 0.02, reorder: 0.03, corrupt: 0.01 },
  { name: 'hostile', weight: 3, ...noFaults, drop: 0.01, duplicate: 0.02, corrupt: 0.02, replay: 0.05, forge: 0.02 },
  { name: 'storm', weight: 1, drop: 0.06, duplicate: 0.1, reorder: 0.2, corrupt: 0.03, replay: 0.1, forge: 0.05 },
]

/** One-way latency, µs. */
const LATENCY = 10
/** Packets that the network remembers for replay. */
const REPLAY_PACKETS = 256
/** Maximum packets of a run (`LinkHooks.deliver`). */
const MAX_IN_RUN = 20
/** The UDP port of RoCEv2. */
const ROCE_PORT = 4791

export interface Packet {
  /** The numbers of its nodes. */
  readonly from: number
  readonly to: number
  readonly bytes: Uint8Array
  /** Number of packets sent before it; a forged packet has the number of the one that it copies. */
  readonly number: number
}

interface InFlight extends Packet {
  /** µs. */
  readonly arrival: number
  /** Ascending in the order of sending: decides between packets that arrive at the same time. */
  readonly order: number
  readonly isForged: boolean
}

export interface LinkHooks {
  /** Packets back to back, all of one size except the last, which may be shorter. */
  deliver(to: number, from: number, packets: readonly Uint8Array[]): void
  /** A forged packet with a correct ICRC is about to be delivered. */
  forged(packet: Packet): void
  /** Forges a packet from an observed one; undefined if it cannot. */
  forge(seen: Packet): Packet | undefined
}

const isBefore = (a: InFlight, b: InFlight): boolean =>
  a.arrival < b.arrival || (a.arrival === b.arrival && a.order < b.order)

/** Priority queue of packets by time, then by order. */
const createHeap = () => {
  const heap: InFlight[] = []
  return {
    heap,
    push(item: InFlight): void {
      let i = heap.push(item) - 1
      while (i > 0 && isBefore(item, heap[(i - 1) >> 1])) {
        heap[i] = heap[(i - 1) >> 1]
        i = (i - 1) >> 1
      }
      heap[i] = item
    },
    pop(): InFlight {
      const top = heap[0]
      const item = heap.pop()!
      if (heap.length === 0) return top
      let i = 0
      for (;;) {
        let child = 2 * i + 1
        if (child >= heap.length) break
        if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++
        if (!isBefore(heap[child], item)) break
        heap[i] = heap[child]
        i = child
      }
      heap[i] = item
      return top
    },
  }
}

/** BTH byte 4 (FECN, BECN, reserved bits) may change in flight: the ICRC does not cover it. */
const UNCOVERED_BYTE = 4
/** The opcode of RC_FLUSH, whose ICRC is that of rxe; XRC's has the standard ICRC. */
const RC_FLUSH = 0x1c

export type Link = ReturnType<typeof createLink>

/** A network of `count` nodes. */
export const createLink = (count: number, hooks: LinkHooks, random: RandomSource) => {
  const flows: Flow[][] = Array.from({ length: count }, (_, from) =>
    Array.from({ length: count }, (_, to) =>
      makeFlow({
        source: Uint8Array.of(10, 0, 0, from + 1),
        destination: Uint8Array.of(10, 0, 0, to + 1),
        sourcePort: 0xc000,
        destinationPort: ROCE_PORT,
      }),
    ),
  )
  const { heap, push, pop } = createHeap()
  const seen: Packet[] = []
  let order = 0
  let quality = qualities[0]
  const counts = { sent: 0, dropped: 0, corrupted: 0, replayed: 0, forged: 0 }

  const schedule = (packet: Packet, at: number, isForged = false): void => {
    push({ ...packet, arrival: at, order: order++, isForged })
  }
  /** Flips one to three bits; true if the ICRC covers one of them. */
  const corrupt = (bytes: Uint8Array): boolean => {
    const before = bytes.slice()
    for (let bits = 1 + random.int(3); bits > 0; bits--) bytes[random.int(bytes.length)] ^= 1 << random.int(8)
    // A FLUSH of RC has the ICRC of rxe, which covers that byte as well.
    const isFlush = before[0] === RC_FLUSH
    return bytes.some((byte, i) => byte !== before[i] && (i !== UNCOVERED_BYTE || isFlush))
  }
  const isIcrcRight = ({ from, to, bytes }: Omit<Packet, 'number'>): boolean =>
    verifyIcrc(arenaOver(bytes), 0, bytes.length, flows[from][to], 0)

  const self = {
    now: 0,
    counts,
    get quality() {
      return quality
    },
    setQuality(to: Quality): void {
      quality = to
    },
    /** When the next packet arrives; Infinity if none is in flight. */
    nextArrival: (): number => heap[0]?.arrival ?? Number.POSITIVE_INFINITY,
    /** The number of the oldest packet that may still arrive, in flight or kept for replay. */
    oldest: (): number =>
      heap.reduce((oldest, { number }) => Math.min(oldest, number), Math.max(0, counts.sent - REPLAY_PACKETS)),
    /** A sender's packet, with room for its ICRC. */
    send(from: number, to: number, bytes: Uint8Array): void {
      sealIcrc(arenaOver(bytes), 0, bytes.length, flows[from][to], 0)
      const packet = { from, to, bytes, number: counts.sent }
      seen[counts.sent++ % REPLAY_PACKETS] = packet
      const extraDelay = random.hits(quality.reorder) ? LATENCY * (1 + 4 * (random.int(100) / 100)) : 0
      if (random.hits(quality.drop)) counts.dropped++
      else if (random.hits(quality.corrupt)) {
        const bad = bytes.slice()
        const covered = corrupt(bad)
        assert.equal(isIcrcRight({ from, to, bytes: bad }), !covered, 'the ICRC detects corrupted packets')
        counts.corrupted++
        schedule({ ...packet, bytes: bad }, self.now + LATENCY + extraDelay)
      } else schedule(packet, self.now + LATENCY + extraDelay)
      if (random.hits(quality.duplicate)) schedule(packet, self.now + LATENCY * (1 + random.int(20)))
      if (random.hits(quality.replay)) {
        counts.replayed++
        schedule(random.pick(seen), self.now + LATENCY + random.int(100))
      }
      if (random.hits(quality.forge)) {
        const forged = hooks.forge(random.pick(seen))
        if (forged !== undefined) self.inject(forged, LATENCY + random.int(100))
      }
    },
    /** An attacker's packet; it gets a right ICRC. */
    inject(packet: Packet, delay: number): void {
      sealIcrc(arenaOver(packet.bytes), 0, packet.bytes.length, flows[packet.from][packet.to], 0)
      counts.forged++
      schedule(packet, self.now + delay, true)
    },
    /** Delivers everything that is due, with runs as long as possible. */
    deliver(): void {
      let run: InFlight[] = []
      const flush = (): void => {
        if (run.length === 0) return
        const bytes = run.map(packet => packet.bytes)
        const { to, from } = run[0]
        run = []
        hooks.deliver(to, from, bytes)
      }
      while (heap.length > 0 && heap[0].arrival <= self.now) {
        const packet = pop()
        if (!isIcrcRight(packet)) continue
        if (packet.isForged) {
          flush()
          hooks.forged(packet)
        }
        const head = run[0]
        const joinsRun =
          head !== undefined &&
          !packet.isForged &&
          head.to === packet.to &&
          head.from === packet.from &&
          run.length < MAX_IN_RUN &&
          run[run.length - 1].bytes.length === head.bytes.length &&
          packet.bytes.length <= head.bytes.length
        if (!joinsRun) flush()
        run.push(packet)
        if (packet.isForged) flush()
      }
      flush()
    },
  }
  return self
}
