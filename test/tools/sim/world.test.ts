/*
 * The simulation against what is known: line rate, fair shares, the queue that DCQCN keeps, and its steady state.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import {
  flowCount,
  flowsOf,
  type Pattern,
  patterns,
  type Result,
  type Scenario,
  simulate,
} from '../../../src/tools/sim/scenario.ts'
import { Distribution, fairness } from '../../../src/tools/sim/statistics.ts'
import { type Control, createWorld, type World } from '../../../src/tools/sim/world.ts'
import { type LinkSettings, star } from '../../../src/transport/phy/links/graph.ts'
import { FRAME_BYTES } from '../../../src/transport/phy/links/links.ts'
import { cycleSteadyState, fluidFixedPoint } from './steady-state.ts'

const LINK: LinkSettings = {
  rate: 40e9,
  delay: 1,
  queue: 2e6,
  marking: { min: 5000, max: 200_000, probability: 0.01 },
}
const MTU = 1024
/** Bytes of a packet of a WRITE on the link. */
const PACKET_BYTES = MTU + 16 + FRAME_BYTES
/** The directed link from the switch to host 0. */
const DOWN = 1

const incast = (senders: number, link: LinkSettings = LINK): Scenario => ({
  name: 'incast',
  topology: star(senders + 1, link),
  flows: flowsOf('incast', senders + 1, 1, {
    bytes: 2 ** 18,
    messages: Number.POSITIVE_INFINITY,
    depth: 4,
    stagger: 20,
  }),
  time: 10_000,
  warmUp: 30_000,
  mtu: MTU,
  window: 2 ** 20,
  timeout: 12,
  seed: 1,
  granularity: 0,
})

const resultOf = (scenario: Scenario, control: Control): Result => {
  const run = simulate(scenario, control, () => 0)
  for (;;) {
    const step = run.next()
    if (step.done) return step.value
  }
}

const measured = (scenario: Scenario, control: Control): World => {
  const world = createWorld({ ...scenario, control })
  world.run(scenario.warmUp)
  world.resetCounts()
  world.run(scenario.warmUp + scenario.time)
  return world
}

describe('a simulation', () => {
  it('has one flow reach line rate, less headers, with every control', () => {
    for (const control of ['dcqcn', 'go-back-n', 'none'] as const) {
      const { goodput, retransmissions, overflowed } = resultOf({ ...incast(1), time: 2000, warmUp: 1000 }, control)
      const share = goodput / (40e9 * (MTU / PACKET_BYTES))
      assert.ok(share > 0.99 && share <= 1.001, `${control}: ${share} of what is possible`)
      assert.deepEqual([retransmissions, overflowed], [0, 0])
    }
  })

  it('has flows share a link fairly with DCQCN, without loss, with a queue from Kmin to Kmax; without, packets are lost', () => {
    for (const senders of [2, 8]) {
      const { goodput, fairness, overflowed, queue, cnps } = resultOf(incast(senders), 'dcqcn')
      assert.ok(goodput > 0.93 * 40e9 * (MTU / PACKET_BYTES), `${senders} senders: ${goodput}`)
      assert.ok(fairness > 0.97, `${senders} senders: ${fairness}`)
      assert.equal(overflowed, 0)
      assert.ok(queue.mean > 5000 && queue.mean < 200_000, `${senders} senders: ${queue.mean}`)
      assert.ok(cnps > 0)
    }
    const uncontrolled = resultOf({ ...incast(8), time: 4000, warmUp: 2000 }, 'none')
    assert.ok(uncontrolled.overflowed > 0 && uncontrolled.retransmissions > 0 && uncontrolled.cnps === 0)
    assert.ok(uncontrolled.queue.mean > 1e6)
  })

  it('is in DCQCN’s steady state where its equations say', () => {
    // a ramp with the slope of the published one, which does not end where the equations want the queue
    const marking = { min: 5000, max: 2_000_000, probability: 0.1 }
    for (const [flows, tolerance] of [
      [2, 0.1],
      [8, 0.1],
      [16, 0.2],
    ] as const) {
      const world = measured(
        { ...incast(flows, { ...LINK, marking, queue: 1e8 }), warmUp: 30_000, time: 40_000 },
        'dcqcn',
      )
      const { marked, packets, meanQueue } = world.links.stats(world.now)[DOWN]
      const expected = cycleSteadyState({ flows, rate: LINK.rate, packetBytes: PACKET_BYTES, marking })
      const difference = marked / packets / expected.marked - 1
      assert.ok(Math.abs(difference) < tolerance, `${flows} flows: marked ${marked / packets}, not ${expected.marked}`)
      const byQueue = marking.min + (marked / packets / marking.probability) * (marking.max - marking.min)
      assert.ok(Math.abs(meanQueue / byQueue - 1) < 0.15, `${flows} flows: queue ${meanQueue}, not ${byQueue}`)
      // the fluid model, where each mark sets timers back, wants fewer marks
      const fluid = fluidFixedPoint({ flows, rate: LINK.rate, packetBytes: PACKET_BYTES, marking })
      assert.ok(fluid.marked < expected.marked && fluid.marked > 0.6 * expected.marked)
    }
  })

  it('completes every message once, in spite of loss, and is the same for the same seed', () => {
    const scenario: Scenario = {
      ...incast(4, { ...LINK, loss: 0.005, queue: 60_000 }),
      flows: flowsOf('incast', 5, 1, { bytes: 10_000, messages: 100, depth: 3, stagger: 1 }),
    }
    const runs = [1, 1, 2].map(seed => {
      const world = createWorld({ ...scenario, control: 'go-back-n', seed })
      world.run(1e6)
      assert.ok(world.isDone())
      assert.deepEqual([...world.completed], [100, 100, 100, 100])
      assert.deepEqual([...world.received], [1e6, 1e6, 1e6, 1e6])
      assert.deepEqual([...world.failed], [0, 0, 0, 0])
      assert.ok(world.count('retransmissions') > 0)
      return `${world.latencies.mean} ${world.links.delivered}`
    })
    assert.equal(runs[0], runs[1])
    assert.notEqual(runs[0], runs[2])
  })

  it('with a granularity gives nearly the same', () => {
    const [exact, coarse] = [0, 1].map(granularity =>
      resultOf({ ...incast(4), granularity, warmUp: 10_000, time: 4000 }, 'dcqcn'),
    )
    assert.ok(Math.abs(coarse.goodput / exact.goodput - 1) < 0.05, `${coarse.goodput} and ${exact.goodput}`)
  })
})

describe('patterns', () => {
  it('give each host its flows', () => {
    const messages = { bytes: 4, messages: 1, depth: 1, stagger: 2 }
    const pairs = (...args: [Parameters<typeof flowsOf>[0], number, number]) =>
      flowsOf(...args, messages).map(({ from, to }) => `${from}-${to}`)
    for (const pattern of Object.keys(patterns) as Pattern[])
      for (const hosts of [2, 3, 6, 7])
        assert.equal(pairs(pattern, hosts, 1).length, flowCount(pattern, hosts, 1), `${pattern} of ${hosts}`)
    assert.deepEqual(pairs('incast', 4, 1), ['1-0', '2-0', '3-0'])
    assert.deepEqual(pairs('halves', 4, 1), ['0-2', '1-3'])
    assert.deepEqual(pairs('parking-lot', 6, 1), ['0-5', '1-2', '3-4'])
    assert.equal(new Set(pairs('all-to-all', 7, 1)).size, 42)
    for (const peers of [1, 3, 6]) {
      const all = pairs('permutation', 7, peers)
      assert.equal(new Set(all).size, 7 * peers)
      assert.ok(all.every(pair => pair[0] !== pair[2]))
      for (let to = 0; to < 7; to++) assert.equal(all.filter(pair => pair.endsWith(`-${to}`)).length, peers)
    }
    assert.deepEqual(
      flowsOf('incast', 3, 1, messages).map(({ start }) => start),
      [0, 2],
    )
  })
})

describe('statistics', () => {
  it('percentiles are exact to 1/32; the index of fairness is Jain’s', () => {
    const distribution = new Distribution()
    assert.equal(distribution.percentile(0.5), 0)
    for (let i = 1; i <= 1000; i++) distribution.add(i)
    for (const share of [0.01, 0.5, 0.99])
      assert.ok(Math.abs(distribution.percentile(share) / (1000 * share) - 1) < 1 / 32, `${share}`)
    assert.deepEqual([distribution.max, distribution.mean, distribution.total], [1000, 500.5, 1000])
    assert.equal(fairness([5, 5, 5]), 1)
    assert.equal(fairness([0, 0, 9]), 1 / 3)
    assert.equal(fairness([]), 1)
  })
})

describe('lossless classes', () => {
  it('senders that do not react lose nothing, share the link fairly, and are paused for what it cannot carry', () => {
    const lossy = resultOf(incast(8, { ...LINK, queue: 200_000 }), 'none')
    const dscps = Array.from({ length: 64 }, (_, dscp) => dscp)
    const classes = [{ name: 'all', dscps, weight: 1, pause: { xoff: 100_000, xon: 50_000 } }]
    const result = resultOf(incast(8, { ...LINK, queue: 200_000, classes }), 'none')
    assert.ok(lossy.overflowed > 0 && lossy.pauses === 0)
    assert.deepEqual([result.overflowed, result.retransmissions, result.failedFlows], [0, 0, 0])
    assert.ok(result.fairness > 0.99 && result.goodput > lossy.goodput, `${result.fairness} ${result.goodput}`)
    // each of 8 links is needed for an eighth of the time
    const paused = result.pausedTime / (8 * result.time)
    assert.ok(Math.abs(paused - 7 / 8) < 0.05, `${paused}`)
  })
})
