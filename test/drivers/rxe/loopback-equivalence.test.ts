/*
 * Messages inside a process without packets (transport/loopback/slices.ts) compared with the same messages as packets:
 * memory, completions, events, states and counters are equal for random requests of every connected service, including
 * wrong ones, short, late or missing receives, and passing time.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { invokeNow } from '../../../src/core/index.ts'
import type { Path } from '../../../src/phy/memory.ts'
import { addTap } from '../../../src/phy/tap.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import { type Kind, play, type Request, type Script, type Step } from './loopback-script.ts'
import { join, machine, makeCq, makeQp, program, register } from './machine.ts'
import { completions, pattern, sgeOf } from './pair.ts'
import { postReceive, postSend } from './provider.ts'

const wr = WrOpcode.values
const { SEND, SEND_WITH_IMM, SEND_WITH_INV, RDMA_WRITE, RDMA_WRITE_WITH_IMM, RDMA_READ } = wr
const { ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD, ATOMIC_WRITE, FLUSH, BIND_MW, LOCAL_INV } = wr
const messages = [SEND, SEND_WITH_IMM, RDMA_WRITE, RDMA_WRITE_WITH_IMM]
const answered = [RDMA_READ, ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD, ATOMIC_WRITE, FLUSH]
/** One operation in twenty is an operation that often fails. */
const opcodesOf = (kind: Kind) => {
  const common = kind === 'UC' ? messages : [...messages, ...answered]
  const oftenFailing =
    kind === 'UC' ? [BIND_MW] : kind === 'XRC' ? [SEND_WITH_INV] : [BIND_MW, LOCAL_INV, SEND_WITH_INV]
  return fc.oneof(
    { weight: 19, arbitrary: fc.constantFrom(...common) },
    { weight: 1, arbitrary: fc.constantFrom(...oftenFailing) },
  )
}
type Posted = Extract<Step, { do: 'send' }>
const rarely = (value: fc.Arbitrary<number>, weight: number) =>
  fc.oneof({ arbitrary: fc.constant(0), weight }, { arbitrary: value, weight: 1 })
/**
 * A wrong local key of a READ is found when the response is written: how much was sent until then depends on timing
 * (response-keys.test.ts covers these).
 */
const comparable = (one: Request): Request =>
  one.wrong === 3 && answered.includes(one.opcode as (typeof answered)[number]) ? { ...one, wrong: 1 } : one
/** Lengths in bytes: small, about one packet, several packets, more than a slice. */
const length = fc.oneof(fc.nat(80), fc.nat(80), fc.integer({ min: 1000, max: 1100 }), fc.nat(9000), fc.nat(150_000))
const side = fc.nat(1)

/** Requests of the fast path (transport/loopback/fast-path.ts), rarely with another in between. */
const plain: fc.Arbitrary<Request> = fc.record({
  opcode: fc.oneof(
    { weight: 40, arbitrary: fc.constantFrom(SEND, RDMA_WRITE, RDMA_READ) },
    { weight: 1, arbitrary: fc.constantFrom(RDMA_WRITE_WITH_IMM, ATOMIC_FETCH_AND_ADD) },
  ),
  length: fc.oneof({ weight: 9, arbitrary: fc.nat(3000) }, { weight: 1, arbitrary: fc.nat(150_000) }),
  from: fc.nat(),
  to: fc.nat(),
  split: fc.constant(0),
  inline: fc.constant(false),
  flags: fc.nat(7),
  value: fc.nat(),
  wrong: rarely(fc.integer({ min: 1, max: 4 }), 300),
})

const request = (kind: Kind): fc.Arbitrary<Request> =>
  fc.record({
    opcode: opcodesOf(kind),
    length,
    from: fc.nat(),
    to: fc.nat(),
    split: rarely(fc.integer({ min: 1, max: 15 }), 2),
    inline: fc.boolean(),
    flags: fc.nat(7),
    value: fc.nat(),
    wrong: rarely(fc.integer({ min: 1, max: 4 }), 120),
  })
const step = (requests: fc.Arbitrary<readonly Request[]>, receives: number): fc.Arbitrary<Step> =>
  fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant('send' as const),
        side,
        requests,
      }),
    },
    {
      weight: 6,
      arbitrary: fc.record({
        do: fc.constant('receive' as const),
        side,
        count: fc.integer({ min: 1, max: receives }),
        length: fc.oneof({ weight: 9, arbitrary: fc.constant(160_000) }, { weight: 1, arbitrary: fc.nat(9000) }),
        split: rarely(fc.integer({ min: 1, max: 15 }), 2),
        wrong: fc.nat(100).map(n => n === 0),
      }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('wait' as const), microseconds: fc.nat(600) }) },
  )
/** `many`: plain requests, more than one batch. */
const script = (kind: Kind, many: boolean): fc.Arbitrary<Script> => {
  const requests = many
    ? fc.array(plain.map(comparable), { minLength: 1, maxLength: 50, size: 'max' })
    : fc.array(request(kind).map(comparable), { minLength: 1, maxLength: 5 })
  return fc.record({
    kind: fc.constant(kind),
    devices: fc.constantFrom([0, 1] as const, [0, 0] as const, [1, 0] as const),
    mtu: fc.constantFrom(1, 3, 5),
    rnrRetry: fc.constantFrom(1, 7, 7),
    // limited to max_dest_rd_atomic: beyond it, timing decides whether too many are in flight
    maxRdAtomic: rarely(fc.nat(4), 5).map(n => 4 - n),
    readResources: fc.constant(4),
    steps: fc.array(step(requests, many ? 30 : 1), { maxLength: 25, size: 'max' }),
  })
}

describe('results are equal with packets and without', () => {
  const cases = [
    ['RC', false],
    ['RC', true],
    ['SRQ', false],
    ['SRQ', true],
    ['UC', false],
    ['XRC', false],
  ] as const
  for (const [kind, many] of cases) {
    it(many ? `${kind}, many requests` : kind, () => {
      const runs = { packets: 0, direct: 0 }
      fc.assert(
        fc.property(script(kind, many), one => {
          const [packets, direct] = [play(one, 'packets'), play(one, 'direct')]
          for (const [i, seen] of packets.seen.entries())
            assert.deepEqual(direct.seen[i], seen, `after step ${i}, ${JSON.stringify(one.steps[i])}`)
          assert.deepEqual(direct.counters, packets.counters)
          for (const [i, memory] of packets.memory.entries())
            assert.equal(Buffer.compare(direct.memory[i], memory), 0, `memory of side ${i}`)
          runs.packets += packets.runs
          runs.direct += direct.runs
        }),
        { numRuns: many ? 20 : 40 },
      )
      assert.ok(runs.direct < runs.packets / 2, `${runs.direct} runs of packets, with packets only ${runs.packets}`)
    })
  }
})

/** Valid requests of one side whose responses are not delayed. */
const clean = (kind: Kind): Script => {
  const receive: Step = { do: 'receive', side: 1, count: 1, length: 160_000, split: 0, wrong: false }
  const requests = (kind === 'UC' ? messages : [...messages, ...answered]).flatMap(opcode =>
    [0, 1, 64, 1023, 1024, 70_001, 131_072].map(
      (length): Request => ({
        opcode,
        length,
        from: length * 3,
        to: length * 5,
        split: length & 7,
        inline: length === 1,
        flags: 2,
        value: opcode,
        wrong: 0,
      }),
    ),
  )
  const steps = requests.flatMap((one): Step[] => [receive, { do: 'send', side: 0, requests: [one] }])
  return { kind, devices: [0, 1], mtu: 3, rnrRetry: 7, maxRdAtomic: 4, readResources: 4, steps }
}

describe('if nothing is refused, counters without packets are equal to those with packets', () => {
  for (const kind of ['RC', 'SRQ', 'UC', 'XRC'] as const) {
    it(kind, () => {
      const [packets, direct] = [play(clean(kind), 'packets'), play(clean(kind), 'direct')]
      assert.equal(direct.runs, 0)
      assert.ok(packets.runs > 0)
      assert.deepEqual(direct.all, packets.all)
      assert.deepEqual(direct.psns, packets.psns)
      const statuses = packets.seen.flat().flatMap(({ sends }) => sends.map(([, status]) => status))
      assert.deepEqual([...new Set(statuses)], [0])
    })
  }
})

it("READs beyond the responder's max_dest_rd_atomic are refused", () => {
  const one = clean('RC')
  const { requests } = one.steps.find(step => step.do === 'send' && step.requests[0].opcode === RDMA_READ) as Posted
  const script: Script = {
    ...one,
    readResources: 2,
    steps: [{ do: 'send', side: 0, requests: new Array(4).fill(requests[0]) }],
  }
  const direct = play(script, 'direct')
  assert.deepEqual(direct.seen, play(script, 'packets').seen)
  assert.ok(direct.seen[0][0].sends.some(([, status]) => status === WcStatus.values.REM_INV_REQ_ERR))
})

it('a READ whose last responses come in a later poll is counted once, with all its bytes', () => {
  const counted = (path: Path, packets: number) => {
    const m = machine(2, '', path)
    const [a, b] = [0, 1].map(device => {
      const p = program(m, device)
      const cq = makeCq(p)
      return { cq, qp: makeQp(p, cq), mr: register(p, packets * 4096) }
    })
    join(a.qp, b.qp, { pathMtu: 5 })
    const sges = [sgeOf(a.mr, 0, packets * 4096)]
    postSend(a.qp.send, { opcode: RDMA_READ, sges, remote: b.mr.address, rkey: b.mr.rkey })
    m.settle()
    return m.devices.map(({ state }) => ({ ...state.engine().counters, ...state.port.counters }))
  }
  for (let packets = 257; packets <= 290; packets += 3)
    assert.deepEqual(counted('direct', packets), counted('packets', packets), `${packets} packets`)
})

it('a completion queue overruns in the middle of a batch', () => {
  const seen = (path: Path) => {
    const m = machine(2, '', path)
    const [p, q] = [program(m, 0), program(m, 1)]
    const [few, many] = [makeCq(p, 7), makeCq(q, 63)]
    const [near, far] = [register(p, 4096), register(q, 4096)]
    // two queue pairs complete to the CQ that is too small
    const pairs = [0, 1].map(() => ({ here: makeQp(p, few), there: makeQp(q, many) }))
    for (const { here, there } of pairs) {
      join(here, there)
      for (let i = 0; i < 12; i++) {
        postReceive(there.receive, BigInt(100 + i), [sgeOf(far, 64 * i, 64)])
        postSend(here.send, { opcode: SEND, id: BigInt(i), flags: 2, sges: [sgeOf(near, 0, 64)] })
      }
    }
    m.settle()
    while (m.tick());
    const stateOf = ({ handle, program: { context, caller } }: (typeof pairs)[0]['here']) =>
      invokeNow(context, RcQp, 'query', handle, {}, caller).out.state
    return {
      sent: completions(few),
      received: completions(many),
      events: p.async.queue.map(({ type }) => type),
      states: pairs.flatMap(({ here, there }) => [stateOf(here), stateOf(there)]),
    }
  }
  const direct = seen('direct')
  assert.deepEqual(direct, seen('packets'))
  assert.equal(direct.sent.length, 7)
})

describe('the path changes in the middle of a message', () => {
  const SIZE = 0xc0_0000
  for (const opcode of [wr.SEND, wr.RDMA_WRITE, wr.RDMA_READ]) {
    it(`opcode ${opcode}`, () => {
      const m = machine(2, '', 'direct')
      const [a, b] = [0, 1].map(device => {
        const p = program(m, device)
        const cq = makeCq(p)
        return { p, cq, qp: makeQp(p, cq), mr: register(p, SIZE) }
      })
      join(a.qp, b.qp, { pathMtu: 5 })
      const from = opcode === wr.RDMA_READ ? b : a
      pattern(from.mr.bytes, opcode)
      postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, SIZE)])
      postSend(a.qp.send, { opcode, sges: [sgeOf(a.mr, 0, SIZE)], remote: b.mr.address, rkey: b.mr.rkey })
      const { port } = m.devices[0].state
      let packets = 0
      let changes = 0
      let stop: (() => void) | undefined
      for (let turn = 0; turn < 1000 && a.cq.ring.producer === 0; turn++) {
        if (stop === undefined)
          stop = addTap(port, run => {
            packets += run.count
          })
        else {
          stop()
          stop = undefined
        }
        changes++
        for (const device of m.devices) device.poll(m.now)
      }
      stop?.()
      assert.deepEqual(
        completions(a.cq).map(({ status }) => status),
        [0],
      )
      assert.equal(Buffer.compare(a.mr.bytes, b.mr.bytes), 0)
      assert.ok(changes > 2 && packets > 0 && packets < SIZE / 4096, `${changes} changes, ${packets} packets`)
    })
  }
})
