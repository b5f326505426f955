import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { parseFaults } from '../../../../src/faults/rules.ts'
import { noFaultRuleCounts } from '../../../../src/spec/faults.ts'
import { MAX_DELAYED } from '../../../../src/transport/phy/faults/delay-queue.ts'
import { type FaultPort, withFaults } from '../../../../src/transport/phy/faults/layer.ts'
import type { MemorySwitch } from '../../../../src/transport/phy/memory.ts'
import { emptyRun, type Port } from '../../../../src/transport/phy/port.ts'
import { addTap } from '../../../../src/transport/phy/tap.ts'
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

interface Setup {
  link: MemorySwitch
  sender: FaultPort
  receiver: Port
  flow: number
}

const setUp = (rules: string): Setup => {
  const link = smallSwitch(16, 64, 'demand')
  const [inner, receiver] = attachPorts(link, 2)
  const sender = withFaults(inner, 'rxe0', parseFaults(rules))
  return { link, sender, receiver, flow: sender.openFlow(flowBetween(ipv4(1), ipv4(2))) }
}

/** Advances time until no timeout is left. Returns the packets that arrive. */
const receiveDelayed = ({ sender, receiver }: Setup): ReceivedPacket[] => {
  const packets: ReceivedPacket[] = []
  for (let now = 0; sender.nextTimeout() < Infinity; ) {
    now = Math.max(now, sender.nextTimeout())
    sender.onTimeout(now)
    packets.push(...receiveAll(receiver))
  }
  return packets
}

/** Sends packets 0 to `total` - 1 in runs of `sizes` packets, in rotation. Returns the packets that arrive. */
const transfer = (setup: Setup, total: number, sizes: readonly number[] = [16]): ReceivedPacket[] => {
  const packets: ReceivedPacket[] = []
  for (let psn = 0, i = 0; psn < total; i++) {
    const count = Math.min(sizes[i % sizes.length], total - psn)
    assert.ok(sendRun(setup.sender, setup.flow, psn, count))
    psn += count
    packets.push(...receiveAll(setup.receiver))
  }
  return [...packets, ...receiveDelayed(setup)]
}

describe('faults on sent packets', () => {
  it('runs without a fault stay whole', () => {
    const setup = setUp('dir=sent,opcode=UD_*,drop=1')
    sendRun(setup.sender, setup.flow, 0, 20)
    const run = emptyRun()
    assert.ok(setup.receiver.receive(run))
    assert.equal(run.count, 20)
    setup.receiver.release()
  })

  it('marks are sent in the ECN field, and leave no flow open', () => {
    const setup = setUp('dir=sent,ecn=0.25')
    const { flows } = setup.link.stat()
    const packets = transfer(setup, 400, [16, 1])
    const { marked } = setup.sender.faults
    assert.ok(marked > 60 && marked < 140, `${marked}`)
    assert.equal(packets.filter(({ trafficClass }) => trafficClass === 3).length, marked)
    assert.equal(packets.length, 400)
    assert.equal(setup.link.stat().flows, flows)
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
      const setup = setUp(`dir=sent,${name}=0.1,seed=7`)
      const packets = transfer(setup, total, [16, 5, 1])
      const hits = setup.sender.faults[counter]
      // More than five standard deviations around the mean of 400.
      assert.ok(hits > 300 && hits < 500, `${name}: ${hits}`)
      assert.equal(
        Object.values(setup.sender.faults).reduce((sum, count) => sum + count),
        hits,
        'no other fault happens',
      )
      const lost = name === 'drop' ? hits : setup.receiver.counters.icrcErrors
      assert.equal(packets.length, total - lost + (name === 'dup' ? hits : 0))
      assert.equal(new Set(psns(packets)).size, total - lost)
      if (name === 'corrupt') assert.ok(lost > 0.8 * hits && lost <= hits, 'the receiver detects it by the ICRC')
      else assert.equal(setup.receiver.counters.icrcErrors, 0)
      assert.equal(setup.sender.counters.sentPackets, packets.length + setup.receiver.counters.icrcErrors)
    }
  })

  it('every packet arrives unchanged, or is counted, and no buffer leaks', () => {
    const probability = fc.constantFrom(0, 0.1, 0.5, 1)
    const settings = fc.record({
      drop: probability,
      dup: probability,
      reorder: probability,
      delay: fc.constantFrom(0, 0, 1, 3),
    })
    const runSizes = fc.array(fc.integer({ min: 1, max: 16 }), { minLength: 1, maxLength: 4 })
    fc.assert(
      fc.property(settings, runSizes, fc.constantFrom('', ',rate=10mbit'), fc.nat(), (values, sizes, rate, seed) => {
        const total = 80
        const { drop, dup, reorder, delay } = values
        const setup = setUp(`dir=sent,drop=${drop},dup=${dup},reorder=${reorder},delay=${delay},seed=${seed}${rate}`)
        const sent = new Map(transfer(setUp(''), total, sizes).map(packet => [packet.psn, packet]))
        const packets = transfer(setup, total, sizes)
        const { dropped, duplicated, overflowed } = setup.sender.faults
        assert.equal(overflowed, 0)
        assert.equal(packets.length, total - dropped + duplicated)
        for (const { psn, bytes } of packets) assert.deepEqual(bytes, sent.get(psn)?.bytes)
        setup.sender.close()
        setup.receiver.close()
        assert.deepEqual(setup.link.stat(), { ports: 0, runs: 0, smallRuns: 0, flows: 0 })
      }),
    )
  })

  it('a delayed packet leaves on time, even if its flow was closed meanwhile', () => {
    const setup = setUp('dir=sent,delay=2ms')
    sendRun(setup.sender, setup.flow, 0, 3)
    setup.sender.closeFlow(setup.flow)
    assert.equal(setup.sender.nextTimeout(), 0)
    setup.sender.onTimeout(100)
    assert.equal(setup.sender.nextTimeout(), 2100)
    setup.sender.onTimeout(2099)
    assert.deepEqual(receiveAll(setup.receiver), [])
    assert.equal(setup.link.stat().flows, 1)
    setup.sender.onTimeout(2100)
    assert.deepEqual(psns(receiveAll(setup.receiver)), [0, 1, 2])
    assert.equal(setup.link.stat().flows, 0)
  })

  it('a rate spreads packets over time, headers included, and packets beyond the queue are lost', () => {
    // 64 bytes and 28 of IP and UDP: 92 µs for each packet.
    const setup = setUp('dir=sent,rate=8mbit')
    sendRun(setup.sender, setup.flow, 0, 15)
    setup.sender.onTimeout(0)
    const arrivals: [time: number, psn: number][] = []
    for (const { psn } of receiveAll(setup.receiver)) arrivals.push([0, psn])
    while (setup.sender.nextTimeout() < Infinity) {
      const now = setup.sender.nextTimeout()
      setup.sender.onTimeout(now)
      for (const { psn } of receiveAll(setup.receiver)) arrivals.push([now, psn])
    }
    // Packets may leave up to 1000 µs earlier than the rate limit allows.
    assert.deepEqual(
      arrivals,
      range(15).map(psn => [Math.max(0, 92 * psn - 1000), psn]),
    )
    const total = 2 * MAX_DELAYED
    for (let psn = 0; psn < total; psn += 16) sendRun(setup.sender, setup.flow, psn, 16)
    assert.equal(setup.sender.faults.overflowed, total - MAX_DELAYED)
  })

  it('a packet to reorder that finds the queue full is sent at once, and does not count as lost', () => {
    const setup = setUp('dir=sent,reorder=1')
    const total = 2 * MAX_DELAYED
    assert.deepEqual(
      psns(transfer(setup, total)).toSorted((a, b) => a - b),
      range(total),
    )
    const { reordered, overflowed } = setup.sender.faults
    assert.ok(reordered >= MAX_DELAYED && reordered < total)
    assert.equal(overflowed, 0)
  })

  it('a delayed packet that finds the port full is tried again within a millisecond, but not at once', () => {
    const link = smallSwitch(4, 0)
    const [inner, receiver] = attachPorts(link, 2)
    const sender = withFaults(inner, 'rxe0', parseFaults('dir=sent,delay=1ms'))
    const flow = sender.openFlow(flowBetween(ipv4(1), ipv4(2)))
    sendRun(sender, flow, 0, 1)
    sender.onTimeout(0)
    const taken: number[] = []
    for (let at = inner.takeLayerBuffer(64); at >= 0; at = inner.takeLayerBuffer(64)) taken.push(at)
    sender.onTimeout(1000)
    const again = sender.nextTimeout()
    assert.ok(again > 1000 && again < 2000)
    for (const at of taken) inner.releaseLayerBuffer(at)
    sender.onTimeout(again)
    assert.deepEqual(psns(receiveAll(receiver)), [0])
    assert.equal(sender.nextTimeout(), Infinity)
  })

  it('can be changed during traffic; delayed packets are sent in the next poll', () => {
    const setup = setUp('dir=both,delay=1s')
    sendRun(setup.sender, setup.flow, 0, 2)
    let wakeUps = 0
    setup.sender.wake = () => wakeUps++
    setup.sender.setFaults([])
    assert.equal(wakeUps, 1)
    setup.sender.flush()
    assert.deepEqual(psns(receiveAll(setup.receiver)), [0, 1])
    assert.equal(setup.sender.nextTimeout(), Infinity)
    setup.sender.setFaults(parseFaults('dir=sent,drop=1'))
    sendRun(setup.sender, setup.flow, 2, 2)
    assert.deepEqual(receiveAll(setup.receiver), [])
    assert.deepEqual(setup.sender.ruleCounts(), [{ ...noFaultRuleCounts(), matched: 2, dropped: 2 }])
  })

  it('a corrupted packet that was delayed is detected after the rules have changed', () => {
    for (const rules of ['', 'dir=sent,drop=1']) {
      const setup = setUp('dir=sent,corrupt=1,delay=1s')
      sendRun(setup.sender, setup.flow, 0, 10)
      setup.sender.setFaults(parseFaults(rules))
      setup.sender.flush()
      assert.ok(receiveAll(setup.receiver).length < 5, 'a packet arrives only if the ICRC does not cover the bits')
      assert.ok(setup.receiver.counters.icrcErrors > 5)
    }
  })

  it('without rules for a device, the port is used directly', () => {
    const link = smallSwitch()
    const [inner] = attachPorts(link, 1)
    const layer = withFaults(inner, 'rxe0', parseFaults('device=rxe1,drop=1'))
    const names = ['receive', 'release', 'reserve', 'commit', 'flush', 'nextTimeout', 'onTimeout'] as const
    /** Functions of the layer that are not the port's. */
    const wrapped = () => names.filter(name => layer[name] !== inner[name])
    assert.deepEqual(wrapped(), [])
    layer.setFaults(parseFaults('dir=sent,drop=1;drop=1'))
    assert.deepEqual(wrapped(), ['receive', 'release', 'commit', 'flush', 'nextTimeout', 'onTimeout'])
    // Without rules the port's functions return, at the end of a poll.
    layer.setFaults([])
    layer.flush()
    layer.release()
    layer.flush()
    assert.deepEqual(wrapped(), [])
    layer.setFaults(parseFaults('drop=1'))
    layer.setFaults([])
    assert.equal(layer.receive(emptyRun()), false)
    assert.deepEqual(wrapped(), [])
  })

  it('a tap sees every packet that is sent, also duplicates, and no dropped packet', () => {
    const setup = setUp('dir=sent,drop=0.3,corrupt=0.3,dup=0.3,seed=5')
    let seenPackets = 0
    const remove = addTap(setup.sender, run => {
      assert.equal(run.direction, 'sent')
      seenPackets += run.count
    })
    transfer(setup, 500)
    assert.equal(seenPackets, setup.sender.counters.sentPackets)
    assert.equal(seenPackets, 500 - setup.sender.faults.dropped + setup.sender.faults.duplicated)
    remove()
  })
})
