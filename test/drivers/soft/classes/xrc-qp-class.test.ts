/*
 * XRC domains, SRQs and queue pairs of the soft device.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addFailureHandler } from '../../../../src/core/failures.ts'
import { invokeNow } from '../../../../src/core/index.ts'
import { createTorment, type Torment } from '../../../../src/drivers/soft/torment/torment.ts'
import { Pd } from '../../../../src/spec/classes/pd.ts'
import { XrcIniQp, XrcTgtQp } from '../../../../src/spec/classes/qp/xrc_qp.ts'
import { XrcSrq } from '../../../../src/spec/classes/srq.ts'
import { AsyncEventType, XrcdFlags } from '../../../../src/spec/enums.ts'
import { SRQN_SHIFT, WcStatus } from '../../../../src/spec/work.ts'
import { plainArena } from '../../../../src/transport/wire/arena.ts'
import { errnoOf } from '../../../core/fixture.ts'
import { assertNothingLeft, machine, makeCq, type Program, program, Qps, register } from '../../rxe/machine.ts'
import { completions, sgeOf } from '../../rxe/pair.ts'
import { Flag, pollAll, postReceive, postSend, type SendRequest, Wr } from '../../rxe/provider.ts'
import {
  closeDomain,
  connectInitiator,
  connectXrc,
  destroyTarget,
  makeInitiator,
  makeTarget,
  makeXrcSrq,
  openDomain,
  queryTarget,
  type TestSrq,
} from '../../rxe/srq-and-xrc.ts'

const { CREAT, EXCL } = XrcdFlags.values
const { QP_FATAL, QP_REQ_ERR, QP_ACCESS_ERR, QP_LAST_WQE_REACHED } = AsyncEventType.values
const { SUCCESS, REM_INV_REQ_ERR, REM_ACCESS_ERR } = WcStatus.values
/** Descriptor of an open file (machine.ts). A file identifies an XRC domain. */
const FILE = 0x100

/**
 * A sender on device 0 and a receiver with two SRQs, each in its own protection domain, on device 1. `send` sends to
 * the SRQ with number `srqn`.
 */
const setUp = (torment?: Torment) => {
  const m = machine(2, { torment })
  const a = program(m, 0)
  const b = program(m, 1)
  const [cqA, cqB, cqC] = [makeCq(a), makeCq(b), makeCq(b)]
  const [mrA, mrB] = [register(a, 8192), register(b, 8192)]
  const xrcd = openDomain(b, FILE)
  const otherPd = invokeNow(b.context, Pd, 'create', 0, {}, b.caller).object!
  const srq = makeXrcSrq(b, xrcd, cqB)
  const otherSrq = makeXrcSrq(b, xrcd, cqC, otherPd)
  const ini = makeInitiator(a, cqA)
  const tgt = makeTarget(b, xrcd)
  connectXrc(ini, tgt)
  const send = (srqn: number, request: Partial<SendRequest> = {}): void => {
    const flags = (request.flags ?? Flag.SIGNALED) | (srqn << SRQN_SHIFT)
    assert.ok(postSend(ini.send, { opcode: Wr.SEND, sges: [sgeOf(mrA, 0, 50)], ...request, flags }))
    m.settle()
  }
  const receive = (srq: TestSrq, id: number, length = 100): void => {
    assert.ok(postReceive(srq.ring, BigInt(id), [sgeOf(mrB, 0, length)]))
  }
  const close = (...others: Program[]): void => {
    for (const p of [a, b, ...others]) p.close()
    assertNothingLeft(m, [a, b, ...others])
  }
  return { m, a, b, cqA, cqB, cqC, mrA, mrB, xrcd, srq, otherSrq, otherPd, ini, tgt, send, receive, close }
}

const asyncEvents = (p: Program): number[] => p.async.queue.splice(0).map(({ type }) => type)

test('a request consumes a WQE of the SRQ that it names, and completes to the CQ of the SRQ', () => {
  const { cqA, cqB, mrA, mrB, srq, tgt, send, receive, close } = setUp()
  receive(srq, 1)
  mrA.bytes.fill(9, 0, 50)
  send(srq.number)
  assert.deepEqual(
    pollAll(cqB.ring).map(({ id, status, bytes, qpn }) => [Number(id), status, bytes, qpn]),
    [[1, SUCCESS, 50, tgt.qpn]],
  )
  assert.equal(mrB.bytes[49], 9)
  assert.deepEqual(
    completions(cqA).map(({ status }) => status),
    [SUCCESS],
  )
  close()
})

test('under torment, a request succeeds if its receive completed before the target was destroyed', () => {
  for (let seed = 0; seed < 20; seed++) {
    const torment = createTorment({ seed, maxDecisions: Number.POSITIVE_INFINITY }, plainArena(4096))
    const { m, cqA, cqB, srq, tgt, send, receive } = setUp(torment)
    receive(srq, 1)
    send(srq.number)
    while (completions(cqB).length === 0) assert.ok(m.tick())
    destroyTarget(tgt)
    m.settle()
    while (m.tick());
    assert.deepEqual(
      completions(cqA).map(({ status }) => status),
      [SUCCESS],
      `seed ${seed}`,
    )
  }
})

test('a request of an initiator that was reset alone is reported, once, if the target takes it for a duplicate', () => {
  const { m, a, mrB, srq, ini, tgt, send } = setUp()
  const reported: string[] = []
  addFailureHandler(m.core, ({ kind, wrId, cause }) => reported.push(`${kind} ${wrId} ${cause.id}`))
  const write = { opcode: Wr.WRITE, remote: mrB.address, rkey: mrB.rkey }
  for (const id of [1n, 2n]) send(srq.number, { ...write, id })
  const reset = { state: Qps.RESET }
  invokeNow(a.context, XrcIniQp, 'modify', ini.handle, reset, a.caller)
  connectInitiator(ini, tgt)
  for (const id of [3n, 4n, 5n]) send(srq.number, { ...write, id })
  assert.deepEqual(reported, ['unexecuted 3 PSN_DIFFERS'])
})

test('the SRQ that a request names decides the protection domain', () => {
  const { b, cqA, cqC, mrB, srq, otherSrq, send, receive, close } = setUp()
  const write = { opcode: Wr.WRITE, remote: mrB.address, rkey: mrB.rkey }
  send(srq.number, write)
  assert.deepEqual(
    completions(cqA).map(({ status }) => status),
    [SUCCESS],
  )
  // the region is not in the protection domain of `otherSrq`
  receive(otherSrq, 1)
  send(otherSrq.number, write)
  assert.deepEqual(
    completions(cqA).map(({ status }) => status),
    [REM_ACCESS_ERR],
  )
  assert.deepEqual(completions(cqC), [])
  assert.deepEqual(asyncEvents(b), [QP_LAST_WQE_REACHED, QP_ACCESS_ERR])
  close()
})

test('concurrent READs of two protection domains each use the domain of their SRQ', () => {
  const { m, b, cqA, mrA, mrB, srq, otherSrq, otherPd, ini, close } = setUp()
  const mrOther = register({ ...b, pd: otherPd }, 4096)
  mrB.bytes.fill(3)
  mrOther.bytes.fill(4)
  const read = (srqn: number, source: { address: number; rkey: number }, offset: number): void => {
    const request = { opcode: Wr.READ, sges: [sgeOf(mrA, offset, 3000)], remote: source.address, rkey: source.rkey }
    assert.ok(postSend(ini.send, { ...request, flags: Flag.SIGNALED | (srqn << SRQN_SHIFT) }))
  }
  read(srq.number, mrB, 0)
  read(otherSrq.number, mrOther, 3000)
  m.settle()
  assert.deepEqual(
    completions(cqA).map(({ status }) => status),
    [SUCCESS, SUCCESS],
  )
  assert.deepEqual([mrA.bytes[0], mrA.bytes[2999], mrA.bytes[3000], mrA.bytes[5999]], [3, 3, 4, 4])
  close()
})

test('requests for an unknown SRQ, an SRQ of another domain or a destroyed SRQ are invalid', () => {
  for (const kind of ['unknown', 'other domain', 'destroyed'] as const) {
    const { b, cqA, cqB, srq, send, close } = setUp()
    let srqn = 0x77
    if (kind === 'other domain') srqn = makeXrcSrq(b, openDomain(b), cqB).number
    if (kind === 'destroyed') {
      invokeNow(b.context, XrcSrq, 'destroy', srq.handle, {}, b.caller)
      srqn = srq.number
    }
    send(srqn)
    assert.deepEqual(
      completions(cqA).map(({ status }) => status),
      [REM_INV_REQ_ERR],
      kind,
    )
    assert.deepEqual(asyncEvents(b), [QP_LAST_WQE_REACHED, QP_REQ_ERR], kind)
    close()
  }
})

test('a domain belongs to its file, and exists as long as a context has it open', () => {
  const m = machine()
  const [p, q] = [program(m), program(m)]
  const open = (opener: Program, file: number | undefined, flags: number) =>
    errnoOf(() => openDomain(opener, file, flags))
  assert.equal(open(p, FILE, 0), 'EAGAIN', 'there is no domain yet')
  for (const flags of [0, CREAT, EXCL, CREAT | EXCL])
    assert.equal(open(p, undefined, flags), 'ok', 'a domain without a file')
  const notOpen = 3
  assert.equal(open(p, notOpen, CREAT), 'EBADF')
  const unknownFlag = 1
  assert.equal(open(p, FILE, unknownFlag), 'EINVAL')
  const domainOfP = openDomain(p, FILE, CREAT | EXCL)
  const domainOfQ = openDomain(q, FILE, 0)
  assert.equal(open(q, FILE, CREAT | EXCL), 'EINVAL')
  const { domains } = m.devices[0].device.state
  assert.equal(domains.size, 1)
  assert.equal(
    errnoOf(() => makeTarget(q, openDomain(q), makeTarget(p, domainOfP).qpn)),
    'EINVAL',
    'a target of another domain',
  )
  const tgt = makeTarget(p, domainOfP)
  assert.equal(makeTarget(q, domainOfQ, tgt.qpn).qpn, tgt.qpn)
  assert.equal(
    errnoOf(() => closeDomain(p, domainOfP)),
    'EBUSY',
  )
  p.close()
  assert.equal(open(q, FILE, 0), 'ok')
  q.close()
  assert.equal(domains.size, 0)
  assertNothingLeft(m, [p, q])
})

test('a target is one queue pair for all processes that opened it, and exists until the last process closes it', () => {
  const { m, b, cqA, ini, tgt, send, close } = setUp()
  const c = program(m, 1)
  const cq = makeCq(c)
  const mr = register(c, 4096)
  const xrcd = openDomain(c, FILE, 0)
  const opened = makeTarget(c, xrcd, tgt.qpn)
  const srq = makeXrcSrq(c, xrcd, cq)
  assert.equal(queryTarget(opened).state, Qps.RTS)
  assert.equal(queryTarget(opened).destQpn, ini.qpn)
  postReceive(srq.ring, 1n, [sgeOf(mr, 0, 100)])
  postReceive(srq.ring, 2n, [sgeOf(mr, 0, 100)])
  send(srq.number)
  assert.deepEqual(
    completions(cq).map(({ id }) => id),
    [1],
  )
  assert.deepEqual(destroyTarget(tgt), { events: 0 })
  send(srq.number)
  assert.deepEqual(
    completions(cq).map(({ id }) => id),
    [2],
  )
  invokeNow(c.context, XrcTgtQp, 'modify', opened.handle, { state: Qps.ERR }, c.caller)
  assert.deepEqual(asyncEvents(c), [QP_LAST_WQE_REACHED])
  assert.deepEqual(asyncEvents(b), [])
  destroyTarget(opened)
  assert.deepEqual(
    completions(cqA).map(({ status }) => status),
    [SUCCESS, SUCCESS],
  )
  assert.equal(m.devices[1].device.state.qpns.rowOf(tgt.qpn), -1)
  close(c)
})

test('events of a target go to all processes that opened it; its state is kept when one process ends', () => {
  const m = machine()
  const [p, q] = [program(m), program(m)]
  const tgt = makeTarget(p, openDomain(p, FILE))
  const opened = makeTarget(q, openDomain(q, FILE), tgt.qpn)
  invokeNow(p.context, XrcTgtQp, 'modify', tgt.handle, { state: Qps.ERR }, p.caller)
  assert.deepEqual([asyncEvents(p), asyncEvents(q)], [[QP_LAST_WQE_REACHED], [QP_LAST_WQE_REACHED]])
  assert.equal(queryTarget(opened).state, Qps.ERR)
  p.close()
  assert.equal(queryTarget(opened).state, Qps.ERR)
  q.close()
  assertNothingLeft(m, [p, q])
})

test('a lost completion of a target is an event of all processes that opened it', () => {
  const { m, b, xrcd, tgt, send, receive, close } = setUp()
  const c = program(m, 1)
  const opened = makeTarget(c, openDomain(c, FILE, 0), tgt.qpn)
  const cq = makeCq(b, 1)
  const srq = makeXrcSrq(b, xrcd, cq)
  for (let i = 0; i <= cq.cqe; i++) receive(srq, i)
  for (let i = 0; i <= cq.cqe; i++) send(srq.number)
  assert.ok(asyncEvents(b).includes(QP_FATAL))
  assert.deepEqual(asyncEvents(c), [QP_LAST_WQE_REACHED, QP_FATAL])
  destroyTarget(opened)
  close(c)
})

test('a request for a destroyed SRQ is invalid, and the WQEs of the SRQ leave nothing behind', () => {
  const { b, cqA, cqB, srq, mrA, receive, send, close } = setUp()
  receive(srq, 1, 8192)
  send(srq.number, { sges: [sgeOf(mrA, 0, 3000)] })
  assert.equal(completions(cqB).length, 1)
  receive(srq, 2, 8192)
  invokeNow(b.context, XrcSrq, 'destroy', srq.handle, {}, b.caller)
  send(srq.number)
  assert.deepEqual(
    completions(cqA).map(({ status }) => status),
    [SUCCESS, REM_INV_REQ_ERR],
  )
  close()
})

test('a target has no CQs or requester attributes, and refuses attributes that a transition does not take', () => {
  const { b, tgt, close } = setUp()
  assert.equal('sendCq' in XrcTgtQp.methods.create.in, false)
  assert.equal('retryCnt' in XrcTgtQp.methods.modify.in, false)
  assert.throws(() => invokeNow(b.context, XrcTgtQp, 'modify', tgt.handle, { state: Qps.RESET, port: 1 }, b.caller), {
    code: 'EINVAL',
    message: /does not take port/,
  })
  close()
})
