/*
 * Messages without packets (path 'direct', transport/engine/loopback/slices.ts) have the results of messages with
 * packets (path 'packets').
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { invokeNow } from '../../../src/core/index.ts'
import { causeOfCode } from '../../../src/spec/check/causes.ts'
import { Cq } from '../../../src/spec/classes/cq.ts'
import { Mr } from '../../../src/spec/classes/mr.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { AsyncEventType, Mtu, QpState } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { operationCode } from '../../../src/spec/wire/opcodes.ts'
import { WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import type { Path } from '../../../src/transport/phy/memory/port.ts'
import { addTap, forEachPacket } from '../../../src/transport/phy/tap.ts'
import { BTH_BYTES, bthOpcode } from '../../../src/transport/wire/bth.ts'
import { aethMsn } from '../../../src/transport/wire/extensions.ts'
import { inLongRun } from '../../long-run.ts'
import {
  connectQps,
  machine,
  makeChannel,
  makeCq,
  makeQp,
  modify,
  program,
  query,
  register,
  type TestQp,
  toInit,
  toRtr,
  toRts,
} from '../rxe/machine.ts'
import { completions, pattern, sgeOf } from '../rxe/pair.ts'
import { Flag, pollAll, postReceive, postSend } from '../rxe/provider.ts'
import { type Kind, Mistake, play, type Request, type Script, type Step } from './loopback-script.ts'

const { SEND, SEND_WITH_IMM, SEND_WITH_INV, RDMA_WRITE, RDMA_WRITE_WITH_IMM, RDMA_READ } = WrOpcode.values
const { ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD, ATOMIC_WRITE, FLUSH, BIND_MW, LOCAL_INV } = WrOpcode.values
const { MTU_256, MTU_1024, MTU_4096 } = Mtu.values
const { SUCCESS } = WcStatus.values
/** Maximum bytes of one slice of a message without packets: 16 packets of 4096 bytes. */
const SLICE_BYTES = 0x1_0000
const sendsAndWrites = [SEND, SEND_WITH_IMM, RDMA_WRITE, RDMA_WRITE_WITH_IMM]
/** Operations with a response that is not an ACK. */
const withResponse = [RDMA_READ, ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD, ATOMIC_WRITE, FLUSH]
const oftenFailing: Readonly<Record<Kind, readonly number[]>> = {
  RC: [BIND_MW, LOCAL_INV, SEND_WITH_INV],
  SRQ: [BIND_MW, LOCAL_INV, SEND_WITH_INV],
  UC: [BIND_MW],
  XRC: [SEND_WITH_INV],
}
/** One operation in twenty is one of `oftenFailing`. */
const opcodesOf = (kind: Kind): fc.Arbitrary<number> => {
  const common = kind === 'UC' ? sendsAndWrites : [...sendsAndWrites, ...withResponse]
  return fc.oneof(
    { weight: 19, arbitrary: fc.constantFrom<number>(...common) },
    { weight: 1, arbitrary: fc.constantFrom<number>(...oftenFailing[kind]) },
  )
}
type SendStep = Extract<Step, { do: 'send' }>
const mistake = fc.constantFrom(Mistake.RKEY, Mistake.RANGE, Mistake.LKEY, Mistake.ADDRESS)
/** 0 in `weight` of `weight` + 1 cases, otherwise `value`. */
const rarely = (value: fc.Arbitrary<number>, weight: number) =>
  fc.oneof({ arbitrary: fc.constant(0), weight }, { arbitrary: value, weight: 1 })
/**
 * Replaces a wrong lkey by a wrong rkey if the request has a response: the lkey is checked when the response arrives,
 * and what was sent until then depends on timing.
 */
const comparable = (request: Request): Request =>
  request.mistake === Mistake.LKEY && withResponse.includes(request.opcode as (typeof withResponse)[number])
    ? { ...request, mistake: Mistake.RKEY }
    : request
/** Lengths in bytes: small, about one packet, several packets, more than a slice. */
const length = fc.oneof(fc.nat(80), fc.nat(80), fc.integer({ min: 1000, max: 1100 }), fc.nat(9000), fc.nat(150_000))
const side = fc.nat(1)

/** Mostly requests that the fast path (transport/engine/loopback/fast-path.ts) executes. */
const fastPathRequest: fc.Arbitrary<Request> = fc.record({
  opcode: fc.oneof(
    { weight: 40, arbitrary: fc.constantFrom(SEND, RDMA_WRITE, RDMA_READ) },
    { weight: 1, arbitrary: fc.constantFrom(RDMA_WRITE_WITH_IMM, ATOMIC_FETCH_AND_ADD) },
  ),
  length: fc.oneof({ weight: 9, arbitrary: fc.nat(3000) }, { weight: 1, arbitrary: fc.nat(150_000) }),
  localOffset: fc.nat(),
  remoteOffset: fc.nat(),
  split: fc.constant(0),
  inline: fc.constant(false),
  flags: fc.nat(7),
  value: fc.nat(),
  mistake: rarely(mistake, 300),
})

const request = (kind: Kind): fc.Arbitrary<Request> =>
  fc.record({
    opcode: opcodesOf(kind),
    length,
    localOffset: fc.nat(),
    remoteOffset: fc.nat(),
    split: rarely(fc.integer({ min: 1, max: 15 }), 2),
    inline: fc.boolean(),
    flags: fc.nat(7),
    value: fc.nat(),
    mistake: rarely(mistake, 120),
  })
const step = (requests: fc.Arbitrary<readonly Request[]>, maxReceives: number): fc.Arbitrary<Step> =>
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
        count: fc.integer({ min: 1, max: maxReceives }),
        length: fc.oneof({ weight: 9, arbitrary: fc.constant(160_000) }, { weight: 1, arbitrary: fc.nat(9000) }),
        split: rarely(fc.integer({ min: 1, max: 15 }), 2),
        hasWrongLkey: fc.nat(100).map(n => n === 0),
      }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('wait' as const), microseconds: fc.nat(600) }) },
  )
/** `isFastPath`: up to 50 fast path requests at once, more than a batch. Otherwise up to 5 requests of any kind. */
const script = (kind: Kind, isFastPath: boolean): fc.Arbitrary<Script> => {
  const requests = isFastPath
    ? fc.array(fastPathRequest.map(comparable), { minLength: 1, maxLength: 50, size: 'max' })
    : fc.array(request(kind).map(comparable), { minLength: 1, maxLength: 5 })
  return fc.record({
    kind: fc.constant(kind),
    devices: fc.constantFrom([0, 1] as const, [0, 0] as const, [1, 0] as const),
    mtu: fc.constantFrom(MTU_256, MTU_1024, MTU_4096),
    rnrRetry: fc.constantFrom(1, 7, 7),
    // at most maxDestRdAtomic, because above it results depend on timing
    maxRdAtomic: fc.oneof({ weight: 5, arbitrary: fc.constant(4) }, { weight: 1, arbitrary: fc.nat(4) }),
    maxDestRdAtomic: fc.constant(4),
    steps: fc.array(step(requests, isFastPath ? 30 : 1), { maxLength: 25, size: 'max' }),
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
  for (const [kind, isFastPath] of cases) {
    it(isFastPath ? `${kind}, fast path` : kind, () => {
      const runs = { packets: 0, direct: 0 }
      fc.assert(
        fc.property(script(kind, isFastPath), generated => {
          const [packets, direct] = [play(generated, 'packets'), play(generated, 'direct')]
          for (const [i, results] of packets.results.entries())
            assert.deepEqual(direct.results[i], results, `after step ${i}, ${JSON.stringify(generated.steps[i])}`)
          assert.deepEqual(direct.equalCounters, packets.equalCounters)
          for (const [i, memory] of packets.memory.entries())
            assert.equal(Buffer.compare(direct.memory[i], memory), 0, `memory of side ${i}`)
          runs.packets += packets.runs
          runs.direct += direct.runs
        }),
        { numRuns: (isFastPath ? 20 : 40) / inLongRun(1, 2) },
      )
      // refused and waiting requests need some packets on the direct path too
      assert.ok(
        runs.direct < runs.packets / 2,
        `${runs.direct} runs of packets on path 'direct', ${runs.packets} on path 'packets'`,
      )
    })
  }
})

/** Valid requests of one side, each after a receive of the peer. */
const validScript = (kind: Kind): Script => {
  const receive: Step = { do: 'receive', side: 1, count: 1, length: 160_000, split: 0, hasWrongLkey: false }
  const requests = (kind === 'UC' ? sendsAndWrites : [...sendsAndWrites, ...withResponse]).flatMap(opcode =>
    [0, 1, 3, 64, 1023, 1024, 70_001, 131_072].flatMap(length =>
      // One scatter/gather element, for the fast path, and two.
      [0, length & 7].map(
        (split): Request => ({
          opcode,
          length,
          localOffset: length * 3,
          remoteOffset: length * 5,
          split,
          inline: length === 1,
          flags: Flag.SIGNALED,
          value: opcode,
          mistake: Mistake.NONE,
        }),
      ),
    ),
  )
  const steps = requests.flatMap((request): Step[] => [receive, { do: 'send', side: 0, requests: [request] }])
  return { kind, devices: [0, 1], mtu: MTU_1024, rnrRetry: 7, maxRdAtomic: 4, maxDestRdAtomic: 4, steps }
}

describe('if nothing is refused, all counters and PSNs are equal with packets and without', () => {
  for (const kind of ['RC', 'SRQ', 'UC', 'XRC'] as const) {
    it(kind, () => {
      const [packets, direct] = [play(validScript(kind), 'packets'), play(validScript(kind), 'direct')]
      assert.equal(direct.runs, 0)
      assert.ok(packets.runs > 0)
      assert.deepEqual(direct.allCounters, packets.allCounters)
      assert.deepEqual(direct.queries, packets.queries)
      const statuses = packets.results.flat().flatMap(({ sends }) => sends.map(([, status]) => status))
      assert.deepEqual([...new Set(statuses)], [SUCCESS])
    })
  }
})

it('dropped UC messages count the same with packets and without', () => {
  const valid = validScript('UC')
  const { requests } = valid.steps.find(step => step.do === 'send') as SendStep
  const receive = valid.steps.find(step => step.do === 'receive') as Step
  const post = (opcode: number, length: number, mistake: number = Mistake.NONE): Step => ({
    do: 'send',
    side: 0,
    requests: [{ ...requests[0], opcode, length, mistake }],
  })
  const steps = [1, 1024, 5000, 70_001].flatMap(length => [
    post(SEND, length),
    post(RDMA_WRITE, length, Mistake.RKEY),
    post(RDMA_WRITE_WITH_IMM, length),
    receive,
    post(SEND, length),
  ])
  const [packets, direct] = [play({ ...valid, steps }, 'packets'), play({ ...valid, steps }, 'direct')]
  assert.equal(direct.runs, 0)
  assert.deepEqual(direct.results, packets.results)
  assert.deepEqual(direct.allCounters, packets.allCounters)
  const { dropped, outOfSequence } = direct.allCounters[1].engine
  // Dropped are all packets of the first SENDs and of the WRITEs, and the last packet of each WRITE with immediate.
  const packetsOfSends = 1 + 1 + 5 + 69 // of 1024 bytes
  assert.deepEqual({ dropped, outOfSequence }, { dropped: 2 * packetsOfSends + 4, outOfSequence: 0 })
})

it("READs beyond the responder's max_dest_rd_atomic are refused", () => {
  const valid = validScript('RC')
  const { requests } = valid.steps.find(step => step.do === 'send' && step.requests[0].opcode === RDMA_READ) as SendStep
  const script: Script = {
    ...valid,
    maxDestRdAtomic: 2,
    steps: [{ do: 'send', side: 0, requests: new Array(4).fill(requests[0]) }],
  }
  const direct = play(script, 'direct')
  assert.deepEqual(direct.results, play(script, 'packets').results)
  assert.ok(direct.results[0][0].sends.some(([, status]) => status === WcStatus.values.REM_INV_REQ_ERR))
})

describe('a responder that expects another PSN gets the message by packets, with equal results', () => {
  for (const [name, opcode] of Object.entries({ SEND, RDMA_WRITE, RDMA_READ }))
    for (const [size, length] of [
      ['small', 64],
      ['of two slices', 2 * SLICE_BYTES],
    ] as const)
      it(`${name}, ${size}`, () => {
        const resultsOn = (path: Path) => {
          const m = machine(2, { path })
          const [a, b] = [0, 1].map(device => {
            const p = program(m, device)
            const cq = makeCq(p)
            return { p, cq, qp: makeQp(p, cq), mr: register(p, length) }
          })
          connectQps(a.qp, b.qp, { rqPsn: 200 }, { sqPsn: 100, retryCnt: 1 })
          pattern((opcode === RDMA_READ ? b : a).mr.bytes, 1)
          postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, length)])
          postSend(a.qp.send, { opcode, sges: [sgeOf(a.mr, 0, length)], remote: b.mr.address, rkey: b.mr.rkey })
          m.settle()
          while (m.tick());
          return {
            sent: completions(a.cq).map(({ status }) => status),
            received: completions(b.cq).length,
            counters: m.devices.map(({ device: { state } }) => state.engine().counters.receivedPackets),
            isWritten: Buffer.compare(a.mr.bytes, b.mr.bytes) === 0,
          }
        }
        const direct = resultsOn('direct')
        assert.deepEqual(direct, resultsOn('packets'))
        assert.equal(direct.isWritten, false)
      })
})

it('a SEND that has waited for a receive needs no packets', () => {
  const valid = validScript('RC')
  const { requests } = valid.steps.find(step => step.do === 'send') as SendStep
  const receive = valid.steps.find(step => step.do === 'receive') as Step
  const send: Step = { do: 'send', side: 0, requests: [{ ...requests[0], opcode: SEND, length: 100_000 }] }
  const steps: Step[] = [send, receive, { do: 'wait', microseconds: 1000 }]
  const [packets, direct] = [play({ ...valid, steps }, 'packets'), play({ ...valid, steps }, 'direct')]
  assert.deepEqual(direct.results, packets.results)
  assert.deepEqual(
    direct.results[2][0].sends.map(([, status]) => status),
    [SUCCESS],
  )
  assert.deepEqual([direct.runs, direct.equalCounters[0].receivedRnr], [0, 1])
})

it('the MSN counts messages without packets', () => {
  const m = machine(2, { path: 'direct' })
  const [a, b] = [0, 1].map(device => {
    const p = program(m, device)
    const cq = makeCq(p)
    return { qp: makeQp(p, cq), mr: register(p, 4096) }
  })
  connectQps(a.qp, b.qp)
  const post = (opcode: number, sges: number): void => {
    postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, 4096)])
    const elements = Array.from({ length: sges }, (_, i) => sgeOf(a.mr, 4 * i, 4))
    postSend(a.qp.send, { opcode, sges: elements, remote: b.mr.address, rkey: b.mr.rkey })
    m.settle()
  }
  // Six messages: those with two elements do not take the fast path.
  for (const opcode of [SEND, RDMA_WRITE, RDMA_READ]) for (const sges of [1, 2]) post(opcode, sges)
  const msns: number[] = []
  addTap(m.devices[1].device.state.port, run => {
    forEachPacket(run, offset => {
      if (bthOpcode(run.arena.view, offset) === operationCode.ACKNOWLEDGE)
        msns.push(aethMsn(run.arena.view, offset + BTH_BYTES))
    })
  })
  post(SEND, 1)
  assert.deepEqual(msns, [7])
})

it('a READ whose last responses come in a later poll is counted once, with all its bytes', () => {
  const countersAfterRead = (path: Path, packets: number) => {
    const m = machine(2, { path })
    const [a, b] = [0, 1].map(device => {
      const p = program(m, device)
      const cq = makeCq(p)
      return { cq, qp: makeQp(p, cq), mr: register(p, packets * 4096) }
    })
    connectQps(a.qp, b.qp, { pathMtu: MTU_4096 })
    const sges = [sgeOf(a.mr, 0, packets * 4096)]
    postSend(a.qp.send, { opcode: RDMA_READ, sges, remote: b.mr.address, rkey: b.mr.rkey })
    m.settle()
    return m.devices.map(({ device: { state } }) => [{ ...state.engine().counters }, { ...state.port.counters }])
  }
  // in one call the engine transfers at most 1 MiB to local peers: 256 packets of 4096 bytes
  for (let packets = 257; packets <= 290; packets += 3)
    assert.deepEqual(countersAfterRead('direct', packets), countersAfterRead('packets', packets), `${packets} packets`)
})

it('a completion queue that overruns within a batch has equal results with packets and without', () => {
  const resultsOn = (path: Path) => {
    const m = machine(2, { path })
    const [p, q] = [program(m, 0), program(m, 1)]
    const [smallCq, largeCq] = [makeCq(p, 7), makeCq(q, 63)]
    const [source, target] = [register(p, 4096), register(q, 4096)]
    const pairs = [0, 1].map(() => ({ sender: makeQp(p, smallCq), receiver: makeQp(q, largeCq) }))
    for (const { sender, receiver } of pairs) {
      connectQps(sender, receiver)
      for (let i = 0; i < 12; i++) {
        postReceive(receiver.receive, BigInt(100 + i), [sgeOf(target, 64 * i, 64)])
        postSend(sender.send, { opcode: SEND, id: BigInt(i), flags: Flag.SIGNALED, sges: [sgeOf(source, 0, 64)] })
      }
    }
    m.settle()
    while (m.tick());
    const stateOf = ({ handle, program: { context, caller } }: TestQp) =>
      invokeNow(context, RcQp, 'query', handle, {}, caller).out.state
    return {
      sent: completions(smallCq),
      received: completions(largeCq),
      events: p.async.queue.map(({ type }) => type),
      states: pairs.flatMap(({ sender, receiver }) => [stateOf(sender), stateOf(receiver)]),
    }
  }
  const direct = resultsOn('direct')
  assert.deepEqual(direct, resultsOn('packets'))
  assert.equal(direct.sent.length, 7)
})

describe('the path changes in the middle of a message', () => {
  const LENGTH = 0xc0_0000
  for (const [name, opcode] of Object.entries({ SEND, RDMA_WRITE, RDMA_READ })) {
    it(name, () => {
      const m = machine(2, { path: 'direct' })
      const [a, b] = [0, 1].map(device => {
        const p = program(m, device)
        const cq = makeCq(p)
        return { p, cq, qp: makeQp(p, cq), mr: register(p, LENGTH) }
      })
      connectQps(a.qp, b.qp, { pathMtu: MTU_4096 })
      const source = opcode === RDMA_READ ? b : a
      pattern(source.mr.bytes, opcode)
      postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, LENGTH)])
      postSend(a.qp.send, { opcode, sges: [sgeOf(a.mr, 0, LENGTH)], remote: b.mr.address, rkey: b.mr.rkey })
      const { port } = m.devices[0].device.state
      let packets = 0
      let changes = 0
      // a port with a tap sends packets
      let removeTap: (() => void) | undefined
      for (let turn = 0; turn < 1000 && a.cq.ring.producer === 0; turn++) {
        if (removeTap === undefined)
          removeTap = addTap(port, run => {
            packets += run.count
          })
        else {
          removeTap()
          removeTap = undefined
        }
        changes++
        for (const device of m.devices) device.poll(m.now)
      }
      removeTap?.()
      assert.deepEqual(
        completions(a.cq).map(({ status }) => status),
        [SUCCESS],
      )
      assert.equal(Buffer.compare(a.mr.bytes, b.mr.bytes), 0)
      assert.ok(changes > 2 && packets > 0 && packets < LENGTH / 4096, `${changes} changes, ${packets} packets`)
    })
  }
})

describe('a region that is deregistered in the middle of a message', () => {
  const LENGTH = 0x100_0000
  const { REM_ACCESS_ERR, REM_OP_ERR, LOC_PROT_ERR, WR_FLUSH_ERR } = WcStatus.values
  const { RTS, ERR } = QpState.values
  for (const [name, opcode, sendStatus, receiveStatus, cause] of [
    ['READ', RDMA_READ, REM_ACCESS_ERR, WR_FLUSH_ERR, 'RKEY_DEREGISTERED'],
    ['WRITE', RDMA_WRITE, REM_ACCESS_ERR, WR_FLUSH_ERR, 'RKEY_DEREGISTERED'],
    ['SEND', SEND, REM_OP_ERR, LOC_PROT_ERR, 'LKEY_DEREGISTERED'],
  ] as const)
    for (const path of ['packets', 'direct'] as const)
      it(`${name}, path ${path}`, () => {
        const m = machine(2, { path })
        const [a, b] = [0, 1].map(device => {
          const p = program(m, device)
          const cq = makeCq(p)
          return { p, cq, qp: makeQp(p, cq), mr: register(p, LENGTH) }
        })
        connectQps(a.qp, b.qp, { pathMtu: MTU_4096 })
        pattern((opcode === RDMA_READ ? b : a).mr.bytes, 1)
        const target = opcode === RDMA_READ ? a.mr : b.mr
        postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, LENGTH)])
        postSend(a.qp.send, { opcode, sges: [sgeOf(a.mr, 0, LENGTH)], remote: b.mr.address, rkey: b.mr.rkey })
        // The message is in the middle when its second slice arrives.
        for (let polls = 0; polls < 100 && target.bytes[SLICE_BYTES] === 0; polls++)
          for (const device of m.devices) device.poll(m.now)
        assert.equal(query(b.qp).state, RTS)
        invokeNow(b.p.context, Mr, 'destroy', b.mr.handle, {}, b.p.caller)
        const lastWritten = () => target.bytes.findLastIndex(byte => byte !== 0)
        const before = lastWritten()
        m.settle()
        // the peer's cause is found by the PSN of its NAK
        assert.deepEqual(
          pollAll(a.cq.ring).map(({ status, vendor }) => [status, causeOfCode(vendor)]),
          [[sendStatus, cause]],
        )
        assert.deepEqual([query(a.qp).state, query(b.qp).state], [ERR, ERR])
        assert.deepEqual(
          completions(b.cq).map(({ status }) => status),
          [receiveStatus],
        )
        assert.ok(before >= SLICE_BYTES && before < LENGTH - 1)
        // READ responses in flight are still written.
        if (opcode !== RDMA_READ) assert.equal(lastWritten(), before)
      })
})

it('without packets, a READ that fails in the middle is refused at its first missing response', () => {
  const LENGTH = 0x20_0000
  const m = machine(2, { path: 'direct' })
  const [a, b] = [0, 1].map(device => {
    const p = program(m, device)
    const cq = makeCq(p)
    return { p, cq, qp: makeQp(p, cq), mr: register(p, LENGTH) }
  })
  connectQps(a.qp, b.qp, { pathMtu: MTU_4096 })
  const { rqPsn: firstPsn } = query(b.qp)
  // The first slice is read through `locate`, and the next one cannot be read.
  const { locate } = b.p.space
  let slices = 0
  b.p.space.locate = (...range) => (slices++ === 0 ? locate?.(...range) : undefined)
  b.p.space.read = () => Errno.EFAULT
  const sges = [sgeOf(a.mr, 0, LENGTH)]
  postSend(a.qp.send, { opcode: RDMA_READ, sges, remote: b.mr.address, rkey: b.mr.rkey })
  m.settle()
  const [{ status, vendor }] = pollAll(a.cq.ring)
  // the peer's cause is found by the PSN of its NAK
  assert.deepEqual([status, causeOfCode(vendor)], [WcStatus.values.REM_OP_ERR, 'REMOTE_FAULT'])
  assert.equal(query(b.qp).rqPsn, firstPsn + SLICE_BYTES / 4096)
})

for (const path of ['packets', 'direct'] as const)
  it(`a completion queue that is armed for solicited completions gets an event for a solicited SEND only, path ${path}`, () => {
    const m = machine(2, { path })
    const [p, q] = [program(m, 0), program(m, 1)]
    const channel = makeChannel(q)
    const receiveCq = makeCq(q, 15, channel.fd)
    const [a, b] = [makeQp(p, makeCq(p)), makeQp(q, receiveCq)]
    const [source, target] = [register(p, 4096), register(q, 4096)]
    connectQps(a, b)
    const events = [Flag.SIGNALED, Flag.SIGNALED | Flag.SOLICITED].map(flags => {
      invokeNow(q.context, Cq, 'reqNotify', receiveCq.handle, { solicitedOnly: 1 }, q.caller)
      postReceive(b.receive, 1n, [sgeOf(target, 0, 4096)])
      postSend(a.send, { opcode: SEND, flags, sges: [sgeOf(source, 0, 3000)] })
      m.settle()
      return channel.queue.queue.splice(0).length
    })
    assert.deepEqual(events, [0, 1])
  })

for (const path of ['packets', 'direct'] as const)
  it(`a responder in RTR gets COMM_EST, an event for a solicited SEND only, and QP_ACCESS_ERR, path ${path}`, () => {
    const m = machine(2, { path })
    const [p, q] = [program(m, 0), program(m, 1)]
    const channel = makeChannel(q)
    const [sendCq, receiveCq] = [makeCq(p), makeCq(q, 15, channel.fd)]
    const [a, b] = [makeQp(p, sendCq), makeQp(q, receiveCq)]
    const [source, target] = [register(p, 2 * SLICE_BYTES), register(q, 2 * SLICE_BYTES)]
    pattern(source.bytes, 1)
    for (const [qp, peer] of [
      [a, b],
      [b, a],
    ]) {
      modify(qp, toInit())
      modify(qp, toRtr(peer.qpn, peer.program.rxe.device.state.identity.gids[1]))
    }
    modify(a, toRts())
    const events: number[] = []
    for (const flags of [Flag.SIGNALED, Flag.SIGNALED | Flag.SOLICITED]) {
      invokeNow(q.context, Cq, 'reqNotify', receiveCq.handle, { solicitedOnly: 1 }, q.caller)
      postReceive(b.receive, 1n, [sgeOf(target, 0, 4096)])
      postSend(a.send, { opcode: SEND_WITH_IMM, flags, sges: [sgeOf(source, 0, 3000)] })
      m.settle()
      events.push(channel.queue.queue.splice(0).length)
    }
    assert.deepEqual(events, [0, 1])
    const { COMM_EST, QP_ACCESS_ERR } = AsyncEventType.values
    assert.deepEqual(
      q.async.queue.splice(0).map(({ type }) => type),
      [COMM_EST],
    )
    target.bytes.fill(0)
    // A WRITE of two slices ends one byte after the region.
    const sges = [sgeOf(source, 0, 2 * SLICE_BYTES)]
    postSend(a.send, { opcode: RDMA_WRITE, sges, remote: target.address + 1, rkey: target.rkey })
    m.settle()
    assert.ok(target.bytes.every(byte => byte === 0))
    assert.deepEqual(
      q.async.queue.map(({ type }) => type),
      [QP_ACCESS_ERR],
    )
  })

for (const path of ['packets', 'direct'] as const)
  for (const [name, opcode] of Object.entries({ SEND, SEND_WITH_IMM, RDMA_WRITE_WITH_IMM }))
    it(`a responder in RTR gets no COMM_EST for a ${name} that fails locally, path ${path}`, () => {
      const m = machine(2, { path })
      const [p, q] = [program(m, 0), program(m, 1)]
      const sendCq = makeCq(p)
      const [a, b] = [makeQp(p, sendCq), makeQp(q, makeCq(q))]
      const [source, target] = [register(p, 64), register(q, 64)]
      for (const [qp, peer] of [
        [a, b],
        [b, a],
      ]) {
        modify(qp, toInit())
        modify(qp, toRtr(peer.qpn, peer.program.rxe.device.state.identity.gids[1]))
      }
      modify(a, toRts())
      const sges = [{ ...sgeOf(source, 0, 8), lkey: source.lkey ^ 0x5500 }]
      postSend(a.send, { opcode, sges, remote: target.address, rkey: target.rkey })
      m.settle()
      assert.deepEqual(
        completions(sendCq).map(({ status }) => status),
        [WcStatus.values.LOC_PROT_ERR],
      )
      assert.deepEqual(
        q.async.queue.map(({ type }) => type),
        [],
      )
    })
