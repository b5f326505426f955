/*
 * Scenarios: a topology, flows and how senders react, and what a run of one measures.
 */
import type { LinkTopology } from '../../transport/phy/links/graph.ts'
import { Distribution, fairness } from './statistics.ts'
import { type Control, createWorld, type FlowSpec, type WorldOptions } from './world.ts'

/** Who sends to whom. */
export const patterns = {
  incast: 'all other hosts to host 1',
  'all-to-all': 'each host to each other one',
  permutation: 'each host to `peers` others, none of which gets more',
  halves: 'each host of the first half to one of the second half',
  'parking-lot': 'the first host to the last one, and each other one to the next',
} as const
export type Pattern = keyof typeof patterns

/** What the flows of a pattern have in common. */
interface Messages extends Omit<FlowSpec, 'from' | 'to' | 'start'> {
  /** Time between the starts of two flows, µs. */
  readonly stagger: number
}

/** Number of flows of a pattern. */
export const flowCount = (pattern: Pattern, hosts: number, peers: number): number =>
  ({
    incast: hosts - 1,
    'all-to-all': hosts * (hosts - 1),
    permutation: hosts * peers,
    halves: hosts >> 1,
    'parking-lot': 1 + Math.max(0, (hosts - 2) >> 1),
  })[pattern]

/** The flows of a pattern between hosts 0 to `hosts` - 1. `peers`: of `permutation`. */
export const flowsOf = (pattern: Pattern, hosts: number, peers: number, messages: Messages): FlowSpec[] => {
  const pairs: (readonly [from: number, to: number])[] = []
  if (pattern === 'incast') for (let from = 1; from < hosts; from++) pairs.push([from, 0])
  if (pattern === 'all-to-all')
    for (let distance = 1; distance < hosts; distance++)
      for (let from = 0; from < hosts; from++) pairs.push([from, (from + distance) % hosts])
  if (pattern === 'permutation')
    for (let peer = 0; peer < peers; peer++) {
      // distances that spread over the network, all different
      const distance = 1 + ((peer * Math.max(1, Math.floor((hosts - 1) / peers))) % (hosts - 1))
      for (let from = 0; from < hosts; from++) pairs.push([from, (from + distance) % hosts])
    }
  if (pattern === 'halves') for (let from = 0; from < hosts >> 1; from++) pairs.push([from, (hosts >> 1) + from])
  if (pattern === 'parking-lot') {
    pairs.push([0, hosts - 1])
    for (let from = 1; from + 1 < hosts - 1; from += 2) pairs.push([from, from + 1])
  }
  const { stagger, ...spec } = messages
  return pairs.map(([from, to], i) => ({ ...spec, from, to, start: i * stagger }))
}

export interface Scenario extends Omit<WorldOptions, 'control'> {
  readonly name: string
  /** Virtual time, µs, and how much of it passes before counting begins. */
  readonly time: number
  readonly warmUp: number
}

/** Latencies, µs. */
interface Latencies {
  readonly messages: number
  readonly mean: number
  readonly p50: number
  readonly p90: number
  readonly p99: number
  readonly p999: number
  readonly max: number
}

/** The state at a time, µs. */
interface Sample {
  readonly time: number
  /** Bits/s of payload since the last sample. */
  readonly goodput: number
  /** Bytes of the longest queue of a switch. */
  readonly queue: number
}

export interface Result {
  readonly scenario: string
  readonly control: Control
  readonly hosts: number
  readonly flows: number
  /** Measured virtual time, µs. */
  readonly time: number
  /** Bits/s of payload, all flows. */
  readonly goodput: number
  /** Jain's index of the flows' goodput. */
  readonly fairness: number
  readonly latency: Latencies
  /** Of the switch's queue with the highest mean, bytes; median and 99 % of samples of the longest queue. */
  readonly queue: { readonly mean: number; readonly max: number; readonly p50: number; readonly p99: number }
  /** Packets that switches marked, that overflowed their queues, and that links lost. */
  readonly marked: number
  readonly overflowed: number
  readonly lost: number
  /** Of lossless classes: pauses, and the time for which directions of links were paused, µs. */
  readonly pauses: number
  readonly pausedTime: number
  /** Of the whole run: CNPs sent, and times that a queue pair began to send again. */
  readonly cnps: number
  readonly retransmissions: number
  readonly failedFlows: number
  /** Packets that reached their host, in the whole run. */
  readonly packets: number
  /** Seconds of real time; packets per real second; real seconds per simulated second. */
  readonly seconds: number
  readonly packetsPerSecond: number
  readonly secondsPerSimulated: number
  readonly samples: readonly Sample[]
}

/** Samples of a run. */
const SAMPLES = 400

/** Whether a directed link leaves a switch. */
const leavesSwitch = ({ hosts, links }: LinkTopology, direction: number): boolean =>
  links[direction >> 1].ends[direction & 1] >= hosts

const latenciesOf = (distribution: Distribution): Latencies => ({
  messages: distribution.total,
  mean: distribution.mean,
  p50: distribution.percentile(0.5),
  p90: distribution.percentile(0.9),
  p99: distribution.percentile(0.99),
  p999: distribution.percentile(0.999),
  max: distribution.max,
})

/** Runs a scenario, and yields the share that is done, 0 to 1. `clock`: real time, ms. */
export function* simulate(scenario: Scenario, control: Control, clock: () => number): Generator<number, Result> {
  const begin = clock()
  const { topology, time, warmUp } = scenario
  const world = createWorld({ ...scenario, control })
  const directions = Array.from({ length: 2 * topology.links.length }, (_, i) => i).filter(i =>
    leavesSwitch(topology, i),
  )
  const samples: Sample[] = []
  const queues = new Distribution()
  const interval = (warmUp + time) / SAMPLES
  let before = 0
  let isMeasuring = warmUp === 0
  for (let i = 1; i <= SAMPLES; i++) {
    const at = i * interval
    if (!isMeasuring && at >= warmUp) {
      world.run(warmUp)
      // The sample has what arrived before the reset, too.
      before -= world.receivedBytes
      world.resetCounts()
      isMeasuring = true
    }
    world.run(at)
    let queue = 0
    for (const direction of directions) queue = Math.max(queue, world.links.queueOf(direction, at))
    const after = world.receivedBytes
    samples.push({ time: at, goodput: ((after - before) * 8e6) / interval, queue })
    before = after
    if (at > warmUp) queues.add(queue)
    yield i / SAMPLES
  }
  const stats = world.links.stats(world.now).filter((_, i) => leavesSwitch(topology, i))
  const total = (name: 'marked' | 'overflowed' | 'lost'): number =>
    world.links.stats(world.now).reduce((all, direction) => all + direction[name], 0)
  const classes = world.links.stats(world.now).flatMap(direction => direction.classes)
  const busiest = stats.reduce((a, b) => (b.meanQueue > a.meanQueue ? b : a))
  const seconds = (clock() - begin) / 1000
  return {
    scenario: scenario.name,
    control,
    hosts: topology.hosts,
    flows: scenario.flows.length,
    time,
    goodput: (world.receivedBytes * 8e6) / time,
    fairness: fairness(world.received),
    latency: latenciesOf(world.latencies),
    queue: {
      mean: busiest.meanQueue,
      max: stats.reduce((most, { maxQueue }) => Math.max(most, maxQueue), 0),
      p50: queues.percentile(0.5),
      p99: queues.percentile(0.99),
    },
    marked: total('marked'),
    overflowed: total('overflowed'),
    lost: total('lost'),
    pauses: classes.reduce((all, { pauses }) => all + pauses, 0),
    pausedTime: classes.reduce((all, { pausedTime }) => all + pausedTime, 0),
    cnps: world.count('cnpSent'),
    retransmissions: world.count('retransmissions'),
    failedFlows: world.failed.reduce((all, one) => all + one, 0),
    packets: world.links.delivered,
    seconds,
    packetsPerSecond: world.links.delivered / seconds,
    secondsPerSimulated: (seconds * 1e6) / (warmUp + time),
    samples,
  }
}
