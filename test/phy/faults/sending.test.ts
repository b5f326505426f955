import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { MAX_DELAYED } from '../../../src/phy/faults/delay-queue.ts'
import { type FaultPort, withFaults } from '../../../src/phy/faults/layer.ts'
import { parseFaults } from '../../../src/phy/faults/rules.ts'
import type { MemorySwitch } from '../../../src/phy/memory.ts'
import { emptyRun, type Port } from '../../../src/phy/port.ts'
import { addTap } from '../../../src/phy/tap.ts'
import { flowBetween, ipv4, ports, psns, type ReceivedPacket, receiveAll, sendRun, smallSwitch } from '../helpers.ts'

interface Setup {
  link: MemorySwitch
  from: FaultPort
  to: Port
  flow: number
}

const setUp = (spec: string): Setup => {
  const link = smallSwitch(16, 64, 'demand')
  const [inner, to] = ports(link, 2)
  const from = withFaults(inner, 'rxe0', parseFaults(spec))
  return { link, from, to, flow: from.openFlow(flowBetween(ipv4(1), ipv4(2))) }
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i)

/** Advances time from timeout to timeout until there is none; returns what arrived. */
const wait = ({ from, to }: Setup): ReceivedPacket[] => {
  const got: ReceivedPacket[] = []
  for (let now = 0; from.nextTimeout() < Infinity; ) {
    now = Math.max(now, from.nextTimeout())
    from.onTimeout(now)
    got.push(...receiveAll(to))
  }
  return got
}

const transfer = (b: Setup, total: number, sizes: readonly number[] = [16]): ReceivedPacket[] => {
  const got: ReceivedPacket[] = []
  for (let psn = 0, i = 0; psn < total; i++) {
    const count = Math.min(sizes[i % sizes.length], total - psn)
    assert.ok(sendRun(b.from, b.flow, psn, count))
    psn += count
    got.push(...receiveAll(b.to))
  }
  return [...got, ...wait(b)]
}

describe('faults on sent packets', () => {
  it('runs without a fault stay whole', () => {
    const b = setUp('dir=sent,opcode=UD_*,drop=1')
    sendRun(b.from, b.flow, 0, 20)
    const run = emptyRun()
    assert.ok(b.to.receive(run))
    assert.equal(run.count, 20)
    b.to.release()
  })

  it('rules for received packets do not apply', () => {
    assert.deepEqual(psns(transfer(setUp('drop=1,dup=1'), 40)), range(40))
  })

  it('each fault happens about as often as requested', () => {
    const total = 4000
    for (const [name, counter] of [
      ['drop', 'dropped'],
      ['dup', 'duplicated'],
      ['reorder', 'reordered'],
      ['corrupt', 'corrupted'],
    ] as const) {
      const b = setUp(`dir=sent,${name}=0.1,seed=7`)
      const got = transfer(b, total, [16, 5, 1])
      const hits = b.from.faults[counter]
      assert.ok(hits > 300 && hits < 500, `${name}: ${hits}`)
      assert.equal(
        Object.values(b.from.faults).reduce((a, c) => a + c),
        hits,
        'no other fault happens',
      )
      const lost = name === 'drop' ? hits : b.to.counters.icrcErrors
      assert.equal(got.length, total - lost + (name === 'dup' ? hits : 0))
      assert.equal(new Set(psns(got)).size, total - lost)
      if (name === 'corrupt') assert.ok(lost > 0.8 * hits && lost <= hits, 'the receiver sees it by the ICRC')
      else assert.equal(b.to.counters.icrcErrors, 0)
      assert.equal(b.from.counters.sentPackets, got.length + b.to.counters.icrcErrors)
    }
  })

  it('every packet arrives unchanged, or is counted, and no buffer leaks', () => {
    const share = fc.constantFrom(0, 0.1, 0.5, 1)
    const rule = fc.record({ drop: share, dup: share, reorder: share, delay: fc.constantFrom(0, 0, 1, 3) })
    const sizes = fc.array(fc.integer({ min: 1, max: 16 }), { minLength: 1, maxLength: 4 })
    fc.assert(
      fc.property(rule, sizes, fc.constantFrom('', ',rate=10mbit'), fc.nat(), (r, sizes, rate, seed) => {
        const total = 80
        const b = setUp(
          `dir=sent,drop=${r.drop},dup=${r.dup},reorder=${r.reorder},delay=${r.delay},seed=${seed}${rate}`,
        )
        const clean = new Map(transfer(setUp(''), total, sizes).map(g => [g.psn, g]))
        const got = transfer(b, total, sizes)
        const { dropped, duplicated, overflowed } = b.from.faults
        assert.equal(overflowed, 0)
        assert.equal(got.length, total - dropped + duplicated)
        for (const { psn, bytes } of got) assert.deepEqual(bytes, clean.get(psn)?.bytes)
        b.from.close()
        b.to.close()
        assert.deepEqual(b.link.stat(), { ports: 0, runs: 0, smallRuns: 0, flows: 0 })
      }),
    )
  })

  it('a delayed packet leaves on time, even if its flow was closed meanwhile', () => {
    const b = setUp('dir=sent,delay=2ms')
    sendRun(b.from, b.flow, 0, 3)
    b.from.closeFlow(b.flow)
    assert.equal(b.from.nextTimeout(), 0)
    b.from.onTimeout(100)
    assert.equal(b.from.nextTimeout(), 2100)
    b.from.onTimeout(2099)
    assert.deepEqual(receiveAll(b.to), [])
    assert.equal(b.link.stat().flows, 1)
    b.from.onTimeout(2100)
    assert.deepEqual(psns(receiveAll(b.to)), [0, 1, 2])
    assert.equal(b.link.stat().flows, 0)
  })

  it('a rate spreads packets over time, headers included, and packets beyond the queue are lost', () => {
    // 64 bytes and 28 of IP and UDP: 92 µs each.
    const b = setUp('dir=sent,rate=8mbit')
    sendRun(b.from, b.flow, 0, 15)
    b.from.onTimeout(0)
    const arrivals: [time: number, psn: number][] = []
    for (const { psn } of receiveAll(b.to)) arrivals.push([0, psn])
    while (b.from.nextTimeout() < Infinity) {
      const now = b.from.nextTimeout()
      b.from.onTimeout(now)
      for (const { psn } of receiveAll(b.to)) arrivals.push([now, psn])
    }
    const atOnce = Math.floor(1000 / 92) + 1
    assert.deepEqual(
      arrivals,
      range(15).map(psn => [psn < atOnce ? 0 : 92 * psn - 1000, psn]),
    )
    for (let i = 0; i < 80; i++) sendRun(b.from, b.flow, 16 * i, 16)
    assert.equal(b.from.faults.overflowed, 80 * 16 - MAX_DELAYED)
  })

  it('can be changed during traffic; delayed packets are sent in the next poll', () => {
    const b = setUp('dir=both,delay=1s')
    sendRun(b.from, b.flow, 0, 2)
    let wakeUps = 0
    b.from.wake = () => wakeUps++
    b.from.setFaults([])
    assert.equal(wakeUps, 1)
    b.from.flush()
    assert.deepEqual(psns(receiveAll(b.to)), [0, 1])
    assert.equal(b.from.nextTimeout(), Infinity)
    b.from.setFaults(parseFaults('dir=sent,drop=1'))
    sendRun(b.from, b.flow, 2, 2)
    assert.deepEqual(receiveAll(b.to), [])
    assert.deepEqual(b.from.ruleCounts(), [{ matched: 2, dropped: 2, duplicated: 0, reordered: 0, corrupted: 0 }])
  })

  it('without rules for a device its port is used directly', () => {
    const link = smallSwitch()
    const [inner] = ports(link, 1)
    const layer = withFaults(inner, 'rxe0', parseFaults('device=rxe1,drop=1'))
    const same = (): boolean[] =>
      (['receive', 'release', 'reserve', 'commit', 'flush', 'nextTimeout', 'onTimeout'] as const).map(
        name => layer[name] === inner[name],
      )
    assert.ok(same().every(Boolean))
    layer.setFaults(parseFaults('dir=sent,drop=1;drop=1'))
    assert.deepEqual(same(), [false, false, true, false, false, false, false])
    layer.setFaults([])
    layer.flush()
    layer.release()
    layer.flush()
    assert.ok(same().every(Boolean))
  })

  it('a tap sees each packet when it leaves, with its ICRC', () => {
    const b = setUp('dir=sent,drop=0.3,corrupt=0.3,dup=0.3,seed=5')
    let seen = 0
    const remove = addTap(b.from, run => {
      assert.equal(run.direction, 'sent')
      seen += run.count
    })
    transfer(b, 500)
    assert.equal(seen, b.from.counters.sentPackets)
    assert.equal(seen, 500 - b.from.faults.dropped + b.from.faults.duplicated)
    remove()
  })
})
