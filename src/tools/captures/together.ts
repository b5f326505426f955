/*
 * Several captures of one network: their clocks, and the paths of packets between them. Each capture is read twice: a
 * first time for its own analysis, which also samples packets; then all together, in the order of their aligned times.
 */
import type { AddressTable } from './addresses.ts'
import { alignedTime, type Clock, clockOf, type TimePair } from './clocks.ts'
import { CaptureReader } from './file.ts'
import { type CaptureFilter, matchesFilter } from './filter.ts'
import { Kind, Locator } from './locate.ts'
import { type LostReport, type PathReport, PathTable } from './paths.ts'
import { type PacketSample, packetNumber } from './samples.ts'

/** A capture of several. Times are nanoseconds since `origin` of its first packet, by its own clock. */
export interface Point {
  readonly name: string
  readonly sample: PacketSample
  /** Of its first packet, since the first packet of the first capture, by the clocks as they are. */
  origin: number
  /** Of its last packet, since `origin`. */
  end: number
  /** Chunks of its bytes, from the start. */
  readonly open: () => Promise<AsyncIterable<Uint8Array>>
}

/** How the clock of a capture was aligned. */
export interface PointClock {
  readonly clock: Clock
  /** The number of the capture to whose clock it was compared. */
  readonly to: number
}

export interface Together {
  /** By number of the capture; undefined: the first, or one that has no packets of the others. */
  readonly clocks: readonly (PointClock | undefined)[]
  readonly paths: readonly PathReport[]
  readonly lost: readonly LostReport[]
}

/** Pairs of one packet at two points from which a clock is computed. */
const MIN_PAIRS = 2
const MIN_WINDOW = 1e6
const MAX_WINDOW = 1e9
/** The window is so many times the longest delay. */
const WINDOW_RATIO = 4

const groupOf = (source: number, destination: number): number => source * 2 ** 20 + destination
const backOf = (group: number): number => (group % 2 ** 20) * 2 ** 20 + Math.floor(group / 2 ** 20)

/** The pairs of packets that two captures have. */
const pairsOf = (point: Point, other: Point): TimePair[] => {
  const pairs: TimePair[] = []
  point.sample.common(other.sample, (here, there) => {
    const group = groupOf(here.source, here.destination)
    pairs.push({ time: point.origin + here.time, other: other.origin + there.time, group })
  })
  return pairs
}

/** Packets of a capture as numbers, a chunk at a time. */
class PointReader {
  /** Of each packet: number, source, destination, qpn, time, frame. */
  readonly #found: number[] = []
  #at = 0
  #time = 0
  readonly #chunks: AsyncIterator<Uint8Array>
  readonly #reader: CaptureReader

  constructor(
    chunks: AsyncIterable<Uint8Array>,
    addresses: AddressTable,
    port: number | undefined,
    filter: CaptureFilter | undefined,
  ) {
    this.#chunks = chunks[Symbol.asyncIterator]()
    const locator = new Locator(addresses, port)
    let start: { readonly seconds: number; readonly nanoseconds: number } | undefined
    this.#reader = new CaptureReader(packet => {
      const { seconds, nanoseconds, hasTime } = packet
      if (hasTime) {
        start ??= { seconds, nanoseconds }
        this.#time = (seconds - start.seconds) * 1e9 + (nanoseconds - start.nanoseconds)
      }
      if (locator.locate(packet) > Kind.INFINIBAND) return
      const { located } = locator
      for (let part = 0; part < located.parts; part++) {
        locator.select(packet, part)
        const qpn = packet.arena.view.getUint32(located.at + 4) & 0xff_ffff
        if (filter !== undefined && !matchesFilter(filter, addresses, located, qpn, this.#time)) continue
        this.#found.push(
          packetNumber(packet, located),
          located.source,
          located.destination,
          qpn,
          this.#time,
          packet.frame,
        )
      }
      locator.select(packet, 0)
    })
  }

  /** The time of the next packet; undefined: there is none. */
  async time(): Promise<number | undefined> {
    while (this.#at === this.#found.length) {
      this.#found.length = 0
      this.#at = 0
      const next = await this.#chunks.next()
      if (next.done || this.#reader.damage !== undefined) return undefined
      this.#reader.push(next.value)
    }
    return this.#found[this.#at + 4]
  }

  /** Whether the next packet's time is known without reading on. */
  get isReady(): boolean {
    return this.#at < this.#found.length
  }

  get nextTime(): number {
    return this.#found[this.#at + 4]
  }

  take(table: PathTable, point: number, time: number): void {
    const found = this.#found
    const at = this.#at
    table.add(point, found[at], found[at + 1], found[at + 2], found[at + 3], time, found[at + 5])
    this.#at += FIELDS
  }

  async close(): Promise<void> {
    await this.#chunks.return?.()
  }
}

const FIELDS = 6

interface TogetherOptions {
  readonly port?: number
  readonly filter?: CaptureFilter
}

/** Compares captures, of which `addresses` has all addresses. */
export const compareCaptures = async (
  points: readonly Point[],
  addresses: AddressTable,
  { port, filter }: TogetherOptions,
): Promise<Together> => {
  const clocks: (PointClock | undefined)[] = points.map(() => undefined)
  const isAligned = points.map((_, i) => i === 0)
  // The capture that has most packets in common with an aligned one comes next.
  for (;;) {
    let best: { readonly point: number; readonly to: number; readonly pairs: TimePair[] } | undefined
    for (const [to, reference] of points.entries())
      for (const [point, other] of points.entries()) {
        if (!isAligned[to] || isAligned[point]) continue
        const pairs = pairsOf(reference, other)
        if (pairs.length >= MIN_PAIRS && pairs.length > (best?.pairs.length ?? 0)) best = { point, to, pairs }
      }
    if (best === undefined) break
    const clock = clockOf(best.pairs, backOf)!
    clocks[best.point] = { clock, to: best.to }
    isAligned[best.point] = true
  }
  const aligned = (point: number, time: number): number => {
    const known = clocks[point]
    return known === undefined ? time : aligned(known.to, alignedTime(known.clock, time))
  }
  const members = points.map((_, i) => i).filter(i => isAligned[i])
  if (members.length < 2) return { clocks, paths: [], lost: [] }

  // The order of the points of a direction, by the middle delays from the first capture on.
  const delayOf = (point: number, group: number): number | undefined => {
    const known = clocks[point]
    if (known === undefined) return 0
    const delay = known.clock.delays.get(group)?.middle
    const before = delayOf(known.to, group)
    return delay === undefined || before === undefined ? undefined : before + delay
  }
  const order = (source: number, destination: number): readonly number[] => {
    const group = groupOf(source, destination)
    return members
      .map(point => ({ point, delay: delayOf(point, group) }))
      .filter(({ delay }) => delay !== undefined)
      .sort((a, b) => a.delay! - b.delay!)
      .map(({ point }) => point)
  }
  let longest = 0
  for (const known of clocks)
    if (known !== undefined) {
      const { delays, offsetError = 0 } = known.clock
      for (const { most } of delays.values()) longest = Math.max(longest, Math.abs(most) + offsetError)
    }
  const window = Math.min(MAX_WINDOW, Math.max(MIN_WINDOW, WINDOW_RATIO * longest))
  const spans = points.map(({ origin, end }, point) => ({
    from: aligned(point, origin),
    to: aligned(point, origin + end),
  }))
  const table = new PathTable({ spans, order, window, longest })
  const readers = await Promise.all(
    members.map(async point => ({
      point,
      reader: new PointReader(await points[point].open(), addresses, port, filter),
    })),
  )
  let open = [...readers]
  try {
    while (open.length > 0) {
      let first: (typeof open)[number] | undefined
      let firstTime = 0
      for (const one of open) {
        const { reader, point } = one
        if (!reader.isReady && (await reader.time()) === undefined) {
          open = open.filter(other => other !== one)
          first = undefined
          break
        }
        const time = aligned(point, points[point].origin + reader.nextTime)
        if (first === undefined || time < firstTime) {
          first = one
          firstTime = time
        }
      }
      if (first === undefined) continue
      first.reader.take(table, first.point, firstTime)
    }
  } finally {
    for (const { reader } of readers) await reader.close()
  }
  table.finish()
  return { clocks, paths: table.paths, lost: table.lost }
}
