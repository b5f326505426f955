/*
 * A message of an unacknowledged service may consume a receive of an SRQ and then be dropped (IBA 9.8.2.2, 10.2.9). The
 * receive stays with its queue pair: the next message uses it, ERR flushes it, and reset or destruction discards it.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { invokeNow } from '../../../../src/core/index.ts'
import { Ah } from '../../../../src/spec/classes/ah.ts'
import { UcQp } from '../../../../src/spec/classes/qp/uc_qp.ts'
import { UdQp } from '../../../../src/spec/classes/qp/ud_qp.ts'
import { AsyncEventType, Mtu } from '../../../../src/spec/enums.ts'
import { WcStatus } from '../../../../src/spec/work.ts'
import {
  cap,
  machine,
  makeCq,
  type Program,
  path,
  program,
  Qps,
  register,
  type TestCq,
  toInit,
} from '../../rxe/machine.ts'
import { completions, sgeOf } from '../../rxe/pair.ts'
import { type MappedRing, mapRing, postReceive, postSend, Wr } from '../../rxe/provider.ts'
import { makeSrq, type TestSrq } from '../../rxe/srq-and-xrc.ts'

const { SUCCESS, WR_FLUSH_ERR } = WcStatus.values
const LAST_WQE_REACHED = AsyncEventType.values.QP_LAST_WQE_REACHED
const MTU = 1024
const QKEY = 0x77

interface Qp {
  readonly handle: number
  readonly qpn: number
  readonly send: MappedRing
}

const makeQp = (p: Program, cls: typeof UcQp | typeof UdQp, cq: TestCq, srq?: TestSrq): Qp => {
  const queues = { sendCq: cq.handle, recvCq: cq.handle, ...(srq !== undefined && { srq: srq.handle }) }
  const args = { pd: p.pd, ...queues, cap: cap(), userHandle: 1n }
  const { object, out } = invokeNow(p.context, cls, 'create', 0, args, p.caller)
  const { sendQueue } = out as unknown as { sendQueue: { offset: bigint } }
  return { handle: object!, qpn: out.qpNum, send: mapRing(p.rings.at(sendQueue.offset)) }
}

/** Two programs. `postReceives` posts to the SRQ of `b`, with IDs from 1. */
const setUp = (fault: string) => {
  const m = machine(2, { fault })
  const [a, b] = [program(m, 0), program(m, 1)]
  const [cqA, cqB] = [makeCq(a), makeCq(b)]
  const [mrA, mrB] = [register(a, 8192), register(b, 0x1_0000)]
  const srq = makeSrq(b, { maxWr: 15 })
  let id = 1
  const postReceives = (count: number, length: number): void => {
    for (let i = 0; i < count; i++, id++)
      assert.ok(postReceive(srq.ring, BigInt(id), [sgeOf(mrB, (id - 1) * 4096, length)]))
  }
  return { m, a, b, cqA, cqB, mrA, srq, postReceives }
}

test('a WQE consumed by an incomplete UC message serves the next message of its queue pair', () => {
  const { m, a, b, cqA, cqB, mrA, srq, postReceives } = setUp('opcode=UC_SEND_LAST,drop=100%')
  const gid = (p: Program): Uint8Array => p.rxe.device.state.identity.gids[1]
  const connect = (p: Program, { handle }: Qp, destQpn: number, dgid: Uint8Array): void => {
    const modify = (args: Parameters<typeof invokeNow<typeof UcQp, 'modify'>>[4]): void => {
      invokeNow(p.context, UcQp, 'modify', handle, args, p.caller)
    }
    modify(toInit())
    modify({ state: Qps.RTR, address: path(dgid), pathMtu: Mtu.values.MTU_1024, destQpn, rqPsn: 0 })
    modify({ state: Qps.RTS, sqPsn: 0 })
  }
  const senders = [makeQp(a, UcQp, cqA), makeQp(a, UcQp, cqA)]
  const receivers = [makeQp(b, UcQp, cqB, srq), makeQp(b, UcQp, cqB, srq)]
  senders.forEach((qp, i) => {
    connect(a, qp, receivers[i].qpn, gid(b))
    connect(b, receivers[i], qp.qpn, gid(a))
  })
  /** Sends on pair 0 or 1. Of a message of two packets, only the first packet arrives. */
  const send = (pair: number, length: number): void => {
    assert.ok(postSend(senders[pair].send, { opcode: Wr.SEND, id: 9n, sges: [sgeOf(mrA, 0, length)] }))
    m.settle()
  }
  const received = () => completions(cqB).map(({ id, status, bytes }) => [id, status, bytes])
  postReceives(5, 4096)
  send(0, MTU + 1)
  assert.deepEqual(received(), [])
  // receiver 1 takes WQE 2; receiver 0 keeps WQE 1
  send(1, 10)
  assert.deepEqual(received(), [[2, SUCCESS, 10]])
  // receiver 0 takes WQE 1 for an incomplete message again, and then for a complete one
  send(0, MTU + 2)
  send(0, 20)
  assert.deepEqual(received(), [[1, SUCCESS, 20]])
  // in ERR, WQE 3 is flushed before LAST_WQE_REACHED
  send(0, MTU + 1)
  b.async.queue.length = 0
  invokeNow(b.context, UcQp, 'modify', receivers[0].handle, { state: Qps.ERR }, b.caller)
  m.settle()
  assert.deepEqual(received(), [[3, WR_FLUSH_ERR, 0]])
  assert.deepEqual(
    b.async.queue.map(({ type }) => type),
    [LAST_WQE_REACHED],
  )
  // RESET discards WQE 4
  send(1, MTU + 1)
  invokeNow(b.context, UcQp, 'modify', receivers[1].handle, { state: Qps.RESET }, b.caller)
  connect(b, receivers[1], senders[1].qpn, gid(a))
  send(1, 30)
  assert.deepEqual(received(), [[5, SUCCESS, 30]])
  // destruction of the queue pair discards WQE 6; a new queue pair in the same row takes WQE 7
  postReceives(2, 4096)
  send(1, MTU + 1)
  invokeNow(b.context, UcQp, 'destroy', receivers[1].handle, {}, b.caller)
  receivers[1] = makeQp(b, UcQp, cqB, srq)
  senders[1] = makeQp(a, UcQp, cqA)
  connect(a, senders[1], receivers[1].qpn, gid(b))
  connect(b, receivers[1], senders[1].qpn, gid(a))
  send(1, 40)
  assert.deepEqual(received(), [[7, SUCCESS, 40]])
})

test('a WQE that is too short for a datagram serves the next datagram of its queue pair', () => {
  const { m, a, b, cqA, cqB, mrA, srq, postReceives } = setUp('')
  const toRts = (p: Program, qp: Qp): Qp => {
    const modify = (args: Parameters<typeof invokeNow<typeof UdQp, 'modify'>>[4]): void => {
      invokeNow(p.context, UdQp, 'modify', qp.handle, args, p.caller)
    }
    modify({ state: Qps.INIT, pkeyIndex: 0, port: 1, qkey: QKEY })
    modify({ state: Qps.RTR })
    modify({ state: Qps.RTS, sqPsn: 0 })
    return qp
  }
  const sender = toRts(a, makeQp(a, UdQp, cqA))
  const receivers = [toRts(b, makeQp(b, UdQp, cqB, srq)), toRts(b, makeQp(b, UdQp, cqB, srq))]
  const address = path(b.rxe.device.state.identity.gids[1])
  const { out } = invokeNow(a.context, Ah, 'create', 0, { pd: a.pd, address, userHandle: 0n }, a.caller)
  const ah = (out as unknown as { number: number }).number
  const send = (receiver: number, length: number): void => {
    const request = { opcode: Wr.SEND, id: 9n, sges: [sgeOf(mrA, 0, length)] }
    assert.ok(postSend(sender.send, { ...request, to: { qpn: receivers[receiver].qpn, qkey: QKEY, ah } }))
    m.settle()
  }
  const received = () => completions(cqB).map(({ id, status, bytes }) => [id, status, bytes])
  postReceives(1, 100)
  postReceives(2, 1000)
  // a datagram needs 40 bytes (the GRH) more than its payload, and WQE 1 has 100 bytes
  send(0, 61)
  assert.deepEqual(received(), [])
  send(1, 61)
  assert.deepEqual(received(), [[2, SUCCESS, 101]])
  send(0, 60)
  assert.deepEqual(received(), [[1, SUCCESS, 100]])
  send(0, 61)
  assert.deepEqual(received(), [[3, SUCCESS, 101]])
})
