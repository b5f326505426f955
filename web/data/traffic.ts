/*
 * Sums over time for charts: a fixed number of intervals, whose width doubles when the session grows beyond them.
 */

import type { SessionEvent } from '../../src/spec/session-events.ts'
import { OP_READ, OP_REQUEST, opcodeFlags, sourceQpnAt } from '../../src/spec/wire/opcodes.ts'
import { lostOutcomes } from '../../src/tools/record/packets.ts'
import { psnDifference } from '../../src/transport/wire/bth.ts'

const INTERVALS = 1024
/** Microseconds of an interval at the start. */
const FIRST_WIDTH = 64

const seriesNames = [
  'bytes',
  'packets',
  'lost',
  'retransmitted',
  'posted',
  'completed',
  'errors',
  'inFlight',
  'cqDepth',
  'window',
] as const
export type SeriesName = (typeof seriesNames)[number]

/** Gauges: the largest value in an interval, not the sum. */
const GAUGES: ReadonlySet<SeriesName> = new Set<SeriesName>(['inFlight', 'cqDepth'])

/** Levels: the newest value, which stays until the next. */
const LEVELS: ReadonlySet<SeriesName> = new Set<SeriesName>(['window'])
/** An interval in which a level was not set. */
const NOT_SET = -1
const emptyValue = (name: SeriesName): number => (LEVELS.has(name) ? NOT_SET : 0)

/** Bins of the histogram of latencies: four per doubling, from 1 µs. */
export const LATENCY_BINS = 120
export const latencyOfBin = (bin: number): number => 2 ** (bin / 4)

const percentileOf = (bins: Uint32Array, share: number): number | null => {
  const wanted = share * bins.reduce((sum, count) => sum + count, 0)
  let sum = 0
  for (let bin = 0; bin < LATENCY_BINS; bin++) {
    sum += bins[bin]!
    if (bins[bin]! > 0 && sum >= wanted) return latencyOfBin(bin + 0.5)
  }
  return null
}

/** Requests and PSNs that are remembered. */
const MAX_REMEMBERED = 65_536
const PSN_MASK = 0xff_ffff

export class Traffic {
  readonly #start: number
  width = FIRST_WIDTH
  /** Number of intervals that are in use. */
  length = 0
  readonly series: Readonly<Record<SeriesName, Float64Array>>
  readonly latencies = new Float64Array(LATENCY_BINS)
  /** The same histogram for each interval, one after another. */
  readonly #latenciesOf = new Uint32Array(INTERVALS * LATENCY_BINS)
  readonly totals: Record<SeriesName, number>
  /** By destination queue pair, and source if packets name it: the newest request PSN, and READ response PSN. */
  readonly #highest = new Map<number, number>()
  readonly #outstanding = new Map<number, { readonly time: number; readonly bytes: number }>()
  readonly #produced = new Map<number, number>()
  readonly #polled = new Map<number, number>()
  /** By queue pair: its window; and their sum. */
  readonly #windows = new Map<number, number>()
  #window = 0
  #inFlight = 0

  /** `start`: microseconds of the first interval. */
  constructor(start: number) {
    this.#start = start
    this.series = Object.fromEntries(
      seriesNames.map(name => [name, new Float64Array(INTERVALS).fill(emptyValue(name))]),
    ) as Traffic['series']
    this.totals = Object.fromEntries(seriesNames.map(name => [name, 0])) as Record<SeriesName, number>
  }

  /** Seconds since `start` at the beginning of each interval. */
  get times(): number[] {
    return Array.from({ length: this.length }, (_, i) => (i * this.width) / 1e6)
  }

  values(name: SeriesName): number[] {
    const values = [...this.series[name].subarray(0, this.length)]
    let level = 0
    if (!LEVELS.has(name)) return values
    return values.map(value => {
      if (value !== NOT_SET) level = value
      return level
    })
  }

  /**
   * In each interval, the latency in microseconds that the share `share` (0 to 1) of the sends that ended in it did not
   * exceed, at most 9 % off; null: none has ended.
   */
  percentiles(share: number): (number | null)[] {
    return Array.from({ length: this.length }, (_, i) =>
      percentileOf(this.#latenciesOf.subarray(i * LATENCY_BINS, (i + 1) * LATENCY_BINS), share),
    )
  }

  #halve(): void {
    for (const name of seriesNames) {
      const values = this.series[name]
      for (let i = 0; i < INTERVALS / 2; i++) {
        const [a, b] = [values[2 * i]!, values[2 * i + 1]!]
        if (LEVELS.has(name)) values[i] = b === NOT_SET ? a : b
        else values[i] = GAUGES.has(name) ? Math.max(a, b) : a + b
      }
      values.fill(emptyValue(name), INTERVALS / 2)
    }
    const latencies = this.#latenciesOf
    for (let i = 0; i < INTERVALS / 2; i++)
      for (let bin = 0; bin < LATENCY_BINS; bin++) {
        const at = 2 * i * LATENCY_BINS + bin
        latencies[i * LATENCY_BINS + bin] = latencies[at]! + latencies[at + LATENCY_BINS]!
      }
    latencies.fill(0, (INTERVALS / 2) * LATENCY_BINS)
    this.width *= 2
    this.length = Math.ceil(this.length / 2)
  }

  #add(name: SeriesName, time: number, value: number): void {
    let interval = Math.max(0, Math.floor((time - this.#start) / this.width))
    while (interval >= INTERVALS) {
      this.#halve()
      interval = Math.floor((time - this.#start) / this.width)
    }
    const values = this.series[name]
    if (LEVELS.has(name)) {
      values[interval] = value
      this.totals[name] = Math.max(this.totals[name], value)
    } else if (GAUGES.has(name)) {
      values[interval] = Math.max(values[interval]!, value)
      this.totals[name] = Math.max(this.totals[name], value)
    } else {
      values[interval]! += value
      this.totals[name] += value
    }
    this.length = Math.max(this.length, interval + 1)
  }

  add(event: SessionEvent): void {
    const { time } = event
    switch (event.kind) {
      case 'packets': {
        if (lostOutcomes.has(event.outcome)) this.#add('lost', time, event.count)
        // What happens on arrival to packets that were recorded when they were sent.
        if (event.direction === 'received' && event.outcome !== 'passed') return
        this.#add('packets', time, event.count)
        this.#add('bytes', time, (event.count - 1) * event.packetBytes + event.lastBytes)
        const repeated = this.#repeated(event.bytes, event.count)
        if (repeated > 0) this.#add('retransmitted', time, repeated)
        return
      }
      case 'posted':
        this.#add('posted', time, 1)
        if (event.request.opcode < 0) return
        this.#inFlight += event.request.length
        this.#outstanding.set(event.request.id, { time, bytes: event.request.length })
        this.#add('inFlight', time, this.#inFlight)
        if (this.#outstanding.size > MAX_REMEMBERED)
          for (const oldest of this.#outstanding.keys()) {
            this.#end(oldest, time)
            break
          }
        return
      case 'ended':
        this.#end(event.request, time)
        return
      case 'completed': {
        this.#add('completed', time, 1)
        if (event.status !== 0) this.#add('errors', time, 1)
        this.#end(event.request, time)
        if (event.cqPosition === 0) return
        this.#produced.set(event.cq, event.cqPosition)
        this.#depth(event.cq, time)
        return
      }
      case 'polled':
        this.#polled.set(event.cq, event.count)
        this.#depth(event.cq, time)
        return
      case 'counters':
        if (event.values.window !== undefined) this.#setWindow(event.object, event.values.window, time)
        return
      case 'queueReset':
        this.#setWindow(event.owner, 0, time)
    }
  }

  /** `window`: 0 for a queue pair that was reset. */
  #setWindow(qp: number, window: number, time: number): void {
    const before = this.#windows.get(qp) ?? 0
    if (before === window) return
    if (window === 0) this.#windows.delete(qp)
    else this.#windows.set(qp, window)
    this.#window += window - before
    this.#add('window', time, this.#window)
  }

  #depth(cq: number, time: number): void {
    const depth = (this.#produced.get(cq) ?? 0) - (this.#polled.get(cq) ?? 0)
    this.#add('cqDepth', time, Math.max(0, depth))
  }

  #end(request: number, time: number): void {
    const known = this.#outstanding.get(request)
    if (known === undefined) return
    this.#outstanding.delete(request)
    this.#inFlight -= known.bytes
    this.#add('inFlight', time, this.#inFlight)
    const bin = Math.min(LATENCY_BINS - 1, Math.floor(4 * Math.log2(Math.max(1, time - known.time))))
    this.latencies[bin]!++
    // `#add` has made the intervals long enough.
    const interval = Math.max(0, Math.floor((time - this.#start) / this.width))
    this.#latenciesOf[interval * LATENCY_BINS + bin]!++
  }

  /** How many packets of a run were sent before. */
  #repeated(bytes: Uint8Array, count: number): number {
    const flags = opcodeFlags[bytes[0] ?? 0]!
    const isRequest = (flags & OP_REQUEST) !== 0
    // Acknowledgements may repeat their PSN, and UD does not retransmit.
    if (bytes.length < 12 || bytes[0]! >>> 5 === 3 || (!isRequest && (flags & OP_READ) === 0)) return 0
    const destQpn = (bytes[5]! << 16) | (bytes[6]! << 8) | bytes[7]!
    const psn = (bytes[9]! << 16) | (bytes[10]! << 8) | bytes[11]!
    // SRD counts the packets between two queue pairs.
    const at = sourceQpnAt(bytes[0]!)
    const sourceQpn =
      at === 0 || bytes.length < at + 4 ? 0 : (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!
    const pair = sourceQpn * 2 ** 24 + destQpn
    const key = isRequest ? pair : -1 - pair
    const highest = this.#highest.get(key)
    const last = (psn + count - 1) & PSN_MASK
    if (highest === undefined || psnDifference(last, highest) > 0) {
      this.#highest.set(key, last)
      if (this.#highest.size > MAX_REMEMBERED) this.#highest.clear()
    }
    return highest === undefined ? 0 : Math.max(0, Math.min(count, psnDifference(highest, psn) + 1))
  }
}
