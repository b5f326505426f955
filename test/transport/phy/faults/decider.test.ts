import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { parseFaults } from '../../../../src/faults/rules.ts'
import { noFaultRuleCounts } from '../../../../src/spec/faults.ts'
import { opcodeNumber, opcodes } from '../../../../src/spec/wire/opcodes.ts'
import { createFaultDecider, type FaultDecider } from '../../../../src/transport/phy/faults/decider.ts'
import { faultBits, WAIT } from '../../../../src/transport/phy/faults/kinds.ts'
import { noAddress } from '../../../../src/transport/phy/port.ts'
import { putBth } from '../../../../src/transport/wire/bth.ts'

const PACKET_BYTES = 16
/** Fewer packets than most runs here have: the buffers of decisions grow. */
const BUFFER_PACKETS = 4
const { RC_ACKNOWLEDGE, RC_SEND_ONLY, UD_SEND_ONLY } = opcodeNumber

interface Header {
  readonly opcode: number
  readonly qp: number
}

const deciderOf = (text: string, device = 'rxe0', direction: 'sent' | 'received' = 'received'): FaultDecider =>
  createFaultDecider(parseFaults(text), device, direction, BUFFER_PACKETS)

/** The actions of the rules for packets with these headers, in runs of `runPackets`. */
const actionsOf = (decider: FaultDecider, packets: readonly Header[], runPackets = packets.length): number[] => {
  const view = new DataView(new ArrayBuffer(packets.length * PACKET_BYTES))
  packets.forEach(({ opcode, qp }, i) => {
    putBth(view, i * PACKET_BYTES, opcode, 0, 0xffff, qp, i)
  })
  const actions: number[] = []
  for (let at = 0; at < packets.length; at += runPackets) {
    const count = Math.min(runPackets, packets.length - at)
    const hasAction = decider.decide(view, at * PACKET_BYTES, PACKET_BYTES, count, PACKET_BYTES, noAddress)
    const runActions = Array.from(decider.decisions.actions.subarray(0, count))
    assert.equal(hasAction, runActions.some(Boolean))
    actions.push(...runActions)
  }
  return actions
}
/** The decider's number of the rate limit that applies to a packet. */
const rateLimitOf = (decider: FaultDecider): number => {
  actionsOf(decider, sends(1))
  return decider.decisions.rateLimits[0]
}
const sends = (count: number): Header[] => Array.from({ length: count }, () => ({ opcode: RC_SEND_ONLY, qp: 0x11 }))
const { drop: DROP, dup: DUP } = faultBits

describe('fault rules', () => {
  it('select by the DSCP of a run, whatever its ECN field', () => {
    const view = new DataView(new ArrayBuffer(PACKET_BYTES))
    putBth(view, 0, RC_SEND_ONLY, 0, 0xffff, 0x11, 0)
    const selects = (selector: string, trafficClass: number): boolean => {
      const flow = { ...noAddress, trafficClass }
      return deciderOf(`dscp=${selector},drop=1`).decide(view, 0, PACKET_BYTES, 1, PACKET_BYTES, flow)
    }
    assert.deepEqual(
      [0, 26 << 2, (26 << 2) | 3, 27 << 2, 46 << 2].map(one => selects('26+40..ef', one)),
      [false, true, true, false, true],
    )
  })

  it('select a device, a direction, queue pairs and opcodes', () => {
    const packets = [
      { opcode: RC_SEND_ONLY, qp: 0x11 },
      { opcode: RC_ACKNOWLEDGE, qp: 0x11 },
      { opcode: RC_ACKNOWLEDGE, qp: 0x12 },
      { opcode: UD_SEND_ONLY, qp: 0xffffff },
    ]
    // expected: 1 for a dropped packet
    for (const [text, expected] of [
      ['drop=1', [1, 1, 1, 1]],
      ['qp=0x11,drop=1', [1, 1, 0, 0]],
      ['qp=0x12+0xffffff,drop=1', [0, 0, 1, 1]],
      ['opcode=RC_ACKNOWLEDGE,drop=1', [0, 1, 1, 0]],
      ['opcode=*_SEND_*,drop=1', [1, 0, 0, 1]],
      ['opcode=RC_*,qp=0x12,drop=1', [0, 0, 1, 0]],
    ] as const)
      assert.deepEqual(
        actionsOf(deciderOf(text), packets),
        Array.from<number, number>(expected, isDropped => (isDropped === 1 ? DROP : 0)),
        text,
      )
    for (const [text, device, direction, hasRules] of [
      ['drop=1', 'rxe0', 'received', true],
      ['drop=1', 'rxe0', 'sent', false],
      ['dir=sent,drop=1', 'rxe0', 'received', false],
      ['dir=sent,drop=1', 'rxe0', 'sent', true],
      ['dir=both,drop=1', 'rxe0', 'sent', true],
      ['dir=both,drop=1', 'rxe0', 'received', true],
      ['device=rxe1,drop=1', 'rxe0', 'received', false],
      ['device=rxe1,drop=1', 'rxe1', 'received', true],
      ['drop=0,seed=4', 'rxe0', 'received', false],
    ] as const)
      assert.equal(deciderOf(text, device, direction).hasRules, hasRules, `${text} ${device} ${direction}`)
  })

  it('all act if they match: actions and delays are added, and each rule has its own counters', () => {
    const decider = deciderOf('drop=1;qp=0x11,dup=1,delay=3;delay=2;device=rxe9,drop=1')
    assert.deepEqual(actionsOf(decider, sends(2)), [DROP | DUP | WAIT, DROP | DUP | WAIT])
    assert.deepEqual(Array.from(decider.decisions.delays.subarray(0, 2)), [5000, 5000])
    const noHits = { ...noFaultRuleCounts(), matched: 2 }
    assert.deepEqual(decider.counts, [
      { ...noHits, dropped: 2 },
      { ...noHits, duplicated: 2, delayed: 2 },
      { ...noHits, delayed: 2 },
    ])
  })

  it('count what a delay or a rate has held, and not what they lose too', () => {
    const decider = deciderOf('delay=5;rate=1mbit;delay=5,drop=1;delay=5,nth=2')
    actionsOf(decider, sends(3))
    assert.deepEqual(
      decider.counts.map(counts => counts?.delayed),
      [3, 3, 0, 1],
    )
  })

  it('with rates have a bit each, however many rules there are', () => {
    const decider = deciderOf(`${'drop=0.5;'.repeat(40)}rate=1mbit;qp=0x12,rate=2mbit`)
    actionsOf(decider, sends(1))
    assert.equal(decider.decisions.rateLimits[0], 1)
    actionsOf(decider, [{ opcode: RC_SEND_ONLY, qp: 0x12 }])
    assert.equal(decider.decisions.rateLimits[0], 3)
    const first = decider.departure(3, 0, 1250)
    assert.ok(first < decider.departure(3, 0, 1250))
  })

  it('decide equally for equal packets, for any division into runs', () => {
    const text = 'drop=0.2,dup=0.2,reorder=0.1,corrupt=0.1,seed=3;opcode=RC_ACKNOWLEDGE,drop=0.5'
    const header = fc.record({ opcode: fc.constantFrom(RC_SEND_ONLY, RC_ACKNOWLEDGE), qp: fc.nat(3) })
    fc.assert(
      fc.property(
        fc.array(header, { minLength: 1, maxLength: 200, size: 'max' }),
        fc.integer({ min: 1, max: 9 }),
        (packets, runPackets) => {
          const whole = actionsOf(deciderOf(text), packets)
          assert.deepEqual(actionsOf(deciderOf(text), packets, runPackets), whole)
        },
      ),
    )
  })

  it('with nth, every and count act on these packets that they select', () => {
    const acks = Array.from({ length: 20 }, (_, qp) => ({ opcode: qp % 2 === 0 ? RC_ACKNOWLEDGE : RC_SEND_ONLY, qp }))
    for (const [selectors, expected] of [
      ['nth=3', [4]],
      ['nth=3,count=2', [4, 6]],
      ['count=2', [0, 2]],
      ['every=4', [6, 14]],
      ['nth=2,every=3', [2]],
      ['nth=2,every=3,count=9', [2, 8, 14]],
    ] as const) {
      const decider = deciderOf(`opcode=RC_ACKNOWLEDGE,${selectors},drop=1`)
      const actions = actionsOf(decider, acks, 3)
      const dropped = actions.flatMap((action, i) => (action === faultBits.drop ? [i] : []))
      assert.deepEqual(dropped, expected, selectors)
      assert.equal(decider.counts[0]?.dropped, expected.length)
    }
  })

  it('select payload bytes, rkeys, immediate data, messages and packets of flows', () => {
    const { RC_SEND_FIRST, RC_SEND_LAST, RC_WRITE_ONLY_IMM, RC_READ_RESP_ONLY, RC_FETCH_ADD } = opcodeNumber
    const headerBytes = (opcode: number): number => opcodes.find(one => one.opcode === opcode)!.headerBytes
    /** One packet in a buffer of its own. */
    const packet = (opcode: number, psn: number, payload = 0, rkey = 0, imm = 0, qp = 0x11): DataView => {
      const padding = -payload & 3
      const view = new DataView(new ArrayBuffer(headerBytes(opcode) + payload + padding + 4))
      putBth(view, 0, opcode, padding << 4, 0xffff, qp, psn)
      if (opcode === RC_WRITE_ONLY_IMM || opcode === RC_FETCH_ADD) view.setUint32(20, rkey)
      if (opcode === RC_WRITE_ONLY_IMM) view.setUint32(28, imm)
      return view
    }
    const packets = [
      packet(RC_SEND_ONLY, 10, 0),
      packet(RC_ACKNOWLEDGE, 10),
      packet(RC_SEND_FIRST, 11, 1024),
      packet(RC_SEND_LAST, 12, 63),
      packet(RC_READ_RESP_ONLY, 11, 64),
      packet(RC_SEND_LAST, 12, 63),
      packet(RC_WRITE_ONLY_IMM, 13, 5, 0x1234, 7),
      packet(RC_SEND_ONLY, 10, 0),
      packet(RC_FETCH_ADD, 14, 0, 0x5678),
      packet(RC_SEND_ONLY, 0, 4096, 0, 0, 0x12),
    ]
    for (const [selectors, expected] of [
      ['length=0', [0, 1, 7, 8]],
      ['length=0,opcode=RC_SEND_*', [0, 7]],
      ['length=1..64', [3, 4, 5, 6]],
      ['length=4096..+63', [3, 5, 9]],
      ['rkey=0x1234', [6]],
      ['rkey=0x1234+0x5678', [6, 8]],
      ['imm=7', [6]],
      ['imm=0', []],
      ['message=1', [0, 4, 7, 9]],
      ['message=2', [2, 3, 5]],
      ['message=2,packet=2', [3, 5]],
      ['packet=3', [3, 5]],
      ['per=flow,nth=1', [0, 1, 9]],
      ['per=qp,nth=2', [1]],
      ['per=qp,count=1', [0, 9]],
      ['per=device,nth=2', [1]],
    ] as const) {
      const decider = deciderOf(`${selectors},drop=1`)
      const dropped = packets.flatMap((view, i) =>
        decider.decide(view, 0, view.byteLength, 1, view.byteLength, noAddress) ? [i] : [],
      )
      assert.deepEqual(dropped, expected, selectors)
    }
  })

  it('count apart in at most so many flows, and remember so many packets of each', () => {
    const apart = deciderOf('per=qp,nth=2,drop=1')
    const qps = Array.from({ length: 70_000 }, (_, qp) => ({ opcode: RC_SEND_ONLY, qp }))
    assert.ok(actionsOf(apart, qps).every(action => action === 0))
    assert.deepEqual(actionsOf(apart, [{ opcode: RC_SEND_ONLY, qp: 69_999 }]), [DROP])
    assert.deepEqual(actionsOf(apart, [{ opcode: RC_SEND_ONLY, qp: 0 }]), [0])
    const placed = deciderOf('packet=1,drop=1')
    assert.equal(actionsOf(placed, sends(10_000)).filter(Boolean).length, 1)
  })

  it('depend neither on other rules nor on packets that they do not select', () => {
    const rule = 'opcode=RC_ACKNOWLEDGE,drop=0.3,seed=5'
    const acks = Array.from({ length: 500 }, () => ({ opcode: RC_ACKNOWLEDGE, qp: 1 }))
    const mixedPackets = acks.flatMap((ack, i) => (i % 3 === 0 ? [...sends(2), ack] : [ack]))
    const aloneActions = actionsOf(deciderOf(rule), acks)
    assert.deepEqual(actionsOf(deciderOf(`drop=0;qp=0x11,dup=0.5,seed=9;${rule}`), acks), aloneActions)
    const mixedActions = actionsOf(deciderOf(`opcode=RC_SEND_ONLY,drop=0.4,seed=6;${rule}`), mixedPackets)
    assert.deepEqual(
      mixedActions.filter((_, i) => mixedPackets[i].opcode === RC_ACKNOWLEDGE),
      aloneActions,
    )
  })

  it('decide differently for another device, direction or seed, and than another rule of the same seed', () => {
    const packets = sends(300)
    const actions = actionsOf(deciderOf('dir=both,drop=0.5'), packets)
    assert.deepEqual(actionsOf(deciderOf('dir=both,drop=0.5'), packets), actions)
    assert.notDeepEqual(actionsOf(deciderOf('dir=both,drop=0.5', 'rxe1'), packets), actions)
    assert.notDeepEqual(actionsOf(deciderOf('dir=both,drop=0.5', 'rxe0', 'sent'), packets), actions)
    assert.notDeepEqual(actionsOf(deciderOf('dir=both,drop=0.5,seed=2'), packets), actions)
    const actionsOfTwoRules = actionsOf(deciderOf('dir=both,drop=0.5;dup=0.5'), packets)
    const hitByBoth = actionsOfTwoRules.filter(action => action === (DROP | DUP)).length
    // Independent decisions: a quarter of 300, plus or minus five standard deviations of 7.5.
    assert.ok(hitByBoth > 37 && hitByBoth < 113, `${hitByBoth}`)
  })

  it('hit as many packets as the probability says, for any seed', () => {
    for (const probability of [0.01, 0.2, 0.9])
      for (const seed of [0, 1, 2, 4294967295]) {
        const count = 20000
        const actions = actionsOf(deciderOf(`drop=${probability},seed=${seed}`), sends(count), 64)
        const hits = actions.filter(Boolean).length
        const deviation = Math.sqrt(count * probability * (1 - probability))
        assert.ok(
          Math.abs(hits - count * probability) < 4.5 * deviation,
          `${hits} of ${count} for ${probability}, seed ${seed}`,
        )
      }
  })

  it('with a rate limit let packets leave one after the other, up to one millisecond early', () => {
    // A packet of 1000 bytes takes 1000 µs.
    const decider = deciderOf('rate=8mbit')
    const limit = rateLimitOf(decider)
    assert.notEqual(limit, 0)
    const departureAt = (time: number): number => decider.departure(limit, time, 1000)
    assert.deepEqual([0, 0, 0, 0].map(departureAt), [0, 0, 1000, 2000])
    // the four packets take until 4000 µs: at 3500 µs one packet may leave early, and the next waits
    assert.deepEqual([3500, 3500, 10000, 10000, 10000].map(departureAt), [3500, 4000, 10000, 10000, 11000])
    const twoRates = deciderOf('rate=8mbit;rate=4mbit')
    const lowerLimit = rateLimitOf(twoRates)
    const times = Array.from({ length: 50 }, () => twoRates.departure(lowerLimit, 0, 1000))
    assert.equal(times[49] - times[48], 2000, 'the lower limit applies')
  })

  it('can select every opcode by its name', () => {
    for (const { name, opcode } of opcodes)
      assert.deepEqual(actionsOf(deciderOf(`opcode=${name},drop=1`), [{ opcode, qp: 1 }]), [DROP], name)
  })
})
