import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { type FaultRule, noFaults } from '../../../../src/faults/rule.ts'
import { parseFaults } from '../../../../src/faults/rules.ts'
import { MAX_DELAYED } from '../../../../src/transport/phy/faults/delay-queue.ts'
import { type FaultPort, withFaults } from '../../../../src/transport/phy/faults/layer.ts'
import { MAX_REORDER_DELAY, MAX_REORDER_DISTANCE } from '../../../../src/transport/phy/faults/limits.ts'
import type { MemorySwitch } from '../../../../src/transport/phy/memory.ts'
import { emptyRun, type Port } from '../../../../src/transport/phy/port.ts'
import { addTap } from '../../../../src/transport/phy/tap.ts'
import { bthPsn } from '../../../../src/transport/wire/bth.ts'
import {
  attachPorts,
  flowBetween,
  ipv4,
  psns,
  type ReceivedPacket,
  range,
  receiveAll,
  sendRun,
  smallSwitch,
} from '../helpers.ts'

/** Of the packets that `sendRun` sends. */
const PACKET_BYTES = 64

interface Setup {
  link: MemorySwitch
  sender: Port
  receiver: FaultPort
  flow: number
}

const setUp = (rules: FaultRule | string): Setup => {
  const link = smallSwitch(16, 16)
  const [sender, inner] = attachPorts(link, 2)
  const receiver = withFaults(inner, 'rxe1', typeof rules === 'string' ? parseFaults(rules) : [rules])
  return { link, sender, receiver, flow: sender.openFlow(flowBetween(ipv4(1), ipv4(2))) }
}

/**
 * Sends packets 0 to `total` - 1 in runs of `sizes` packets, in rotation. Returns the packets that arrive until no
 * timeout is left.
 */
const transfer = (
  { sender, receiver, flow }: Setup,
  total: number,
  sizes: readonly number[] = [16],
): ReceivedPacket[] => {
  const packets: ReceivedPacket[] = []
  for (let psn = 0, i = 0; psn < total; i++) {
    const count = Math.min(sizes[i % sizes.length], total - psn)
    assert.ok(sendRun(sender, flow, psn, count))
    psn += count
    packets.push(...receiveAll(receiver))
  }
  let now = 0
  while (receiver.nextTimeout() < Number.POSITIVE_INFINITY) {
    now = Math.max(now, receiver.nextTimeout())
    receiver.onTimeout(now)
    packets.push(...receiveAll(receiver))
  }
  return packets
}

describe('faults', () => {
  it('with all probabilities 0 drop, duplicate, reorder and corrupt nothing', () => {
    const setup = setUp(noFaults)
    sendRun(setup.sender, setup.flow, 0, 20)
    const run = emptyRun()
    assert.ok(setup.receiver.receive(run))
    assert.equal(run.count, 20)
    setup.receiver.release()
    assert.deepEqual(psns(transfer(setup, 2000, [1, 5, 16])), range(2000))
    assert.equal(setup.receiver.nextTimeout(), Number.POSITIVE_INFINITY)
    assert.deepEqual(Object.values(setup.receiver.faults), [0, 0, 0, 0, 0, 0, 0])
  })

  it('each fault happens about as often as requested', () => {
    const total = 10000
    for (const [name, counter] of [
      ['drop', 'dropped'],
      ['dup', 'duplicated'],
      ['reorder', 'reordered'],
      ['corrupt', 'corrupted'],
    ] as const) {
      const setup = setUp(`${name}=0.05,seed=7`)
      const packets = transfer(setup, total)
      const hits = setup.receiver.faults[counter]
      // Five standard deviations around the mean of 500.
      assert.ok(hits > 390 && hits < 610, `${name}: ${hits}`)
      const others = Object.entries(setup.receiver.faults).filter(([key]) => key !== counter)
      assert.ok(others.every(([, count]) => count === 0))
      const lost = { drop: hits, corrupt: setup.receiver.counters.icrcErrors, dup: 0, reorder: 0 }[name]
      const extra = name === 'dup' ? hits : 0
      assert.equal(packets.length, total - lost + extra)
      assert.equal(new Set(psns(packets)).size, total - lost)
      assert.equal(setup.receiver.counters.receivedPackets, packets.length)
      assert.equal(setup.receiver.counters.receivedBytes, packets.length * PACKET_BYTES)
      const inOrder = psns(packets).every((psn, i, all) => i === 0 || psn >= all[i - 1])
      assert.equal(inOrder, name !== 'reorder')
      assert.deepEqual(setup.link.stat().smallRuns, 0)
    }
  })

  it('marks arrive in the ECN field, also of delayed and duplicated packets, and change nothing else', () => {
    for (const rules of ['ecn=0.25', 'ecn=0.25,delay=1ms', 'ecn=0.25,dup=1']) {
      const setup = setUp(rules)
      const outcomes = new Map<string, number>()
      addTap(setup.receiver, ({ outcome, count }) => outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + count))
      const packets = transfer(setup, 400, [16, 1])
      const { marked } = setup.receiver.faults
      assert.ok(marked > 60 && marked < 140, `${marked}`)
      const copies = rules.includes('dup') ? 2 : 1
      assert.equal(packets.filter(({ trafficClass }) => trafficClass === 3).length, copies * marked)
      assert.equal(packets.length, copies * 400)
      if (rules === 'ecn=0.25')
        assert.deepEqual([outcomes.get('marked'), outcomes.get('passed')], [marked, 400 - marked])
      assert.equal(setup.receiver.counters.icrcErrors, 0)
    }
  })

  it('a seed gives the same faults for any division into runs, and another seed gives other faults', () => {
    const rule = 'drop=0.05,dup=0.05,reorder=0.05,corrupt=0.05,seed='
    const arrived = psns(transfer(setUp(`${rule}11`), 3000, [16]))
    for (const sizes of [[16], [1], [3, 16, 1, 7]])
      assert.deepEqual(psns(transfer(setUp(`${rule}11`), 3000, sizes)), arrived)
    assert.notDeepEqual(psns(transfer(setUp(`${rule}12`), 3000, [16])), arrived)
  })

  it('every packet arrives unchanged, once or twice, or is counted as lost', () => {
    const probability = fc.constantFrom(0, 0.02, 0.3, 1)
    const settings = fc.record({
      drop: probability,
      dup: probability,
      reorder: probability,
      corrupt: probability,
      delay: fc.constantFrom(0, 0, 0, 1),
      jitter: fc.constantFrom(0, 1),
      seed: fc.nat(),
    })
    const validRule = settings.map(values => ({
      ...noFaults,
      ...values,
      jitter: Math.min(values.jitter, values.delay),
    }))
    const runSizes = fc.array(fc.integer({ min: 1, max: 16 }), { minLength: 1, maxLength: 5 })
    fc.assert(
      fc.property(validRule, runSizes, (rule, sizes) => {
        const total = 60
        const arrivedWithoutFaults = transfer(setUp(noFaults), total, sizes)
        const sent = new Map(arrivedWithoutFaults.map(packet => [packet.psn, packet]))
        const setup = setUp(rule)
        const packets = transfer(setup, total, sizes)
        const { dropped, duplicated, overflowed } = setup.receiver.faults
        for (const packet of packets) {
          const original = sent.get(packet.psn)
          assert.ok(original !== undefined, `psn ${packet.psn} was never sent`)
          // the ICRC does not cover the byte of the BTH with FECN and BECN
          packet.bytes[4] = original.bytes[4]
          assert.equal(packet.length, original.length)
          assert.deepEqual(packet.bytes, original.bytes)
        }
        assert.equal(packets.length, total - dropped + duplicated - overflowed - setup.receiver.counters.icrcErrors)
        assert.equal(setup.receiver.counters.receivedPackets, packets.length)
        for (const psn of range(total)) assert.ok(packets.filter(packet => packet.psn === psn).length <= 2)
        setup.receiver.close()
        setup.sender.close()
        assert.deepEqual(setup.link.stat(), { ports: 0, runs: 0, smallRuns: 0, flows: 0 })
      }),
    )
  })

  it('a reordered packet is overtaken by few packets', () => {
    const arrived = psns(transfer(setUp('reorder=0.2,seed=3'), 5000))
    let maxOvertaking = 0
    arrived.forEach((psn, i) => {
      maxOvertaking = Math.max(maxOvertaking, arrived.slice(0, i).filter(earlier => earlier > psn).length)
    })
    assert.ok(maxOvertaking > 1 && maxOvertaking <= 2 * MAX_REORDER_DISTANCE, `${maxOvertaking}`)
  })

  it('a reordered packet that no other packet overtakes arrives when its delay expires', () => {
    const setup = setUp('reorder=1')
    sendRun(setup.sender, setup.flow, 5, 1)
    assert.deepEqual(receiveAll(setup.receiver), [])
    assert.equal(
      setup.receiver.nextTimeout(),
      0,
      'onTimeout must be called immediately, because the layer does not know the time',
    )
    const now = 70
    const due = now + MAX_REORDER_DELAY
    setup.receiver.onTimeout(now)
    assert.deepEqual(receiveAll(setup.receiver), [])
    assert.equal(setup.receiver.nextTimeout(), due)
    let wakeUps = 0
    setup.receiver.wake = () => wakeUps++
    setup.receiver.onTimeout(due - 1)
    assert.equal(wakeUps, 0)
    setup.receiver.onTimeout(due)
    assert.equal(wakeUps, 1)
    assert.deepEqual(psns(receiveAll(setup.receiver)), [5])
    assert.equal(setup.receiver.nextTimeout(), Number.POSITIVE_INFINITY)
  })

  it('a delay without jitter delays every packet by this time, and keeps the order', () => {
    const setup = setUp('delay=2ms')
    // A delay begins at the first `onTimeout` after the arrival, here at 100 and at 600 µs.
    sendRun(setup.sender, setup.flow, 0, 3)
    assert.deepEqual(receiveAll(setup.receiver), [])
    setup.receiver.onTimeout(100)
    sendRun(setup.sender, setup.flow, 3, 2)
    assert.deepEqual(receiveAll(setup.receiver), [])
    setup.receiver.onTimeout(600)
    assert.equal(setup.receiver.nextTimeout(), 2100)
    setup.receiver.onTimeout(2100)
    assert.deepEqual(psns(receiveAll(setup.receiver)), [0, 1, 2])
    setup.receiver.onTimeout(2600)
    assert.deepEqual(psns(receiveAll(setup.receiver)), [3, 4])
    assert.equal(setup.receiver.faults.delayed, 5)
  })

  it('jitter spreads the delay over its range, which changes the order', () => {
    const setUpDelayed = (): Setup => {
      const setup = setUp('delay=5ms,jitter=3ms,seed=2')
      sendRun(setup.sender, setup.flow, 0, 30)
      receiveAll(setup.receiver)
      setup.receiver.onTimeout(0)
      return setup
    }
    const setup = setUpDelayed()
    const times: number[] = []
    const order: number[] = []
    while (setup.receiver.nextTimeout() < Number.POSITIVE_INFINITY) {
      const now = setup.receiver.nextTimeout()
      setup.receiver.onTimeout(now)
      for (const psn of psns(receiveAll(setup.receiver))) {
        times.push(now)
        order.push(psn)
      }
    }
    assert.equal(times.length, 30)
    // Between 2 and 8 ms; the first and last of 30 packets are near these limits.
    assert.ok(times[0] >= 2000 && times[0] < 3500)
    assert.ok(times[29] <= 8000 && times[29] > 6500)
    assert.notDeepEqual(order, range(30))
    const late = setUpDelayed()
    late.receiver.onTimeout(1e6)
    assert.deepEqual(psns(receiveAll(late.receiver)), order, 'the order does not depend on when `onTimeout` is called')
  })

  it('a packet may be duplicated and reordered', () => {
    const setup = setUp('dup=1,reorder=1')
    assert.deepEqual(
      psns(transfer(setup, 20, [5])).toSorted((a, b) => a - b),
      range(20).flatMap(psn => [psn, psn]),
    )
    const { duplicated, reordered } = setup.receiver.faults
    assert.deepEqual([duplicated, reordered], [20, 20])
    assert.equal(setup.receiver.counters.receivedPackets, 40)
  })

  it('that drop all packets do not make `receive` endless when each released run is followed by another', () => {
    const link = smallSwitch()
    const [sender, inner] = attachPorts(link, 2)
    const flow = sender.openFlow(flowBetween(ipv4(1), ipv4(2)))
    let floods = 0
    const flooded: Port = {
      ...inner,
      release: () => {
        inner.release()
        if (floods++ < 100) sendRun(sender, flow, floods, 4)
      },
    }
    const receiver = withFaults(flooded, 'rxe1', parseFaults('drop=1'))
    sendRun(sender, flow, 0, 4)
    assert.equal(receiver.receive(emptyRun()), false)
    assert.equal(floods, 1, '`receive` has dropped one run')
    assert.equal(receiver.receive(emptyRun()), false)
    assert.equal(receiver.faults.dropped, 2 * 4)
  })

  it('deliver nothing after close', () => {
    const setup = setUp('dup=1')
    sendRun(setup.sender, setup.flow, 0, 4)
    const run = emptyRun()
    assert.ok(setup.receiver.receive(run))
    setup.receiver.close()
    assert.equal(setup.receiver.receive(run), false)
  })

  it('that are removed do not apply to the rest of a run', () => {
    const setup = setUp('drop=0.3,seed=4')
    sendRun(setup.sender, setup.flow, 0, 30)
    // The layer delivers the packets before the first dropped one.
    const run = emptyRun()
    assert.ok(setup.receiver.receive(run))
    const nextPsn = bthPsn(setup.receiver.arena.view, run.offset) + run.count
    assert.ok(nextPsn < 20)
    setup.receiver.release()
    setup.receiver.setFaults([])
    assert.deepEqual(psns(receiveAll(setup.receiver)), range(30).slice(nextPsn))
  })

  it('delayed packets that do not fit the delay queue are lost and counted', () => {
    const setup = setUp('delay=1000')
    const total = 2 * MAX_DELAYED
    for (let psn = 0; psn < total; psn += 16) {
      sendRun(setup.sender, setup.flow, psn, 16)
      receiveAll(setup.receiver)
    }
    const { delayed, overflowed } = setup.receiver.faults
    assert.equal(delayed + overflowed, total)
    assert.equal(delayed, MAX_DELAYED)
    setup.receiver.onTimeout(0)
    setup.receiver.onTimeout(1e6)
    assert.equal(receiveAll(setup.receiver).length, delayed)
  })

  it('can be changed during traffic; delayed packets are delivered in the next poll', () => {
    const setup = setUp('delay=1000')
    sendRun(setup.sender, setup.flow, 0, 2)
    assert.deepEqual(receiveAll(setup.receiver), [])
    assert.ok(setup.link.stat().runs > 0)
    let wakeUps = 0
    setup.receiver.wake = () => wakeUps++
    setup.receiver.setFaults([])
    assert.equal(wakeUps, 1)
    sendRun(setup.sender, setup.flow, 2, 2)
    assert.deepEqual(psns(receiveAll(setup.receiver)), [0, 1, 2, 3])
    assert.equal(setup.link.stat().runs, 0, 'the layer buffer of delayed packets is freed')
    setup.receiver.setFaults(parseFaults('drop=1'))
    sendRun(setup.sender, setup.flow, 4, 2)
    assert.deepEqual(psns(receiveAll(setup.receiver)), [])
  })

  it('go on with their counts, the packets that they lose and their rates if they are kept', () => {
    const rules = 'drop=50%,seed=3'
    const receivedWith = (kept?: readonly (number | undefined)[]) => {
      const { sender, receiver, flow } = setUp(rules)
      const delivered = [0, 10].map(psn => {
        if (psn > 0) receiver.setFaults(parseFaults(`nth=99,drop=1;${rules}`), undefined, kept)
        sendRun(sender, flow, psn, 10)
        return psns(receiveAll(receiver))
      })
      return { delivered, counts: receiver.ruleCounts().map(({ matched }) => matched) }
    }
    const { sender, receiver, flow } = setUp(rules)
    sendRun(sender, flow, 0, 20)
    const whole = psns(receiveAll(receiver))
    const kept = receivedWith([undefined, 0])
    assert.deepEqual([kept.delivered.flat(), kept.counts], [whole, [10, 20]])
    const anew = receivedWith()
    assert.deepEqual(anew.counts, [10, 10])
    assert.deepEqual(
      anew.delivered[1],
      anew.delivered[0]?.map(psn => psn + 10),
    )
  })

  it('corrupt a packet to a multicast group only for the member to which the rule applies', () => {
    const link = smallSwitch()
    const group = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 224, 0, 0, 9)
    const [sender, inner, other] = attachPorts(link, 3)
    const receiver = withFaults(inner, 'rxe1', parseFaults('device=rxe1,corrupt=1'))
    for (const member of [receiver, other]) member.joinGroup(group)
    const flow = sender.openFlow(flowBetween(ipv4(1), group))
    for (let psn = 0; psn < 10; psn++) assert.ok(sendRun(sender, flow, psn, 1))
    receiveAll(receiver)
    assert.ok(receiver.counters.icrcErrors > 5, 'a few changes are to bits that the ICRC does not cover')
    assert.equal(receiveAll(other).length, 10)
    assert.equal(other.counters.icrcErrors, 0)
  })

  it('need ICRCs only while a rule corrupts', () => {
    const link = smallSwitch(16, 16, 'demand')
    const [sender, inner] = attachPorts(link, 2)
    const receiver = withFaults(inner, 'rxe1', parseFaults('corrupt=1'))
    const flow = sender.openFlow(flowBetween(ipv4(1), ipv4(2)))
    sendRun(sender, flow, 0, 8)
    assert.ok(receiveAll(receiver).length < 8)
    receiver.setFaults([])
    sendRun(sender, flow, 0, 1)
    assert.equal(
      receiveAll(receiver)[0].bytes[PACKET_BYTES - 1],
      0,
      'the last byte of the ICRC is as `sendRun` wrote it',
    )
  })

  it('a tap sees what happens to every packet', () => {
    const setup = setUp('drop=0.2,dup=0.2,corrupt=0.2,reorder=0.2,seed=5')
    /** The number of packets by outcome. */
    const seen: Record<string, number> = {}
    const remove = addTap(setup.receiver, run => {
      assert.equal(run.direction, 'received')
      seen[run.outcome] = (seen[run.outcome] ?? 0) + run.count
    })
    const packets = transfer(setup, 1000)
    const { dropped, duplicated, reordered, corrupted } = setup.receiver.faults
    assert.equal(seen.dropped, dropped)
    assert.equal(seen.reordered, reordered)
    // the tap gets one of several faults of a packet; a corrupted packet may have a correct ICRC
    assert.ok(seen.corrupted >= setup.receiver.counters.icrcErrors && seen.corrupted > 0.8 * corrupted)
    assert.ok(seen.duplicated > 0.7 * duplicated)
    assert.equal(seen.passed + seen.reordered + seen.duplicated, packets.length)
    remove()
    assert.equal(setup.receiver.tap, null)
    seen.passed = 0
    sendRun(setup.sender, setup.flow, 0, 16)
    receiveAll(setup.receiver)
    assert.equal(seen.passed, 0)
  })
})

it('the rule that lost a packet to a queue pair is known, also after other rules are set', () => {
  let now = 5
  const [sender, inner] = attachPorts(smallSwitch(16, 16), 2)
  const receiver = withFaults(inner, 'rxe1', parseFaults('dup=1;drop=1,nth=2'), () => now)
  const flow = sender.openFlow(flowBetween(ipv4(1), ipv4(2)))
  assert.ok(sendRun(sender, flow, 0, 1))
  receiveAll(receiver)
  const qpns = range(2000)
  assert.deepEqual(
    qpns.filter(qpn => receiver.lossTo(qpn, 0) !== undefined),
    [],
    'none is lost yet',
  )
  assert.ok(sendRun(sender, flow, 1, 1))
  receiveAll(receiver)
  receiver.setFaults([])
  const [qpn, ...others] = qpns.filter(one => receiver.lossTo(one, 5) !== undefined)
  assert.deepEqual(others, [])
  assert.equal(receiver.lossTo(qpn!, 5)?.drop, 1)
  now = 6
  assert.equal(receiver.lossTo(qpn!, 6), undefined, 'since then none was lost')
})
