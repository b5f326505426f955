/*
 * Links against arithmetic: when packets arrive, what queues hold, drop and mark, and which paths flows take.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import {
  chain,
  type LinkSettings,
  type LinkTopology,
  leafSpine,
  routesOf,
  star,
  subnetsOf,
} from '../../../../src/transport/phy/links/graph.ts'
import { createLinks, type Links } from '../../../../src/transport/phy/links/links.ts'
import { ECN_CAPABLE, ECN_CE } from '../../../../src/transport/wire/flow.ts'

/** 1 byte per ns. */
const FAST: LinkSettings = { rate: 8e9, delay: 3, queue: 1e6 }
const bytes = new Uint8Array(64)

interface Arrival {
  readonly at: number
  readonly host: number
  readonly from: number
  readonly ecn: number
  readonly first: number
}

const setUp = (topology: LinkTopology, seed = 1) => {
  const arrivals: Arrival[] = []
  const arrived: number[] = []
  const links: Links = createLinks({
    topology,
    seed,
    keptBytes: 16,
    overhead: 0,
    arrived: host => void arrived.push(host),
  })
  return {
    links,
    arrivals,
    send(from: number, to: number, length: number, now = 0, { hash = 0, ecn = 0, first = 0 } = {}): boolean {
      bytes[0] = first
      return links.send(from, to, hash, ecn, bytes, 0, length, now)
    },
    /** Runs until nothing is in flight; returns all arrivals so far. */
    run(): Arrival[] {
      for (let now = links.nextAt(); now < Number.POSITIVE_INFINITY; now = links.nextAt()) {
        links.poll(now)
        for (const host of arrived)
          for (let packet = links.receive(host); packet >= 0; packet = links.receive(host)) {
            const first = links.arena.bytes[links.offsetOf(packet)]
            arrivals.push({ at: now, host, from: links.sourceOf(packet), ecn: links.ecnOf(packet), first })
            links.release(packet)
          }
        arrived.length = 0
      }
      return arrivals
    },
  }
}

describe('links', () => {
  it('a packet takes its bytes at the rate, and the delay, of each link; later ones wait for it', () => {
    const t = setUp(star(3, FAST))
    for (const first of [7, 8]) assert.ok(t.send(0, 1, 1000, 0, { first }))
    assert.equal(t.links.busyUntil(0), 2)
    assert.deepEqual(
      t.run().map(({ at, host, from, first }) => [at, host, from, first]),
      [
        [8, 1, 0, 7],
        [9, 1, 0, 8],
      ],
    )
    assert.equal(t.links.delivered, 2)
  })

  it('two senders share a link; the queue in front of it is what arithmetic says', () => {
    const t = setUp(star(3, FAST))
    for (let i = 0; i < 10; i++) for (const from of [1, 2]) t.send(from, 0, 1000, i)
    // into the switch come 2 bytes per ns in [4, 14), out goes 1
    t.links.poll(9)
    const DOWN = 1
    assert.equal(t.links.queueOf(DOWN, 9), 7000)
    t.run()
    const stats = t.links.stats(100)[DOWN]
    assert.equal(stats.packets, 20)
    // after the last pair at 13: 20,000 bytes came, and 9,000 left
    assert.equal(stats.maxQueue, 11_000)
    assert.equal(t.links.queueOf(DOWN, 100), 0)
    // 2,000 more at each of 4 … 13, 1,000 less in each µs between: mean of the falling pieces
    let area = 0
    for (let i = 0, queue = 0; i < 10; i++) {
      queue += 2000
      if (i < 9) {
        area += queue - 500
        queue -= 1000
      } else area += queue ** 2 / 2000
    }
    assert.ok(Math.abs(stats.meanQueue - area / 100) < 1e-6, `${stats.meanQueue} is not ${area / 100}`)
    t.links.resetStats(100)
    assert.deepEqual([t.links.stats(100)[DOWN].packets, t.links.stats(100)[DOWN].maxQueue], [0, 0])
  })

  it('a full queue drops, and counts', () => {
    const t = setUp(star(3, { ...FAST, queue: 3000 }))
    for (let i = 0; i < 10; i++) for (const from of [1, 2]) t.send(from, 0, 1000, 0)
    const arrived = t.run().length
    const { overflowed, packets, maxQueue } = t.links.stats(100)[1]
    assert.ok(overflowed > 0)
    assert.equal(arrived + overflowed, 20)
    assert.equal(packets, arrived)
    assert.equal(maxQueue, 3000)
  })

  it('marks by RED: none below the minimum, all above the maximum, a share between; only what says ECT', () => {
    const marked = (probability: number, ecn: number): boolean[] => {
      const t = setUp(star(3, { ...FAST, marking: { min: 2000, max: 12_000, probability } }))
      for (let i = 0; i < 20; i++) for (const from of [1, 2]) t.send(from, 0, 1000, i, { ecn })
      return t.run().map(one => one.ecn === ECN_CE)
    }
    const none = marked(0, ECN_CAPABLE)
    assert.equal(
      none.indexOf(true),
      none.findIndex((_, i) => none.slice(i).every(Boolean)),
      'all after the first',
    )
    const half = marked(1, ECN_CAPABLE)
    assert.ok(half.indexOf(true) < none.indexOf(true))
    assert.ok(half.filter(Boolean).length > none.filter(Boolean).length)
    assert.deepEqual(half.slice(0, 4), [false, false, false, false])
    assert.ok(!marked(1, 0).includes(true))
  })

  it('lose at random with a seed, and drop what is longer than the MTU', () => {
    const run = (seed: number): number[] => {
      const t = setUp(star(2, { ...FAST, loss: 0.1 }), seed)
      for (let first = 0; first < 200; first++) t.send(0, 1, 100, 0, { first })
      return t.run().map(({ first }) => first)
    }
    const once = run(1)
    assert.ok(once.length > 140 && once.length < 185, `${once.length} of 200 over two links`)
    assert.deepEqual(run(1), once)
    assert.notDeepEqual(run(2), once)
    const t = setUp(star(2, { ...FAST, mtu: 1028 }))
    t.send(0, 1, 1000)
    t.send(0, 1, 1001)
    assert.equal(t.run().length, 1)
    assert.equal(t.links.stats(10)[0].tooLong, 1)
  })

  it('a flow keeps its path, and flows spread over the spines', () => {
    const topology = leafSpine(2, 4, 2, FAST)
    const t = setUp(topology)
    for (let hash = 0; hash < 400; hash++) t.send(0, 2, 100, 0, { hash })
    for (let i = 0; i < 10; i++) t.send(1, 3, 100, 1000, { hash: 5 })
    assert.equal(t.run().length, 410)
    const up = topology.links.flatMap(({ ends }, i) => (ends[0] === 4 ? [t.links.stats(5000)[2 * i].packets] : []))
    assert.equal(up.length, 4)
    assert.equal(
      up.reduce((a, b) => a + b),
      410,
    )
    assert.ok(
      up.every(packets => packets > 60),
      `${up}`,
    )
  })

  it('between hosts without a path nothing is sent', () => {
    const t = setUp({ hosts: 3, switches: 0, links: [{ ...FAST, ends: [0, 1] }] })
    assert.equal(t.send(0, 1, 100), true)
    assert.equal(t.send(0, 2, 100), false)
    assert.equal(t.run().length, 1)
  })

  it('lose no packet that no counter has, and keep each flow in order, whatever is sent', () => {
    const packet = fc.record({
      from: fc.nat(5),
      to: fc.nat(5),
      length: fc.integer({ min: 16, max: 4000 }),
      wait: fc.nat(3),
    })
    fc.assert(
      fc.property(fc.array(packet, { maxLength: 300, size: 'max' }), sends => {
        const t = setUp(
          chain(3, 2, { ...FAST, queue: 9000, loss: 0.02, marking: { min: 100, max: 5000, probability: 0.5 } }),
        )
        let now = 0
        let sent = 0
        for (const { from, to, length, wait } of sends) {
          now += wait
          if (from === to) continue
          t.links.poll(now)
          assert.ok(t.send(from, to, length, now, { hash: from, first: sent & 0xff }))
          sent++
        }
        const arrivals = t.run()
        const lost = t.links.stats(now).reduce((sum, { overflowed, lost }) => sum + overflowed + lost, 0)
        assert.equal(arrivals.length + lost, sent)
        for (let from = 0; from < 6; from++)
          for (let host = 0; host < 6; host++) {
            const order = arrivals.filter(one => one.from === from && one.host === host).map(({ first }) => first)
            if (sent < 256)
              assert.deepEqual(
                order,
                order.toSorted((a, b) => a - b),
              )
          }
      }),
      { seed: 1, numRuns: 50 },
    )
  })
})

describe('routes', () => {
  it('are the shortest ones, and hosts do not forward', () => {
    // host 1 joins two switches, but is no way from one to the other
    const { groups, members } = routesOf({
      hosts: 3,
      switches: 2,
      links: [
        { ...FAST, ends: [0, 3] },
        { ...FAST, ends: [1, 3] },
        { ...FAST, ends: [1, 4] },
        { ...FAST, ends: [2, 4] },
      ],
    })
    assert.equal(groups[0 * 3 + 2], -1)
    assert.deepEqual([...members[groups[0 * 3 + 1]]], [0])
    assert.deepEqual([...members[groups[1 * 3 + 2]]], [4])
  })

  it('a path has the fewest routers, then the fewest links; a link that is down has none', () => {
    // 0 and 1 are joined by three switches (2, 3, 4), and by one router (5)
    const topology: LinkTopology = {
      hosts: 2,
      switches: 3,
      routers: 1,
      links: [
        [0, 2],
        [2, 3],
        [3, 4],
        [4, 1],
        [0, 5],
        [5, 1],
      ].map(([a, b]) => ({ ...FAST, ends: [a, b] })),
    }
    const firstOf = (down?: number): number[] => {
      const { groups, members } = routesOf(topology, link => link === down)
      return [...(members[groups[1]] ?? [])]
    }
    assert.deepEqual([firstOf(), firstOf(2), firstOf(4)], [[0], [8], [0]])
    const t = setUp(topology)
    assert.deepEqual(t.links.pathOf(0, 1, 7), [2, 3, 4])
    t.links.setDown(link => link === 2, 0)
    assert.deepEqual(t.links.pathOf(0, 1, 7), [5])
    t.links.setDown(link => link === 2 || link === 5, 0)
    assert.equal(t.links.pathOf(0, 1, 7), undefined)
    assert.equal(t.send(0, 1, 100), false)
    assert.equal(t.links.nodeStats()[0].pathless, 1)
  })

  it('a subnet is what switches join, or a link to a router', () => {
    const links = (
      [
        [0, 4],
        [1, 5],
        [4, 5],
        [5, 6],
        [6, 2],
        [3, 6],
      ] as const
    ).map(ends => ({ ...FAST, ends }))
    assert.deepEqual([...subnetsOf({ hosts: 4, switches: 2, routers: 1, links })], [0, 0, 1, 2])
  })
})
