import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { MAX_DELAYED } from '../../../src/phy/faults/delay-queue.ts'
import { type FaultPort, withFaults } from '../../../src/phy/faults/layer.ts'
import { MAX_REORDER_DISTANCE } from '../../../src/phy/faults/limits.ts'
import { type FaultRule, noFaults, parseFaults } from '../../../src/phy/faults/rules.ts'
import type { MemorySwitch } from '../../../src/phy/memory.ts'
import { emptyRun, type Port } from '../../../src/phy/port.ts'
import { addTap } from '../../../src/phy/tap.ts'
import { flowBetween, ipv4, ports, psns, type ReceivedPacket, receiveAll, sendRun, smallSwitch } from '../helpers.ts'

interface Setup {
  link: MemorySwitch
  from: Port
  to: FaultPort
  flow: number
}

const setUp = (spec: FaultRule | string): Setup => {
  const link = smallSwitch(16, 16)
  const [from, inner] = ports(link, 2)
  const to = withFaults(inner, 'rxe1', typeof spec === 'string' ? parseFaults(spec) : [spec])
  return { link, from, to, flow: from.openFlow(flowBetween(ipv4(1), ipv4(2))) }
}

/**
 * Sends packets 0 … total - 1 in runs of the given sizes, repeated; returns everything that arrived after all timers.
 */
const transfer = ({ from, to, flow }: Setup, total: number, sizes: readonly number[] = [16]): ReceivedPacket[] => {
  const got: ReceivedPacket[] = []
  for (let psn = 0, i = 0; psn < total; i++) {
    const count = Math.min(sizes[i % sizes.length], total - psn)
    assert.ok(sendRun(from, flow, psn, count))
    psn += count
    got.push(...receiveAll(to))
  }
  let now = 0
  while (to.nextTimeout() < Number.POSITIVE_INFINITY) {
    now = Math.max(now, to.nextTimeout())
    to.onTimeout(now)
    got.push(...receiveAll(to))
  }
  return got
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i)

describe('faults', () => {
  it('with all rates 0 drops, duplicates, reorders and corrupts nothing', () => {
    const b = setUp(noFaults)
    sendRun(b.from, b.flow, 0, 20)
    const run = emptyRun()
    assert.ok(b.to.receive(run))
    assert.equal(run.count, 20)
    b.to.release()
    assert.deepEqual(psns(transfer(b, 2000, [1, 5, 16])), range(2000))
    assert.equal(b.to.nextTimeout(), Number.POSITIVE_INFINITY)
    assert.deepEqual(Object.values(b.to.faults), [0, 0, 0, 0, 0, 0])
  })

  it('each fault happens about as often as requested, alone', () => {
    const total = 10000
    for (const [name, counter] of [
      ['drop', 'dropped'],
      ['dup', 'duplicated'],
      ['reorder', 'reordered'],
      ['corrupt', 'corrupted'],
    ] as const) {
      const b = setUp(`${name}=0.05,seed=7`)
      const got = transfer(b, total)
      const hits = b.to.faults[counter]
      // Five standard deviations around the mean of 500.
      assert.ok(hits > 390 && hits < 610, `${name}: ${hits}`)
      const others = Object.entries(b.to.faults).filter(([key]) => key !== counter)
      assert.ok(others.every(([, count]) => count === 0))
      const lost = name === 'drop' ? hits : name === 'corrupt' ? b.to.counters.icrcErrors : 0
      const extra = name === 'dup' ? hits : 0
      assert.equal(got.length, total - lost + extra)
      assert.equal(new Set(psns(got)).size, total - lost)
      assert.equal(b.to.counters.receivedPackets, got.length)
      assert.equal(b.to.counters.receivedBytes, got.length * 64)
      const inOrder = psns(got).every((psn, i, all) => i === 0 || psn >= all[i - 1])
      assert.equal(inOrder, name !== 'reorder')
      assert.deepEqual(b.link.stat().smallRuns, 0)
    }
  })

  it('the same seed gives the same faults, however packets are cut into runs; another seed different ones', () => {
    const spec = 'drop=0.05,dup=0.05,reorder=0.05,corrupt=0.05,seed=11'
    const once = psns(transfer(setUp(spec), 3000, [16]))
    assert.deepEqual(psns(transfer(setUp(spec), 3000, [16])), once)
    assert.deepEqual(psns(transfer(setUp(spec), 3000, [1])), once)
    assert.deepEqual(psns(transfer(setUp(spec), 3000, [3, 16, 1, 7])), once)
    assert.notDeepEqual(psns(transfer(setUp(spec.replace('11', '12')), 3000, [16])), once)
  })

  it('every packet arrives unchanged, once or twice, or is counted as lost', () => {
    const rate = fc.constantFrom(0, 0.02, 0.3, 1)
    const spec = fc.record({
      drop: rate,
      dup: rate,
      reorder: rate,
      corrupt: rate,
      delay: fc.constantFrom(0, 0, 0, 1),
      jitter: fc.constantFrom(0, 1),
      seed: fc.nat(),
    })
    const usable = spec.map(s => ({ ...noFaults, ...s, jitter: Math.min(s.jitter, s.delay) }))
    fc.assert(
      fc.property(usable, fc.array(fc.integer({ min: 1, max: 16 }), { minLength: 1, maxLength: 5 }), (s, sizes) => {
        const total = 60
        const clean = transfer(setUp(noFaults), total, sizes)
        const sent = new Map(clean.map(g => [g.psn, g]))
        const b = setUp(s)
        const got = transfer(b, total, sizes)
        const { dropped, duplicated, overflowed } = b.to.faults
        for (const g of got) {
          const original = sent.get(g.psn)
          assert.ok(original !== undefined, `psn ${g.psn} was never sent`)
          // The one byte of a packet that the ICRC does not cover.
          g.bytes[4] = original.bytes[4]
          assert.equal(g.length, original.length)
          if (sizes.length === 1) assert.deepEqual(g.bytes, original.bytes)
        }
        assert.equal(got.length, total - dropped + duplicated - overflowed - b.to.counters.icrcErrors)
        assert.equal(b.to.counters.receivedPackets, got.length)
        for (const psn of range(total)) assert.ok(got.filter(g => g.psn === psn).length <= 2)
        b.to.close()
        b.from.close()
        assert.deepEqual(b.link.stat(), { ports: 0, runs: 0, smallRuns: 0, flows: 0 })
      }),
    )
  })

  it('no packet is overtaken by more than a few', () => {
    const got = psns(transfer(setUp('reorder=0.2,seed=3'), 5000))
    let max = 0
    got.forEach((psn, i) => {
      max = Math.max(max, got.slice(0, i).filter(earlier => earlier > psn).length)
    })
    assert.ok(max > 1 && max <= 2 * MAX_REORDER_DISTANCE, `${max}`)
  })

  it('a reordered packet that no other packet passes arrives when its delay expires', () => {
    const b = setUp('reorder=1')
    sendRun(b.from, b.flow, 5, 1)
    assert.deepEqual(receiveAll(b.to), [])
    assert.equal(
      b.to.nextTimeout(),
      0,
      'onTimeout must be called immediately, because the layer does not know the time',
    )
    b.to.onTimeout(70)
    assert.deepEqual(receiveAll(b.to), [])
    assert.equal(b.to.nextTimeout(), 1070)
    let wakeUps = 0
    b.to.wake = () => wakeUps++
    b.to.onTimeout(1069)
    assert.equal(wakeUps, 0)
    b.to.onTimeout(1070)
    assert.equal(wakeUps, 1)
    assert.deepEqual(psns(receiveAll(b.to)), [5])
    assert.equal(b.to.nextTimeout(), Number.POSITIVE_INFINITY)
  })

  it('delay holds every packet for its time and keeps the order', () => {
    const b = setUp('delay=2')
    sendRun(b.from, b.flow, 0, 3)
    assert.deepEqual(receiveAll(b.to), [])
    b.to.onTimeout(100)
    sendRun(b.from, b.flow, 3, 2)
    assert.deepEqual(receiveAll(b.to), [])
    b.to.onTimeout(600)
    assert.equal(b.to.nextTimeout(), 2100)
    b.to.onTimeout(2100)
    assert.deepEqual(psns(receiveAll(b.to)), [0, 1, 2])
    b.to.onTimeout(9999)
    assert.deepEqual(psns(receiveAll(b.to)), [3, 4])
    assert.equal(b.to.faults.delayed, 5)
  })

  it('jitter spreads the delay over its range, which changes the order', () => {
    const held = (): Setup => {
      const b = setUp('delay=5,jitter=3,seed=2')
      sendRun(b.from, b.flow, 0, 30)
      receiveAll(b.to)
      b.to.onTimeout(0)
      return b
    }
    const b = held()
    const times: number[] = []
    const order: number[] = []
    while (b.to.nextTimeout() < Number.POSITIVE_INFINITY) {
      const now = b.to.nextTimeout()
      b.to.onTimeout(now)
      for (const psn of psns(receiveAll(b.to))) {
        times.push(now)
        order.push(psn)
      }
    }
    assert.equal(times.length, 30)
    assert.ok(times[0] >= 2000 && times[0] < 3500)
    assert.ok(times[29] <= 8000 && times[29] > 6500)
    assert.notDeepEqual(order, range(30))
    const late = held()
    late.to.onTimeout(1e6)
    assert.deepEqual(psns(receiveAll(late.to)), order, 'the order does not depend on when the port is polled')
  })

  it('a change of faults applies to the rest of a run being delivered', () => {
    const b = setUp('drop=0.3,seed=4')
    sendRun(b.from, b.flow, 0, 30)
    const run = emptyRun()
    assert.ok(b.to.receive(run))
    const next = (b.to.arena.view.getUint32(run.offset + 8) & 0xffffff) + run.count
    assert.ok(next < 20)
    b.to.release()
    b.to.setFaults([])
    assert.deepEqual(psns(receiveAll(b.to)), range(30).slice(next))
  })

  it('delayed packets that do not fit the delay queue are lost and counted', () => {
    const b = setUp('delay=1000')
    for (let i = 0; i < 80; i++) {
      sendRun(b.from, b.flow, i * 16, 16)
      receiveAll(b.to)
    }
    const { delayed, overflowed } = b.to.faults
    assert.equal(delayed + overflowed, 1280)
    assert.equal(delayed, MAX_DELAYED)
    b.to.onTimeout(0)
    b.to.onTimeout(1e6)
    assert.equal(receiveAll(b.to).length, delayed)
  })

  it('can be changed during traffic; delayed packets are then delivered', () => {
    const b = setUp('delay=1000')
    sendRun(b.from, b.flow, 0, 2)
    assert.deepEqual(receiveAll(b.to), [])
    assert.ok(b.link.stat().runs > 0)
    let wakeUps = 0
    b.to.wake = () => wakeUps++
    b.to.setFaults([])
    assert.equal(wakeUps, 1)
    sendRun(b.from, b.flow, 2, 2)
    assert.deepEqual(psns(receiveAll(b.to)), [0, 1, 2, 3])
    assert.equal(b.link.stat().runs, 0, 'the layer buffer of delayed packets is freed')
    b.to.setFaults(parseFaults('drop=1'))
    sendRun(b.from, b.flow, 4, 2)
    assert.deepEqual(psns(receiveAll(b.to)), [])
  })

  it('needs real ICRCs only while it corrupts', () => {
    const link = smallSwitch(16, 16, 'demand')
    const [from, inner] = ports(link, 2)
    const to = withFaults(inner, 'rxe1', parseFaults('corrupt=1'))
    const flow = from.openFlow(flowBetween(ipv4(1), ipv4(2)))
    sendRun(from, flow, 0, 8)
    assert.ok(receiveAll(to).length < 8)
    to.setFaults([])
    sendRun(from, flow, 0, 1)
    assert.equal(receiveAll(to)[0].bytes[63], 0, 'not sealed')
  })

  it('a tap sees what happens to every packet', () => {
    const b = setUp('drop=0.2,dup=0.2,corrupt=0.2,reorder=0.2,seed=5')
    const seen: Record<string, number> = {}
    const remove = addTap(b.to, run => {
      assert.equal(run.direction, 'received')
      seen[run.outcome] = (seen[run.outcome] ?? 0) + run.count
    })
    const got = transfer(b, 1000)
    const { dropped, duplicated, reordered, corrupted } = b.to.faults
    assert.equal(seen.dropped, dropped)
    assert.equal(seen.reordered, reordered)
    assert.ok(seen.corrupted >= b.to.counters.icrcErrors && seen.corrupted > 0.8 * corrupted)
    assert.ok(seen.duplicated > 0.7 * duplicated)
    assert.equal(seen.passed + seen.reordered + seen.duplicated, got.length)
    remove()
    assert.equal(b.to.tap, null)
    seen.passed = 0
    sendRun(b.from, b.flow, 0, 16)
    receiveAll(b.to)
    assert.equal(seen.passed, 0)
  })
})
