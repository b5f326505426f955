/*
 * Soft devices on a memory link, end to end in one process.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type EventQueue, invokeNow } from '../../../src/core/index.ts'
import { Cq } from '../../../src/spec/classes/cq.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { AsyncEventType, CqFlags, QpFlags } from '../../../src/spec/enums.ts'
import { WcFlags, WcOpcode, WcStatus } from '../../../src/spec/work.ts'
import {
  assertNothingLeft,
  connectQps,
  machine,
  makeChannel,
  makeCq,
  makeQp,
  modify,
  program,
  Qps,
  query,
  toInit,
  toRtr,
  toRts,
} from '../rxe/machine.ts'
import { completionFields, completions, makeEnd, pair, pattern, sgeOf } from '../rxe/pair.ts'
import { Flag, pollAll, postReceive, postSend, Wr } from '../rxe/provider.ts'

const { SQ_DRAINED, CQ_ERR, QP_FATAL, QP_ACCESS_ERR } = AsyncEventType.values
const { SUCCESS, REM_ACCESS_ERR, LOC_QP_OP_ERR } = WcStatus.values
const { RDMA_WRITE, RDMA_READ, COMP_SWAP, FETCH_ADD, RECV, RECV_RDMA_WITH_IMM } = WcOpcode.values

const { WITH_IMM } = WcFlags.values
const UNKNOWN_OPCODE = 77

for (const devices of [
  [0, 1],
  [0, 0],
] as const) {
  const deviceCount = devices[1] === 0 ? 'one device' : 'two devices'

  test(`${deviceCount}: SEND and SEND with immediate are gathered and scattered`, () => {
    const { m, a, b } = pair(devices)
    pattern(a.mr.bytes, 3)
    postReceive(b.qp.receive, 100n, [sgeOf(b.mr, 0, 1000), sgeOf(b.mr, 5000, 9000)])
    postReceive(b.qp.receive, 101n, [sgeOf(b.mr, 40000, 100)])
    postSend(a.qp.send, { opcode: Wr.SEND, id: 1n, sges: [sgeOf(a.mr, 10, 3000), sgeOf(a.mr, 20000, 4001)] })
    postSend(a.qp.send, { opcode: Wr.SEND_IMM, id: 2n, imm: 0x01020304, sges: [sgeOf(a.mr, 7, 100)] })
    m.settle()
    assert.deepEqual(completions(a.cq), [
      { id: 1, status: SUCCESS, opcode: WcOpcode.values.SEND, bytes: 7001 },
      { id: 2, status: SUCCESS, opcode: WcOpcode.values.SEND, bytes: 100 },
    ])
    const received = pollAll(b.cq.ring)
    assert.deepEqual(received.map(completionFields), [
      { id: 100, status: SUCCESS, opcode: RECV, bytes: 7001 },
      { id: 101, status: SUCCESS, opcode: RECV, bytes: 100 },
    ])
    assert.deepEqual(
      received.map(({ qpn, flags, port }) => ({ qpn, withImm: flags & WITH_IMM, port })),
      [
        { qpn: b.qp.qpn, withImm: 0, port: 1 },
        { qpn: b.qp.qpn, withImm: WITH_IMM, port: 1 },
      ],
    )
    assert.equal(received[1].imm, 0x01020304)
    const sent = [...a.mr.bytes.subarray(10, 3010), ...a.mr.bytes.subarray(20000, 24001)]
    const scattered = [...b.mr.bytes.subarray(0, 1000), ...b.mr.bytes.subarray(5000, 11001)]
    assert.deepEqual(scattered, sent)
    assert.deepEqual(b.mr.bytes.subarray(40000, 40100), a.mr.bytes.subarray(7, 107))
    for (const at of [1000, 4999, 11001, 39999, 40100]) assert.equal(b.mr.bytes[at], 0, `byte ${at} is untouched`)
  })

  test(`${deviceCount}: WRITE, WRITE with immediate and READ transfer data`, () => {
    const { m, a, b } = pair(devices)
    pattern(a.mr.bytes, 5)
    const data = Uint8Array.from({ length: 64 }, (_, i) => 200 - i)
    postReceive(b.qp.receive, 7n, [])
    postSend(a.qp.send, {
      opcode: Wr.WRITE,
      id: 1n,
      sges: [sgeOf(a.mr, 0, 30000)],
      remote: b.mr.address + 99,
      rkey: b.mr.rkey,
    })
    postSend(a.qp.send, {
      opcode: Wr.WRITE_IMM,
      id: 2n,
      imm: 5,
      inline: data,
      remote: b.mr.address + 50000,
      rkey: b.mr.rkey,
    })
    postSend(a.qp.send, {
      opcode: Wr.READ,
      id: 3n,
      sges: [sgeOf(a.mr, 40000, 20000)],
      remote: b.mr.address + 99,
      rkey: b.mr.rkey,
    })
    m.settle()
    assert.deepEqual(completions(a.cq), [
      { id: 1, status: SUCCESS, opcode: RDMA_WRITE, bytes: 30000 },
      { id: 2, status: SUCCESS, opcode: RDMA_WRITE, bytes: 64 },
      { id: 3, status: SUCCESS, opcode: RDMA_READ, bytes: 20000 },
    ])
    assert.deepEqual(completions(b.cq), [{ id: 7, status: SUCCESS, opcode: RECV_RDMA_WITH_IMM, bytes: 64 }])
    assert.deepEqual(b.mr.bytes.subarray(99, 30099), a.mr.bytes.subarray(0, 30000))
    assert.deepEqual(b.mr.bytes.subarray(50000, 50064), data)
    assert.deepEqual(a.mr.bytes.subarray(40000, 60000), a.mr.bytes.subarray(0, 20000))
  })

  test(`${deviceCount}: CMP_SWAP and FETCH_ADD change the remote word`, () => {
    const { m, a, b } = pair(devices)
    const remoteView = new DataView(b.mr.bytes.buffer)
    remoteView.setBigUint64(8, 0xffff_ffff_ffff_fff0n, true)
    const postAtomic = (id: bigint, opcode: number, compareAdd: bigint, swap = 0n) =>
      postSend(a.qp.send, {
        opcode,
        id,
        compareAdd,
        swap,
        sges: [sgeOf(a.mr, Number(id) * 8, 8)],
        remote: b.mr.address + 8,
        rkey: b.mr.rkey,
      })
    postAtomic(1n, Wr.FAA, 0x20n)
    postAtomic(2n, Wr.CAS, 0x10n, 77n)
    postAtomic(3n, Wr.CAS, 0x10n, 88n)
    m.settle()
    assert.deepEqual(
      completions(a.cq).map(({ id, status, opcode }) => [id, status, opcode]),
      [
        [1, SUCCESS, FETCH_ADD],
        [2, SUCCESS, COMP_SWAP],
        [3, SUCCESS, COMP_SWAP],
      ],
    )
    const localView = new DataView(a.mr.bytes.buffer)
    assert.deepEqual(
      [8, 16, 24].map(at => localView.getBigUint64(at, true)),
      [0xffff_ffff_ffff_fff0n, 0x10n, 77n],
    )
    assert.equal(remoteView.getBigUint64(8, true), 77n)
  })
}

test('unsignaled requests complete without a CQE, unless the queue pair signals all; an error has a CQE', () => {
  const { m, a, b } = pair()
  for (let i = 0; i < 3; i++) {
    postReceive(b.qp.receive, 0n, [])
    postSend(a.qp.send, { opcode: Wr.SEND, id: BigInt(i), flags: i === 2 ? Flag.SIGNALED : 0 })
  }
  m.settle()
  assert.deepEqual(
    completions(a.cq).map(({ id }) => id),
    [2],
  )
  assert.equal(a.qp.send.consumer, 3, 'slots are free again')
  postSend(a.qp.send, { opcode: UNKNOWN_OPCODE, id: 9n, flags: 0 })
  m.settle()
  assert.deepEqual(
    completions(a.cq).map(({ id, status }) => [id, status]),
    [[9, LOC_QP_OP_ERR]],
  )
  const allSignaled = makeQp(a.p, a.cq, { flags: QpFlags.values.SQ_SIG_ALL })
  const receiver = makeQp(b.p, b.cq)
  connectQps(allSignaled, receiver)
  assert.deepEqual([query(allSignaled).sqSigAll, query(receiver).sqSigAll], [1, 0])
  postReceive(receiver.receive, 0n, [])
  postSend(allSignaled.send, { opcode: Wr.SEND, id: 5n, flags: 0 })
  m.settle()
  assert.deepEqual(
    completions(a.cq).map(({ id }) => id),
    [5],
  )
})

test('RESET discards requests and completes none of them; the queue pair works again', () => {
  const { m, a, b } = pair()
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 5; i++) postSend(a.qp.send, { opcode: Wr.SEND, id: 1n })
    postReceive(a.qp.receive, 2n, [])
    m.settle()
    modify(a.qp, { state: Qps.RESET })
    modify(b.qp, { state: Qps.RESET })
    assert.deepEqual([a.qp.send.producer, a.qp.send.consumer, a.qp.receive.producer], [0, 0, 0])
    m.settle()
    assert.deepEqual(completions(a.cq), [])
    connectQps(a.qp, b.qp)
    postReceive(b.qp.receive, 3n, [])
    postSend(a.qp.send, { opcode: Wr.SEND, id: 4n })
    m.settle()
    assert.deepEqual(
      [...completions(a.cq), ...completions(b.cq)].map(({ id, status }) => [id, status]),
      [
        [4, SUCCESS],
        [3, SUCCESS],
      ],
    )
  }
})

test('SQ_DRAINED is raised only if the transition to SQD requests it', () => {
  const m = machine()
  const a = makeEnd(m, 0)
  connectQps(a.qp, makeEnd(m, 1).qp)
  const drained = () => a.p.async.queue.filter(({ type }) => type === SQ_DRAINED).length
  modify(a.qp, { state: Qps.SQD })
  m.settle()
  assert.equal(drained(), 0)
  modify(a.qp, { state: Qps.RTS })
  modify(a.qp, { state: Qps.SQD, enSqdAsyncNotify: 1 })
  m.settle()
  assert.equal(drained(), 1)
})

test('requests posted before RTS or in SQD wait for RTS', () => {
  const m = machine()
  const a = makeEnd(m, 0)
  const b = makeEnd(m, 1)
  postSend(a.qp.send, { opcode: Wr.SEND, id: 1n })
  m.settle()
  modify(a.qp, toInit())
  modify(a.qp, toRtr(b.qp.qpn, b.p.rxe.device.state.identity.gids[1]))
  m.settle()
  assert.equal(m.devices[0].device.state.port.counters.sentPackets, 0)
  modify(b.qp, toInit())
  postReceive(b.qp.receive, 2n, [])
  modify(b.qp, toRtr(a.qp.qpn, a.p.rxe.device.state.identity.gids[1]))
  modify(a.qp, toRts())
  m.settle()
  assert.deepEqual(
    completions(a.cq).map(({ id, status }) => [id, status]),
    [[1, SUCCESS]],
  )
  assert.equal(completions(b.cq).length, 1, 'a receiver in RTR responds')
  modify(a.qp, { state: Qps.SQD })
  postSend(a.qp.send, { opcode: Wr.SEND, id: 3n })
  postReceive(b.qp.receive, 4n, [])
  m.settle()
  assert.deepEqual(completions(a.cq), [])
  modify(a.qp, { state: Qps.RTS })
  m.settle()
  assert.deepEqual(
    completions(a.cq).map(({ id, status }) => [id, status]),
    [[3, SUCCESS]],
  )
})

/** Queued events, as a program reads them. */
const recordsOf = ({ queue }: EventQueue): string[] => queue.map(({ bytes }) => Buffer.from(bytes).toString('hex'))

test('completion events: one per arming, with the CQ’s user handle; solicited only on request', () => {
  const m = machine()
  const p = program(m)
  const channel = makeChannel(p)
  const cq = makeCq(p, 31, channel.fd, 0x1122334455667788n)
  const [a, b] = [makeQp(p, cq), makeQp(p, makeCq(p))]
  connectQps(a, b)
  const arm = (args: { solicitedOnly: 0 | 1 }) => invokeNow(p.context, Cq, 'reqNotify', cq.handle, args, p.caller)
  const eventsAfterSend = (flags = 0) => {
    postReceive(a.receive, 1n, [])
    postSend(b.send, { opcode: Wr.SEND, flags })
    m.settle()
    return channel.queue.queue.length
  }
  assert.equal(eventsAfterSend(), 0, 'not armed')
  arm({ solicitedOnly: 0 })
  assert.equal(eventsAfterSend(), 1)
  assert.equal(eventsAfterSend(), 1, 'disarmed')
  assert.deepEqual(recordsOf(channel.queue), ['8877665544332211'])
  arm({ solicitedOnly: 1 })
  assert.equal(eventsAfterSend(), 1, 'not solicited')
  assert.equal(eventsAfterSend(Flag.SOLICITED), 2)
  arm({ solicitedOnly: 1 })
  modify(a, { state: Qps.ERR })
  postReceive(a.receive, 1n, [])
  m.settle()
  assert.equal(channel.queue.queue.length, 3, 'a failed completion counts as solicited')
  // destroy discards unread events, so the program has no event to acknowledge
  invokeNow(p.context, RcQp, 'destroy', a.handle, {}, p.caller)
  const { compEvents, asyncEvents } = invokeNow(p.context, Cq, 'destroy', cq.handle, {}, p.caller).out
  assert.deepEqual([compEvents, asyncEvents, channel.queue.queue.length], [0, 0, 0])
  p.close()
  assertNothingLeft(m, [p])
})

test('a CQ overrun is reported once, and a queue pair of the CQ moves to ERR; queue pairs of other CQs continue', () => {
  const { m, a, b } = pair()
  const small = makeCq(a.p, 1)
  const other = makeCq(a.p, 31)
  const qp = makeQp(a.p, small, { recvCq: other })
  const receiver = makeQp(b.p, b.cq)
  connectQps(qp, receiver)
  for (let i = 0; i < 4; i++) {
    postReceive(receiver.receive, 1n, [])
    postSend(qp.send, { opcode: Wr.SEND, id: BigInt(i) })
  }
  m.settle()
  assert.equal(pollAll(small.ring).length, 1)
  assert.deepEqual(
    a.p.async.queue.map(({ type }) => type),
    [CQ_ERR, QP_FATAL],
  )
  assert.deepEqual([query(qp).state, query(receiver).state], [Qps.ERR, Qps.RTS])
  assert.equal(completions(b.cq).length, 4)
  postReceive(b.qp.receive, 1n, [])
  postSend(a.qp.send, { opcode: Wr.SEND, id: 8n })
  m.settle()
  assert.equal(completions(a.cq).length, 1, 'a queue pair of another CQ continues')
})

test('a CQ that ignores overruns loses completions without an error, and takes others when there is room', () => {
  const { m, a, b } = pair()
  const small = makeCq(a.p, 1, undefined, 0n, CqFlags.values.IGNORE_OVERRUN)
  const qp = makeQp(a.p, small)
  const receiver = makeQp(b.p, b.cq)
  connectQps(qp, receiver)
  const sendAll = (ids: readonly bigint[]): bigint[] => {
    for (const id of ids) {
      postReceive(receiver.receive, id, [])
      postSend(qp.send, { opcode: Wr.SEND, id })
    }
    m.settle()
    return pollAll(small.ring).map(({ id }) => id)
  }
  assert.deepEqual([sendAll([1n, 2n, 3n]), sendAll([4n])], [[1n], [4n]])
  assert.deepEqual([a.p.async.queue.length, query(qp).state], [0, Qps.RTS])
})

test('a CQ overrun by the flush of a queue pair that is then reset leaves the queue pair in RESET', () => {
  const { m, a } = pair()
  const small = makeCq(a.p, 1)
  const qp = makeQp(a.p, a.cq, { recvCq: small })
  modify(qp, toInit())
  for (let i = 0; i < 4; i++) postReceive(qp.receive, BigInt(i), [])
  modify(qp, { state: Qps.ERR })
  modify(qp, { state: Qps.RESET })
  m.settle()
  assert.deepEqual(
    a.p.async.queue.map(({ type }) => type),
    [CQ_ERR],
  )
  assert.equal(query(qp).state, Qps.RESET)
})

test('a wrong remote key ends the connection: status at the requester, event at the responder, both in ERR', () => {
  const { m, a, b } = pair()
  postSend(a.qp.send, {
    opcode: Wr.WRITE,
    id: 1n,
    sges: [sgeOf(a.mr, 0, 8)],
    remote: b.mr.address,
    rkey: b.mr.rkey ^ 1,
  })
  m.settle()
  assert.deepEqual(
    completions(a.cq).map(({ id, status }) => [id, status]),
    [[1, REM_ACCESS_ERR]],
  )
  assert.deepEqual([query(a.qp).state, query(b.qp).state], [Qps.ERR, Qps.ERR])
  assert.equal(b.p.async.queue.length, 1)
  assert.equal(b.p.async.queue[0].type, QP_ACCESS_ERR)
})

test('the device reports work until very many WQEs are flushed', () => {
  const WQES = 30_000
  const m = machine()
  const [a, b] = [program(m, 0), program(m, 1)]
  const cq = makeCq(a, 32_767)
  const qp = makeQp(a, cq, { cap: { maxSendWr: WQES } })
  connectQps(qp, makeQp(b, makeCq(b, 7)))
  m.settle()
  for (let i = 0; i < WQES; i++) postSend(qp.send, { opcode: Wr.SEND, id: BigInt(i), sges: [] })
  modify(qp, { state: Qps.ERR })
  m.settle()
  assert.equal(pollAll(cq.ring).length, WQES)
})
