/*
 * A hostile network in virtual time: it loses, duplicates, delays, corrupts and replays packets, and an attacker
 * injects forged ones. As at a port, every packet has its ICRC, which is checked on arrival.
 */
import assert from 'node:assert/strict'
import { arenaOver } from '../../../src/transport/wire/arena.ts'
import { type Flow, makeFlow, sealIcrc, verifyIcrc } from '../../../src/transport/wire/icrc.ts'
import type { RandomSource } from './random.ts'

/** Faults as fractions of packets, 0 to 1. `weight` is the relative frequency of the quality. */
interface Quality {
  readonly name: string
  readonly weight: number
  readonly drop: number
  readonly duplicate: number
  readonly reorder: number
  readonly corrupt: number
  /** Replayed and forged packets per sent packet. */
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

/** Latency of one direction. */
const LATENCY_US = 10
/** Packets that may be replayed. */
const REPLAY_PACKETS = 256
/** Maximum packets of a run (`LinkHooks.deliver`). */
const MAX_IN_RUN = 20
const ROCE_PORT = 4791

export interface Packet {
  /** Node numbers. */
  readonly from: number
  readonly to: number
  readonly bytes: Uint8Array
  /** Number of packets sent before. A forged packet has the number of the copied packet. */
  readonly number: number
}

interface InFlight extends Packet {
  /** µs. */
  readonly arrival: number
  /** Ascending in the order of sending, for packets that arrive at the same time. */
  readonly order: number
  readonly isForged: boolean
}

interface LinkHooks {
  /** Packets back to back, of one size except the last, which may be shorter. */
  deliver(to: number, from: number, packets: readonly Uint8Array[]): void
  /** Called before the delivery of a forged packet with a correct ICRC. */
  forged(packet: Packet): void
  /** Forges a packet from an observed packet; undefined if it cannot. */
  forge(seen: Packet): Packet | undefined
}

const isBefore = (a: InFlight, b: InFlight): boolean =>
  a.arrival < b.arrival || (a.arrival === b.arrival && a.order < b.order)

/** Priority queue by arrival, then by order. */
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
/** Opcode of RC's FLUSH. As in rxe, its ICRC covers UNCOVERED_BYTE too; the ICRC of XRC's FLUSH does not. */
const RC_FLUSH = 0x1c

export type Link = ReturnType<typeof createLink>

/** `count`: number of nodes. */
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
  /** Flips one to three bits; returns whether the ICRC covers one of them. */
  const corrupt = (bytes: Uint8Array): boolean => {
    const before = bytes.slice()
    for (let bits = 1 + random.int(3); bits > 0; bits--) bytes[random.int(bytes.length)] ^= 1 << random.int(8)
    const isRcFlush = before[0] === RC_FLUSH
    return bytes.some((byte, i) => byte !== before[i] && (i !== UNCOVERED_BYTE || isRcFlush))
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
    /** Infinity if no packet is in flight. */
    nextArrival: (): number => heap[0]?.arrival ?? Number.POSITIVE_INFINITY,
    /** Number of the oldest packet that may still arrive, in flight or replayed. */
    oldest: (): number =>
      heap.reduce((oldest, { number }) => Math.min(oldest, number), Math.max(0, counts.sent - REPLAY_PACKETS)),
    /** `bytes`: a packet, with room for its ICRC. */
    send(from: number, to: number, bytes: Uint8Array): void {
      sealIcrc(arenaOver(bytes), 0, bytes.length, flows[from][to], 0)
      const packet = { from, to, bytes, number: counts.sent }
      seen[counts.sent++ % REPLAY_PACKETS] = packet
      const extraDelay = random.hits(quality.reorder) ? LATENCY_US * (1 + 4 * (random.int(100) / 100)) : 0
      if (random.hits(quality.drop)) counts.dropped++
      else if (random.hits(quality.corrupt)) {
        const bad = bytes.slice()
        const covered = corrupt(bad)
        assert.equal(isIcrcRight({ from, to, bytes: bad }), !covered, 'the ICRC detects corrupted packets')
        counts.corrupted++
        schedule({ ...packet, bytes: bad }, self.now + LATENCY_US + extraDelay)
      } else schedule(packet, self.now + LATENCY_US + extraDelay)
      if (random.hits(quality.duplicate)) schedule(packet, self.now + LATENCY_US * (1 + random.int(20)))
      if (random.hits(quality.replay)) {
        counts.replayed++
        schedule(random.pick(seen), self.now + LATENCY_US + random.int(100))
      }
      if (random.hits(quality.forge)) {
        const forged = hooks.forge(random.pick(seen))
        if (forged !== undefined) self.inject(forged, LATENCY_US + random.int(100))
      }
    },
    /** The attacker's packet gets a right ICRC. */
    inject(packet: Packet, delay: number): void {
      sealIcrc(arenaOver(packet.bytes), 0, packet.bytes.length, flows[packet.from][packet.to], 0)
      counts.forged++
      schedule(packet, self.now + delay, true)
    },
    /** Delivers all packets that are due, in runs as long as possible. */
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
