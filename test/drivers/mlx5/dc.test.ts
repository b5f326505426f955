/*
 * The dynamically connected transport of mlx5 devices (docs/decisions/dc.md): all requests, targets that change from
 * one request to the next, what fails and how, connections that end, and what a hostile program or peer may do.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { closeContext, unregister } from '../../../src/core/index.ts'
import { DC_MAX_CONNECTIONS, DcTime } from '../../../src/drivers/mlx5/dc/answers.ts'
import type { Mlx5State } from '../../../src/drivers/mlx5/state.ts'
import type { SoftState } from '../../../src/drivers/soft/state.ts'
import { DciQp } from '../../../src/spec/classes/qp/dc_qp.ts'
import { CompletionKind, syndromes } from '../../../src/spec/drivers/mlx5-queues.ts'
import { QpState } from '../../../src/spec/enums.ts'
import { opcodeNumber } from '../../../src/spec/wire/opcodes.ts'
import { WcStatus } from '../../../src/spec/work.ts'
import { emptyRun, type Port } from '../../../src/transport/phy/port.ts'
import { addTap } from '../../../src/transport/phy/tap.ts'
import { putBth } from '../../../src/transport/wire/bth.ts'
import { ECN_CAPABLE } from '../../../src/transport/wire/flow.ts'
import { completionsOf } from '../machine.ts'
import {
  ATOMIC_CS,
  ATOMIC_FA,
  type Completion,
  ipv4,
  type Machine,
  machine,
  type Program,
  program,
  RDMA_READ,
  RDMA_WRITE,
  RDMA_WRITE_IMM,
  type Request,
  SEND,
  SEND_IMM,
} from './machine.ts'

const { REQUEST, RECEIVE, RECEIVE_IMM, RECEIVE_WRITE_IMM, REQUEST_ERROR } = CompletionKind
const { REM_ACCESS_ERR, RETRY_EXC_ERR, RNR_RETRY_EXC_ERR, WR_FLUSH_ERR, LOC_QP_OP_ERR } = WcStatus.values
const KEY = 0x0123_4567_89ab_cdefn

const engineOf = (m: Machine, index: number) => (m.devices[index]!.device.state as SoftState).engine()
/** Queue pairs of the engine, responders among them. */
const rowsOf = (m: Machine, index: number): number => engineOf(m, index).stat().queuePairs

/** Polls the devices, and lets `microseconds` pass. */
const pass = (m: Machine, microseconds: number): void => {
  const end = m.time.now + microseconds
  for (let turn = 0; turn < 100_000 && m.time.now < end; turn++) {
    let progress = false
    for (const device of m.devices) progress = device.poll(m.time.now) || progress
    const due = Math.min(end, ...m.devices.map(device => device.nextTimeout()))
    if (!progress) m.time.now = Math.max(m.time.now + 1, due)
  }
}

/** Program `a` with an initiator, and program `b` with two targets that share an SRQ. */
const start = (fault = '', options = {}, sends = 64, onPort?: (port: Port, device: number) => void, dcqcn?: number) => {
  const m = machine(2, fault, onPort, dcqcn)
  const [a, b] = [program(m, 0), program(m, 1)]
  const srq = b.sharedReceives(64)
  const targets = [b.target(srq.object, KEY), b.target(srq.object, KEY + 1n)] as const
  const dci = a.queuePair('dci', { sends })
  dci.start(options)
  for (let i = 0; i < a.bytes.length; i++) a.bytes[i] = (i * 7 + (i >> 8)) & 0xff
  const remote = (offset: number) => ({ address: b.address + BigInt(offset), rkey: b.region.rkey })
  const post = (to: 0 | 1, request: Request) => dci.post({ destination: targets[to].destination, ...request })
  const write = (to: 0 | 1, offset = 0) =>
    post(to, { opcode: RDMA_WRITE, data: [a.element(offset, 8)], remote: remote(offset) })
  return { m, a, b, srq, targets, dci, remote, post, write }
}

const syndromesOf = (completions: readonly Completion[]): number[] => completions.map(({ syndrome }) => syndrome)

for (const [name, fault] of [
  ['memory', ''],
  ['packets', 'drop=0'],
  ['lost and reordered packets', 'drop=0.05,dup=0.05,reorder=0.1,seed=11'],
] as const)
  describe(`DC over ${name}`, () => {
    it('has all requests, each for a target of its own', () => {
      const { m, a, b, srq, targets, dci, remote, post } = start(fault)
      for (let i = 0; i < 4; i++) srq.receive(b.element(200_000 + i * 1024, 1024))
      post(0, { opcode: SEND, data: [a.element(0, 1000)] })
      post(1, { opcode: SEND_IMM, data: [a.element(1000, 10)], imm: 0x0102_0304 })
      post(0, { opcode: RDMA_WRITE, data: [a.element(0, 50_001)], remote: remote(100) })
      post(1, { opcode: RDMA_READ, data: [a.element(100_000, 20_000)], remote: remote(100) })
      post(0, { opcode: RDMA_WRITE_IMM, data: [a.element(9, 8)], remote: remote(60_000), imm: 9 })
      post(0, { opcode: SEND, inline: a.bytes.slice(7, 107) })
      const sent = completionsOf(m, a, 6)
      assert.deepEqual(
        sent.map(({ kind, uidx, qpn }) => [kind, uidx, qpn]),
        sent.map(() => [REQUEST, dci.uidx, dci.qpn]),
      )
      assert.deepEqual(
        completionsOf(m, b, 4).map(({ kind, bytes, uidx, qpn, sourceQpn }) => [kind, bytes, uidx, qpn, sourceQpn]),
        [
          [RECEIVE, 1000, targets[0].uidx, targets[0].qpn, dci.qpn],
          [RECEIVE_IMM, 10, targets[1].uidx, targets[1].qpn, dci.qpn],
          [RECEIVE_WRITE_IMM, 8, targets[0].uidx, targets[0].qpn, dci.qpn],
          [RECEIVE, 100, targets[0].uidx, targets[0].qpn, dci.qpn],
        ],
      )
      assert.deepEqual(b.bytes.subarray(200_000, 201_000), a.bytes.subarray(0, 1000))
      assert.deepEqual(b.bytes.subarray(100, 50_101), a.bytes.subarray(0, 50_001))
      assert.deepEqual(a.bytes.subarray(100_000, 120_000), a.bytes.subarray(0, 20_000))
      const words = new DataView(b.bytes.buffer)
      words.setBigUint64(70_000, 40n, true)
      const atomic = { data: [a.element(0, 8)], remote: remote(70_000) }
      post(1, { opcode: ATOMIC_FA, ...atomic, atomic: { swapAdd: 2n, compare: 0n } })
      post(0, { opcode: ATOMIC_CS, ...atomic, data: [a.element(8, 8)], atomic: { swapAdd: 7n, compare: 42n } })
      completionsOf(m, a, 2)
      const mine = new DataView(a.bytes.buffer)
      assert.deepEqual([mine.getBigUint64(0, true), mine.getBigUint64(8, true)], [40n, 42n])
      assert.equal(words.getBigUint64(70_000, true), 7n)
    })

    it('keeps the order of an initiator, whose requests change their target', () => {
      const { m, a, b, srq, targets, post } = start(fault, {}, 128)
      const order: number[] = []
      for (let i = 0; i < 40; i++) srq.receive(b.element(i * 64, 64))
      for (let i = 0; i < 40; i++) {
        const to = ((i * 7) % 3) & 1 ? 1 : 0
        order.push(targets[to].qpn)
        post(to, { opcode: SEND_IMM, data: [a.element(i, 8)], imm: i })
      }
      const got = completionsOf(m, b, 40)
      assert.deepEqual(
        got.map(({ imm, qpn }) => [imm, qpn]),
        order.map((qpn, i) => [i, qpn]),
      )
    })
  })

for (const [dcqcn, sentClass] of [
  [1e9, ECN_CAPABLE],
  [undefined, 0],
] as const)
  it(`declares ${dcqcn === undefined ? 'not ' : ''}that it reacts to marks, as an initiator and as a target`, () => {
    const classes: Set<number>[] = [new Set(), new Set()]
    const watch = (port: Port, device: number): void => {
      addTap(port, ({ direction, flow }) => direction === 'sent' && classes[device]!.add(flow.trafficClass))
    }
    const { m, a, post, remote } = start('dir=received,ecn=1', {}, 64, watch, dcqcn)
    for (let i = 0; i < 4; i++)
      post((i & 1) as 0 | 1, { opcode: RDMA_WRITE, data: [a.element(0, 50_001)], remote: remote(100) })
    post(0, { opcode: RDMA_READ, data: [a.element(100_000, 20_000)], remote: remote(100) })
    assert.deepEqual(syndromesOf(completionsOf(m, a, 5)), [0, 0, 0, 0, 0])
    // the request for a connection arrived marked, and its answers are not
    assert.deepEqual(classes, [new Set([sentClass]), new Set([sentClass])])
    for (const index of [0, 1]) {
      const { cnpSent, cnpHandled, cnpIgnored } = engineOf(m, index).counters
      assert.ok(cnpSent > 0)
      assert.deepEqual([cnpHandled > 0, cnpIgnored > 0], dcqcn === undefined ? [false, true] : [true, false])
    }
  })

describe('a request whose target', () => {
  it('has another access key fails with a remote access error, and the next ones are flushed', () => {
    const { m, a, targets, dci, write } = start()
    const [good] = targets
    const rows = rowsOf(m, 1)
    dci.post({ opcode: SEND, destination: { ...good.destination, key: KEY + 5n }, data: [a.element(0, 8)] })
    write(0)
    const [failed, flushed] = completionsOf(m, a, 2)
    assert.deepEqual([failed!.kind, failed!.syndrome], [REQUEST_ERROR, syndromes[REM_ACCESS_ERR]])
    assert.equal(flushed!.syndrome, syndromes[WR_FLUSH_ERR])
    assert.equal(rowsOf(m, 1), rows, 'the target has a responder')
    dci.reset()
    dci.start()
    write(0)
    assert.equal(completionsOf(m, a, 1)[0]!.kind, REQUEST)
  })

  it('does not exist, or is not in RTR, fails as unanswered ones do', () => {
    const { m, a, b, srq, dci } = start('', { timeout: 10, retryCnt: 1 })
    for (const { destination } of [
      b.target(srq.object, KEY, false),
      { destination: { gid: ipv4(2), qpn: 99, key: KEY } },
    ]) {
      dci.post({ opcode: SEND, destination, data: [a.element(0, 8)] })
      const from = m.time.now
      assert.deepEqual(syndromesOf(completionsOf(m, a, 1)), [syndromes[RETRY_EXC_ERR]])
      assert.ok(m.time.now - from >= DcTime.GIVE_UP_MIN)
      dci.reset()
      dci.start({ timeout: 10, retryCnt: 1 })
    }
  })

  it('has no path fails at once', () => {
    const { m, a, targets, dci } = start()
    dci.post({
      opcode: SEND,
      destination: { ...targets[0].destination, gid: new Uint8Array(16) },
      data: [a.element(0, 8)],
    })
    assert.deepEqual(syndromesOf(completionsOf(m, a, 1)), [syndromes[LOC_QP_OP_ERR]])
  })

  it('refuses it fails, and other initiators of the target go on', () => {
    const { m, a, targets, post, remote } = start()
    const other = a.queuePair('dci')
    other.start()
    const writeOther = () =>
      other.post({
        opcode: RDMA_WRITE,
        destination: targets[0].destination,
        data: [a.element(0, 8)],
        remote: remote(0),
      })
    writeOther()
    completionsOf(m, a, 1)
    post(0, { opcode: RDMA_WRITE, data: [a.element(0, 8)], remote: { ...remote(0), rkey: 77 } })
    writeOther()
    assert.deepEqual(
      completionsOf(m, a, 2)
        .map(({ kind, syndrome }) => [kind, syndrome])
        .sort(),
      [
        [REQUEST, 0],
        [REQUEST_ERROR, syndromes[REM_ACCESS_ERR]],
      ],
    )
  })

  it('uses its GID, whose index is free when it is destroyed', () => {
    const { m, targets } = start()
    const users = (): number[] => [...m.devices[1]!.device.ports[0]!.gids.users.values()]
    assert.deepEqual(users(), [2])
    targets[0].destroy()
    assert.deepEqual(users(), [1])
    targets[1].destroy()
    assert.deepEqual(users(), [])
  })

  it('is destroyed in traffic fails, and nothing is left at its device', () => {
    const { m, a, b, srq, targets, post, write } = start('', { timeout: 8, retryCnt: 1 })
    const rows = rowsOf(m, 1)
    write(0)
    completionsOf(m, a, 1)
    assert.equal(rowsOf(m, 1), rows + 1)
    // no receive is posted: the SEND waits at the responder
    post(0, { opcode: SEND, data: [a.element(0, 8)] })
    write(0)
    pass(m, 50)
    targets[0].destroy()
    assert.equal(rowsOf(m, 1), rows - 1)
    assert.deepEqual(syndromesOf(completionsOf(m, a, 2)), [syndromes[RETRY_EXC_ERR], syndromes[WR_FLUSH_ERR]])
    targets[1].destroy()
    srq.destroy()
    assert.equal(rowsOf(m, 1), 0)
    assert.equal(b.poll().length, 0)
  })
})

describe('an initiator with streams', () => {
  const { RTS, ERR } = QpState.values
  const startStreams = (logErroredStreams: number, fault = '') => {
    const started = start(fault)
    const { m, a, targets, remote } = started
    started.dci.destroy()
    const dci = a.queuePair('dci', { streams: { logStreams: 2, logErroredStreams } })
    dci.start({ timeout: 10, retryCnt: 1 })
    const post = (stream: number, rkey = remote(0).rkey, to: 0 | 1 = 0, destination = targets[to].destination) =>
      dci.post({
        opcode: RDMA_WRITE,
        destination,
        data: [a.element(stream * 8, 8)],
        remote: { address: remote(stream * 8).address, rkey },
        stream,
      })
    const stateOf = () => a.call<{ state: number }>(DciQp, 'query', dci.object, {}).out.state
    const { dc } = (m.devices[0]!.device.state as SoftState<Mlx5State>).own!
    const resetStream = (stream: number): void => dc.initiators(() => 0).resetStream(dci.qpn, stream)
    /** Streams' first blocks are in the completions. */
    const outcomes = (count: number) => syndromesOf(completionsOf(m, a, count))
    return { ...started, dci, post, stateOf, resetStream, outcomes }
  }
  const [failed, flushed] = [syndromes[REM_ACCESS_ERR], syndromes[WR_FLUSH_ERR]]

  for (const fault of ['', 'drop=0'])
    it(`keeps an error to its stream, until the stream is reset${fault && ', by packets'}`, () => {
      const { b, post, outcomes, stateOf, resetStream } = startStreams(2, fault)
      post(1)
      post(2, 77)
      post(2)
      post(3)
      post(2, undefined, 1)
      post(1, undefined, 1)
      assert.deepEqual(outcomes(6), [0, failed, flushed, 0, flushed, 0])
      assert.equal(stateOf(), RTS)
      post(2)
      post(3)
      assert.deepEqual(outcomes(2), [flushed, 0])
      resetStream(2)
      post(2)
      assert.deepEqual(outcomes(1), [0])
      assert.equal(stateOf(), RTS)
      assert.equal(b.bytes[16], (16 * 7) & 0xff)
    })

  it('goes to ERR when as many streams are in error as it was made for, and starts anew after RESET', () => {
    const { dci, post, outcomes, stateOf } = startStreams(1)
    post(9, 77)
    assert.deepEqual(outcomes(1), [failed])
    assert.equal(stateOf(), RTS)
    post(8, 77)
    post(7)
    assert.deepEqual(outcomes(2), [failed, flushed])
    assert.equal(stateOf(), ERR)
    dci.reset()
    dci.start()
    post(9)
    post(8)
    assert.deepEqual(outcomes(2), [0, 0])
  })

  it('keeps the failure of a connection to the stream', () => {
    const { targets, post, outcomes, stateOf } = startStreams(3)
    post(1, undefined, 0, { ...targets[0].destination, key: KEY + 5n })
    post(2)
    post(3, undefined, 0, { ...targets[0].destination, qpn: 99 })
    post(1)
    post(2, undefined, 1)
    assert.deepEqual(outcomes(5), [failed, 0, syndromes[RETRY_EXC_ERR], flushed, 0])
    assert.equal(stateOf(), RTS)
  })

  it('flushes all in ERR, to which its program has moved it', () => {
    const { m, dci, post, outcomes, stateOf } = startStreams(2)
    post(1, 77)
    assert.deepEqual(outcomes(1), [failed])
    pass(m, 10)
    dci.fail()
    post(1)
    post(2)
    assert.deepEqual(outcomes(2), [flushed, flushed])
    assert.equal(stateOf(), ERR)
  })

  it('goes on for 70,000 requests with errors, and ends without a rest', () => {
    const { m, dci, post, outcomes, resetStream } = startStreams(2)
    const rows = rowsOf(m, 1)
    for (let i = 0; i < 3500; i++) {
      const isBad = i % 5 === 0
      for (let k = 0; k < 20; k++) post(k % 3, isBad && k === 7 ? 77 : undefined, (k & 1) as 0 | 1)
      const got = outcomes(20)
      assert.equal(got.filter(syndrome => syndrome === failed).length, +isBad)
      if (isBad) resetStream(1)
    }
    dci.destroy()
    pass(m, 10)
    assert.ok(rowsOf(m, 1) <= rows)
  })

  it('has no more streams than the device', () => {
    const { a } = start()
    for (const streams of [
      { logStreams: 7, logErroredStreams: 0 },
      { logStreams: 0, logErroredStreams: 255 },
    ])
      assert.throws(() => a.queuePair('dci', { streams }), { errno: 22, message: /at most 2\^6 and 2\^6/ })
  })
})

describe('connections', () => {
  it('wait for receives as long as rnr_retry allows', () => {
    const { m, a, b, srq, post } = start()
    post(0, { opcode: SEND, data: [a.element(0, 8)] })
    pass(m, 70e6)
    assert.equal(a.poll().length, 0)
    srq.receive(b.element(0, 64))
    assert.equal(completionsOf(m, a, 1)[0]!.kind, REQUEST)
    assert.equal(completionsOf(m, b, 1)[0]!.bytes, 8)
  })

  it('end when the initiator is idle, destroyed or reset, and begin again', () => {
    const { m, a, dci, write } = start()
    const rows = rowsOf(m, 1)
    for (const end of [() => pass(m, 2 * DcTime.IDLE), () => dci.reset(), () => pass(m, 2 * DcTime.IDLE)]) {
      write(0)
      completionsOf(m, a, 1)
      assert.equal(rowsOf(m, 1), rows + 1)
      end()
      pass(m, 10)
      assert.equal(rowsOf(m, 1), rows)
      if (end.toString().includes('reset')) dci.start()
    }
    write(1)
    pass(m, 1)
    dci.destroy()
    pass(m, 10)
    assert.equal(rowsOf(m, 1), rows)
    assert.equal(Math.min(...m.devices.map(device => device.nextTimeout())), Number.POSITIVE_INFINITY)
  })

  for (const [what, end] of [
    ['initiator’s program', (_m: Machine, a: Program) => new Promise<void>(done => closeContext(a.context, done))],
    [
      'target’s program',
      (_m: Machine, _a: Program, b: Program) => new Promise<void>(done => closeContext(b.context, done)),
    ],
    ['initiator’s device', (m: Machine) => new Promise<void>(done => unregister(m.devices[0]!.device, done))],
    ['target’s device', (m: Machine) => new Promise<void>(done => unregister(m.devices[1]!.device, done))],
  ] as const)
    it(`end with the ${what}`, async () => {
      const { m, a, b, post } = start()
      // no receive is posted: the SEND waits at the responder
      post(0, { opcode: SEND, data: [a.element(0, 8)] })
      post(1, { opcode: SEND, data: [a.element(0, 8)] })
      pass(m, 1000)
      await end(m, a, b)
      m.devices.splice(0, 2, ...m.devices.filter(({ device }) => device.isAlive))
      pass(m, DcTime.SILENCE + 2 * DcTime.REAP)
      const ports = m.devices.map(({ device }) => (device.state as SoftState).port)
      for (const port of ports) for (const last of [1, 2]) assert.equal(port.peerOf(ipv4(last)), -1, 'a flow is open')
    })

  it('of initiators that are silent end after a time', () => {
    const { m, a, write } = start()
    const rows = rowsOf(m, 1)
    write(0)
    completionsOf(m, a, 1)
    // only the target's device goes on
    m.time.now += DcTime.SILENCE + DcTime.REAP
    m.devices[1]!.poll(m.time.now)
    assert.equal(rowsOf(m, 1), rows)
  })

  it('are made again at once if the responder of the last one has failed', () => {
    const { m, a, b, targets, dci, post, srq } = start()
    for (let i = 0; i < 8; i++) srq.receive(b.element(i * 64, 64))
    // longer than the receive
    post(0, { opcode: SEND, data: [a.element(0, 100)] })
    assert.equal(completionsOf(m, a, 1)[0]!.kind, REQUEST_ERROR)
    dci.reset()
    dci.start()
    dci.post({ opcode: SEND, destination: targets[0].destination, data: [a.element(0, 10)] })
    assert.equal(completionsOf(m, a, 1)[0]!.kind, REQUEST)
  })
})

/** A peer that sends what it likes: `count` packets of connections to `qpn` of device 1. */
const rawPeer = (m: Machine) => {
  const port = m.link.attach()
  port.addAddress(ipv4(9))
  const path = { source: ipv4(9), destination: ipv4(2), sourcePort: 4791, trafficClass: 0, hopLimit: 64, flowLabel: 0 }
  const flow = port.openFlow(path)
  const run = emptyRun()
  return (opcode: number, qpn: number, initiator: number, connection: number, key: bigint, length = 36): void => {
    let at = port.reserve(64)
    for (let turn = 0; at < 0 && turn < 100; turn++) {
      m.devices[1]!.poll(m.time.now)
      at = port.reserve(64)
    }
    const { view } = port.arena
    putBth(view, at, opcode, 0, 0xffff, qpn, 5)
    view.setUint32(at + 12, initiator)
    view.setUint32(at + 16, connection)
    view.setUint32(at + 20, 1234)
    view.setBigUint64(at + 24, key)
    port.commit(at, length, 1, length, flow)
    port.flush()
    while (port.receive(run));
    port.release()
  }
}

describe('a hostile peer', () => {
  const { DC_CONNECT, DC_ANSWER, DC_DISCONNECT, DC_KEEP } = opcodeNumber

  it('without the access key leaves nothing, and ends nobody else’s connection', () => {
    const { m, a, targets, dci, write } = start('drop=0')
    write(0)
    completionsOf(m, a, 1)
    const rows = rowsOf(m, 1)
    const send = rawPeer(m)
    const { qpn } = targets[0]
    for (let i = 0; i < 2000; i++) send(DC_CONNECT, qpn, i, i, KEY + 9n)
    for (let i = 0; i < 500; i++) send(DC_DISCONNECT, qpn, dci.qpn, i, KEY)
    for (let i = 0; i < 500; i++) send(DC_KEEP, qpn, i, i, KEY)
    for (let i = 0; i < 500; i++) send(DC_ANSWER, dci.qpn, dci.qpn, i, KEY, 28)
    for (const length of [16, 20, 24, 40]) send(DC_CONNECT, qpn, 1, 1, KEY, length)
    pass(m, 1000)
    assert.equal(rowsOf(m, 1), rows)
    write(0)
    assert.equal(completionsOf(m, a, 1)[0]!.kind, REQUEST)
  })

  it('with the key takes all connections of a target; other initiators fail or wait until it is silent', () => {
    const { m, a, targets, dci, write } = start('drop=0', { rnrRetry: 2 })
    const rows = rowsOf(m, 1)
    const send = rawPeer(m)
    for (let i = 0; i < DC_MAX_CONNECTIONS.target + 100; i++) send(DC_CONNECT, targets[0].qpn, i, 1, KEY)
    pass(m, 1000)
    assert.equal(rowsOf(m, 1), rows + DC_MAX_CONNECTIONS.target)
    write(0)
    assert.deepEqual(syndromesOf(completionsOf(m, a, 1)), [syndromes[RNR_RETRY_EXC_ERR]])
    dci.reset()
    dci.start({ rnrRetry: 7 })
    write(1)
    assert.equal(completionsOf(m, a, 1)[0]!.kind, REQUEST)
    write(0)
    assert.equal(completionsOf(m, a, 1)[0]!.kind, REQUEST)
    assert.ok(m.time.now >= DcTime.SILENCE)
    for (const target of targets) target.destroy()
    assert.equal(rowsOf(m, 1), rows - 2)
  })
})

describe('a hostile program', () => {
  it('stores random requests, changes them while they wait, and nothing crashes', () => {
    const { m, a, b, targets, dci, srq, remote } = start('drop=0')
    let seed = 5
    const random = (limit: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fff_ffff
      return (seed >>> 8) % limit
    }
    for (let i = 0; i < 20; i++) srq.receive(b.element(i * 64, 64))
    for (let round = 0; round < 300; round++) {
      const raw = Uint8Array.from({ length: random(12) * 16 }, () => random(256))
      if (random(2) === 0)
        dci.post({
          opcode: random(3) === 0 ? random(256) : RDMA_WRITE,
          destination: targets[random(2)]!.destination,
          raw,
        })
      else dci.post({ opcode: random(256), raw })
      for (let turn = 0; turn < 3; turn++) {
        m.devices[turn & 1]!.poll(m.time.now)
        a.pages.bytes[dci.sendsAt + random(64 * 64)] = random(256)
      }
      m.time.now += random(20_000)
      if (random(10) === 0) dci.ringSends(random(65_536))
      a.poll()
      if (random(4) === 0) {
        dci.reset()
        dci.start()
      }
    }
    dci.destroy()
    const good = a.queuePair('dci')
    good.start()
    good.post({ opcode: RDMA_WRITE, destination: targets[0].destination, data: [a.element(0, 8)], remote: remote(0) })
    assert.equal(completionsOf(m, a, 1)[0]!.kind, REQUEST)
  })

  it('gets errors for what targets and initiators do not have', () => {
    const { m, b, srq, targets, dci } = start()
    assert.throws(() => b.target(0, KEY), /srq/)
    assert.throws(() => targets[0].modify({ state: QpState.values.ERR }), /a target can only be destroyed/)
    assert.throws(() => targets[0].modify({ state: QpState.values.RTS }), /DCT queue pairs cannot go from RTR to RTS/)
    assert.throws(() => dci.modify({ state: QpState.values.SQD }), /DCI queue pairs cannot go from RTS to SQD/)
    assert.throws(() => srq.destroy(), /is used 2 times/)
    const { limits } = m.devices[1]!.device
    assert.equal(limits.get('dct_qp'), limits.get('rc_qp'), 'all queue pairs share one limit')
    assert.equal(limits.get('dci_qp'), limits.get('rc_qp'))
  })
})
