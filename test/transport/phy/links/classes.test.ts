/*
 * Classes of links: queues and weights, what lossy ones lose and mark, pauses hop by hop and what they cost other
 * flows, storms, outages; and a single lossy class is as none.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { headroomOf } from '../../../../src/transport/phy/links/class-queues.ts'
import {
  chain,
  type LinkClass,
  type LinkSettings,
  type LinkTopology,
  star,
} from '../../../../src/transport/phy/links/graph.ts'
import { createLinks, DSCP_SHIFT, type Links } from '../../../../src/transport/phy/links/links.ts'
import { ECN_CAPABLE, ECN_CE } from '../../../../src/transport/wire/flow.ts'

/** 1 byte per ns. */
const FAST: LinkSettings = { rate: 8e9, delay: 3, queue: 1e6 }
const bytes = new Uint8Array(64)
const EF = 46
const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i)

/** DSCP 46 is in class `fast`, the others in `other`. */
const classesOf = (fast: Partial<LinkClass>, other: Partial<LinkClass> = {}): readonly LinkClass[] => [
  { name: 'fast', dscps: [EF], weight: 1, ...fast },
  { name: 'other', dscps: range(0, 63).filter(dscp => dscp !== EF), weight: 1, ...other },
]

interface FlowOfClass {
  readonly from: number
  readonly to: number
  readonly start: number
  readonly packets: number
  readonly length: number
  readonly dscp: number
}

interface Sent {
  readonly dscp?: number
  readonly ecn?: number
  readonly tag?: number
}

const setUp = (topology: LinkTopology, seed = 1) => {
  const arrived: number[] = []
  const resumed: number[] = []
  const lost: number[] = []
  const links: Links = createLinks({
    topology,
    seed,
    keptBytes: 16,
    overhead: 0,
    arrived: host => void arrived.push(host),
    lost: packet => void lost.push(links.tagOf(packet)),
    resumed: host => void resumed.push(host),
  })
  const arrivals: { readonly at: number; readonly host: number; readonly tag: number; readonly ecn: number }[] = []
  return {
    links,
    arrivals,
    resumed,
    lost,
    send(from: number, to: number, length: number, now = 0, { dscp = 0, ecn = 0, tag = 0 }: Sent = {}): void {
      links.send(from, to, 0, ecn, bytes, 0, length, now, tag, 64 | (dscp << DSCP_SHIFT))
    },
    /** Runs until `end`, or until nothing is in flight. */
    run(end = Number.POSITIVE_INFINITY): void {
      for (let now = links.nextAt(); now < Number.POSITIVE_INFINITY && now <= end; now = links.nextAt()) {
        links.poll(now)
        for (const host of arrived.splice(0))
          for (let packet = links.receive(host); packet >= 0; packet = links.receive(host)) {
            arrivals.push({ at: now, host, tag: links.tagOf(packet), ecn: links.ecnOf(packet) })
            links.release(packet)
          }
      }
    },
    classOf: (direction: number, name: string, now = 1e6) => {
      const found = links.classesOf(direction, now).find(one => one.name === name)
      assert.ok(found, name)
      return found
    },
  }
}

describe('classes of links', () => {
  it('a link with one lossy class is as one without classes', () => {
    const packet = fc.record({
      at: fc.integer({ min: 0, max: 40 }),
      from: fc.integer({ min: 0, max: 3 }),
      to: fc.integer({ min: 0, max: 3 }),
      length: fc.integer({ min: 100, max: 4000 }),
      dscp: fc.integer({ min: 0, max: 63 }),
    })
    fc.assert(
      fc.property(fc.array(packet, { maxLength: 80, size: 'max' }), fc.integer(), (packets, seed) => {
        const settings = { ...FAST, queue: 9000, loss: 0.02, marking: { min: 1000, max: 8000, probability: 0.5 } }
        const play = (classes: readonly LinkClass[] | undefined) => {
          const topology = chain(2, 2, settings, { ...settings, rate: 5e9 })
          // without two events at the same time, whose order is free
          const links = topology.links.map((link, i) => ({ ...link, delay: 3 + i * 0.001_3, classes }))
          const t = setUp({ ...topology, links }, seed)
          for (const [tag, { at, from, to, length, dscp }] of packets.toSorted((a, b) => a.at - b.at).entries()) {
            if (from === to) continue
            t.run(at + tag / 1000)
            t.send(from, to, length, at + tag / 1000, { dscp, ecn: ECN_CAPABLE, tag })
          }
          t.run()
          const stats = t.links.stats(1000).map(({ classes: _, meanQueue, maxQueue, ...counts }) => counts)
          const queues = t.links.stats(1000).flatMap(({ meanQueue, maxQueue }) => [meanQueue, maxQueue])
          const arrivals = t.arrivals.map(({ at: _, ...rest }) => rest)
          return { exact: { arrivals, stats, lost: t.lost }, near: [...queues, ...t.arrivals.map(({ at }) => at)] }
        }
        const [one, none] = [play([{ name: 'all', dscps: range(0, 63), weight: 1 }]), play(undefined)]
        assert.deepEqual(one.exact, none.exact)
        for (const [i, value] of one.near.entries()) assert.ok(Math.abs(value - none.near[i]) < 1e-6)
      }),
      { numRuns: 100 },
    )
  })

  it('classes share a link by their weights, and have it alone while others have nothing', () => {
    const t = setUp(star(2, { ...FAST, classes: classesOf({ weight: 3 }) }))
    for (let i = 0; i < 200; i++) {
      t.send(0, 1, 1000, 0, { dscp: EF, tag: 1 })
      t.send(0, 1, 1000, 0, { tag: 2 })
    }
    t.run()
    const firstHalf = t.arrivals.slice(0, 200)
    const share = firstHalf.filter(({ tag }) => tag === 1).length / firstHalf.length
    assert.ok(Math.abs(share - 0.75) < 0.06, `${share}`)
    assert.equal(t.arrivals.length, 400)
    // no gap: 400 packets of 1 µs, and two links
    assert.ok(Math.abs(t.arrivals.at(-1)!.at - 407) < 1e-6, `${t.arrivals.at(-1)!.at}`)
  })

  it('a full queue of a lossy class loses packets and marks them; the other class has its own', () => {
    const mark = { min: 1000, max: 2000, probability: 1 }
    const classes = classesOf({ queue: 3000, marking: mark }, { marking: 'none' })
    const t = setUp(star(3, { ...FAST, classes }))
    for (let i = 0; i < 10; i++)
      for (const from of [1, 2]) {
        t.send(from, 0, 1000, 0, { dscp: EF, ecn: ECN_CAPABLE, tag: 1 })
        t.send(from, 0, 1000, 0, { ecn: ECN_CAPABLE, tag: 2 })
      }
    t.run()
    const fast = t.classOf(1, 'fast')
    const other = t.classOf(1, 'other')
    assert.ok(fast.overflowed > 0 && fast.maxQueue <= 3000)
    assert.deepEqual([other.overflowed, other.packets, other.marked], [0, 20, 0])
    assert.deepEqual([...new Set(t.lost)], [1])
    assert.equal(fast.packets + fast.overflowed, 20)
    const marked = t.arrivals.filter(({ ecn }) => ecn === ECN_CE)
    assert.equal(marked.length, fast.marked)
    assert.ok(marked.length > 0 && marked.every(({ tag }) => tag === 1))
    const [direction] = t.links.stats(1e6).slice(1)
    assert.deepEqual(
      [direction!.packets, direction!.overflowed, direction!.marked],
      [fast.packets + other.packets, fast.overflowed, fast.marked],
    )
  })

  it('a lossless class loses nothing: pauses stop the senders at once, and no buffer overflows', () => {
    const buffer = 10_000 + headroomOf(FAST)
    const classes = classesOf({ pause: { xoff: 10_000, xon: 5000 } }, { queue: 10_000 })
    const t = setUp(star(3, { ...FAST, queue: 10_000, classes }))
    for (let i = 0; i < 200; i++) for (const from of [1, 2]) t.send(from, 0, 1000, 0, { dscp: EF })
    t.run()
    assert.equal(t.arrivals.length, 400)
    // host 1 to the switch is direction 2, back 3
    const up = t.classOf(2, 'fast')
    assert.ok(up.pauses > 1 && up.pausedTime > 50, JSON.stringify(up))
    assert.ok(up.maxHeld > 10_000 && up.maxHeld <= buffer, JSON.stringify(up))
    assert.equal(t.classOf(3, 'fast').pausesSent, up.pauses)
    assert.deepEqual([up.isPaused, up.held, up.noRoom], [false, 0, 0])
    // the link to host 0 is never idle: 400 packets of 1 µs after two delays and one packet
    assert.ok(Math.abs(t.arrivals.at(-1)!.at - 407) < 1e-6, `${t.arrivals.at(-1)!.at}`)
    // and lossy traffic beside it is lost
    const lossy = setUp(star(3, { ...FAST, classes }))
    for (let i = 0; i < 200; i++) for (const from of [1, 2]) lossy.send(from, 0, 1000)
    lossy.run()
    assert.ok(lossy.lost.length > 100)
  })

  it('a pause ends at xon: the lower it is, the longer and fewer are the pauses', () => {
    const [low, high] = [1000, 9000].map(xon => {
      const t = setUp(star(3, { ...FAST, classes: classesOf({ pause: { xoff: 10_000, xon } }) }))
      for (let i = 0; i < 200; i++) for (const from of [1, 2]) t.send(from, 0, 1000, 0, { dscp: EF })
      t.run()
      return t.classOf(2, 'fast')
    })
    assert.ok(low!.pauses < 0.8 * high!.pauses, `${low!.pauses} and ${high!.pauses}`)
    assert.ok(low!.pausedTime / low!.pauses > (1.2 * high!.pausedTime) / high!.pauses)
  })

  it('a buffer without room for what comes after a pause loses packets, and says where', () => {
    const t = setUp(star(3, { ...FAST, classes: classesOf({ pause: { xoff: 5000, xon: 2500, buffer: 7000 } }) }))
    for (let i = 0; i < 100; i++) for (const from of [1, 2]) t.send(from, 0, 1000, 0, { dscp: EF })
    t.run()
    assert.ok(t.classOf(2, 'fast').noRoom > 0)
    assert.equal(t.lost.length, t.classOf(2, 'fast').noRoom + t.classOf(4, 'fast').noRoom)
    assert.equal(t.links.stats(1e6)[2]!.overflowed, t.classOf(2, 'fast').noRoom)
  })

  it('pauses reach the senders hop by hop, and stop flows that do not go to the full link', () => {
    // h1, h2 at s1, h3, h4 at s2; the link to h3 is slow
    const classes = classesOf({ pause: { xoff: 10_000, xon: 5000 } })
    const topology = chain(2, 2, { ...FAST, classes })
    const slow = { ...topology, links: topology.links.map((link, i) => (i === 2 ? { ...link, rate: 8e8 } : link)) }
    const play = (dscp: number, hasElephant: boolean): number => {
      const t = setUp(slow)
      for (let i = 0; i < 300; i++) {
        if (hasElephant) t.send(0, 2, 1000, 0, { dscp: EF, tag: 1 })
        if (i < 50) t.send(1, 3, 1000, 0, { dscp, tag: 2 })
      }
      t.run()
      assert.equal(t.arrivals.length, hasElephant ? 350 : 50)
      if (hasElephant) {
        // s1 is paused by s2 (trunk, link 4: direction 8), then h1 by s1 (link 0: direction 0)
        for (const direction of [8, 0]) assert.ok(t.classOf(direction, 'fast').pauses > 0, `${direction}`)
        // the buffers between hold back what h3 cannot take
        assert.ok(t.classOf(0, 'fast').maxHeld > 10_000)
      }
      return t.arrivals.filter(({ tag }) => tag === 2).at(-1)!.at
    }
    const alone = play(EF, false)
    const victim = play(EF, true)
    const other = play(0, true)
    // 50 packets of the victim wait at s1 behind those for the slow link; those of the other class do not
    assert.ok(victim > 5 * alone, `${victim} and ${alone}`)
    assert.ok(other < 2.5 * alone, `${other} and ${alone}`)
  })

  it('a storm stops a class for as long as it lasts, hop by hop, and no other class', () => {
    const classes = classesOf({ pause: { xoff: 10_000, xon: 5000 } })
    const t = setUp(chain(2, 2, { ...FAST, classes }))
    // h4 (link 3) pauses s2 all the time
    t.links.setStorm(6, 1, true, 0)
    for (let i = 0; i < 100; i++) {
      t.send(0, 3, 1000, 5, { dscp: EF, tag: 1 })
      t.send(1, 2, 1000, 5, { dscp: EF, tag: 2 })
      t.send(0, 3, 1000, 5, { tag: 3 })
    }
    t.run(5000)
    assert.ok(!t.arrivals.some(({ tag }) => tag === 1))
    assert.equal(t.arrivals.filter(({ tag }) => tag === 3).length, 100)
    assert.ok(t.arrivals.filter(({ tag }) => tag === 2).length < 100, 'flows to other hosts stop too')
    const down = t.classOf(7, 'fast', 5000)
    assert.deepEqual([down.isPaused, down.pauses], [true, 1])
    assert.ok(down.pausedTime > 4980)
    assert.equal(t.classOf(6, 'fast').pausesSent, 1)
    assert.ok(t.classOf(0, 'fast', 5000).isPaused && t.classOf(8, 'fast', 5000).isPaused)
    assert.equal(t.lost.length, 0)
    assert.ok(Number.isFinite(t.links.busyUntil(0)))
    assert.equal(t.links.nextAt(), Number.POSITIVE_INFINITY)
    t.links.setStorm(6, 1, false, 5000)
    t.run()
    assert.equal(t.arrivals.length, 300)
    assert.ok(t.resumed.includes(0))
  })

  it('much that is paused makes the port of a host full, and the end of the pause tells it', () => {
    const t = setUp(star(2, { ...FAST, classes: classesOf({ pause: { xoff: 10_000, xon: 5000 } }) }))
    t.links.setStorm(1, 1, true, 0)
    t.run()
    for (let i = 0; i < 4300; i++) t.send(0, 1, 1000, 10, { dscp: EF })
    assert.equal(t.links.busyUntil(0), Number.POSITIVE_INFINITY)
    t.links.setStorm(1, 1, false, 20)
    t.run()
    assert.deepEqual(t.resumed, [0])
    assert.equal(t.arrivals.length, 4300)
  })

  it('a link that goes down forgets its pauses, and gets them anew when it is up', () => {
    const topology = star(2, { ...FAST, classes: classesOf({ pause: { xoff: 10_000, xon: 5000 } }) })
    const t = setUp(topology)
    t.links.setStorm(1, 1, true, 0)
    t.run()
    assert.equal(t.classOf(0, 'fast').isPaused, true)
    t.send(0, 1, 1000, 10, { dscp: EF })
    t.links.setDown(link => link === 0, 10)
    assert.equal(t.classOf(0, 'fast').isPaused, false)
    t.run()
    assert.equal(t.lost.length, 1)
    t.links.setDown(() => false, 20)
    t.run()
    assert.equal(t.classOf(0, 'fast').isPaused, true)
  })

  it('loses nothing and keeps each flow in order, whatever a lossless class sends', () => {
    const flow = fc.record({
      from: fc.integer({ min: 0, max: 5 }),
      to: fc.integer({ min: 0, max: 5 }),
      start: fc.integer({ min: 0, max: 100 }),
      packets: fc.integer({ min: 1, max: 60 }),
      length: fc.integer({ min: 64, max: 4096 }),
      dscp: fc.constantFrom(0, EF),
    })
    const play = (flows: readonly FlowOfClass[], rate: number) => {
      const pause = { pause: { xoff: 9000, xon: 3000 } }
      const t = setUp(
        chain(3, 2, { ...FAST, classes: classesOf(pause, pause) }, { ...FAST, rate, classes: classesOf(pause, pause) }),
      )
      const used = flows.filter(({ from, to }) => from !== to).toSorted((a, b) => a.start - b.start)
      for (const [i, { from, to, start, packets, length, dscp }] of used.entries()) {
        t.run(start)
        for (let n = 0; n < packets; n++) t.send(from, to, length, start, { dscp, tag: (i << 8) | n })
      }
      t.run()
      assert.equal(t.lost.length, 0)
      assert.equal(
        t.arrivals.length,
        used.reduce((sum, { packets }) => sum + packets, 0),
      )
      for (const [i] of used.entries()) {
        const tags = t.arrivals.filter(({ tag }) => tag >> 8 === i).map(({ tag }) => tag)
        assert.deepEqual(
          tags,
          tags.toSorted((a, b) => a - b),
        )
      }
      for (let direction = 0; direction < 16; direction++)
        for (const { queue, held, isPaused } of t.links.classesOf(direction, 1e9))
          assert.deepEqual([queue, held, isPaused], [0, 0, false])
    }
    fc.assert(
      fc.property(fc.array(flow, { maxLength: 20, size: 'max' }), fc.constantFrom(8e9, 2e9, 5e8), (flows, rate) =>
        play(flows, rate),
      ),
      { numRuns: 60 },
    )
  })

  it('the same packets give the same events', () => {
    const play = () => {
      const t = setUp(star(5, { ...FAST, loss: 0.01, classes: classesOf({ pause: { xoff: 9000, xon: 4000 } }) }), 7)
      for (let i = 0; i < 300; i++)
        for (const from of [1, 2, 3, 4]) t.send(from, 0, 1000, 0, { dscp: i % 3 === 0 ? 0 : EF, tag: i })
      t.run()
      return { arrivals: t.arrivals, stats: t.links.stats(1e6) }
    }
    assert.deepEqual(play(), play())
  })
})
