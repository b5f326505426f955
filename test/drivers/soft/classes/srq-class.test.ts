/*
 * Class srq of the soft device.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { invokeNow } from '../../../../src/core/index.ts'
import { Limits } from '../../../../src/drivers/soft/attributes.ts'
import { RcQp } from '../../../../src/spec/classes/qp/rc_qp.ts'
import { Srq, TmSrq } from '../../../../src/spec/classes/srq.ts'
import { AsyncEventType } from '../../../../src/spec/enums.ts'
import { errnoOf } from '../../../core/fixture.ts'
import {
  assertNothingLeft,
  cap,
  connectQps,
  machine,
  makeCq,
  makeQp,
  modify,
  program,
  Qps,
  query,
  register,
} from '../../rxe/machine.ts'
import { completions, sgeOf } from '../../rxe/pair.ts'
import { pollAll, postReceive, postSend, Wr } from '../../rxe/provider.ts'
import { makeQpWithSrq, makeSrq, modifySrq, querySrq } from '../../rxe/srq-and-xrc.ts'

const { SRQ_LIMIT_REACHED, QP_LAST_WQE_REACHED } = AsyncEventType.values

/**
 * Two senders on device 0, and two receivers with one SRQ on device 1. `postToSrq` posts a receive, `send` sends on
 * connection `i`.
 */
const setUp = () => {
  const m = machine()
  const a = program(m, 0)
  const b = program(m, 1)
  const [cqA, cqB] = [makeCq(a), makeCq(b)]
  const [mrA, mrB] = [register(a, 4096), register(b, 4096)]
  const srq = makeSrq(b, { userHandle: 77n })
  const senders = [makeQp(a, cqA), makeQp(a, cqA)]
  const receivers = [makeQpWithSrq(b, cqB, srq), makeQpWithSrq(b, cqB, srq)]
  receivers.forEach((qp, i) => {
    connectQps(senders[i], qp)
  })
  const postToSrq = (id: number): void => {
    assert.ok(postReceive(srq.ring, BigInt(id), [sgeOf(mrB, id * 100, 100)]))
  }
  const send = (i: number): void => {
    assert.ok(postSend(senders[i].send, { opcode: Wr.SEND, sges: [sgeOf(mrA, 0, 50)] }))
    m.settle()
  }
  /** Takes the asynchronous events: type and user handle of the object. */
  const asyncEvents = () => b.async.queue.splice(0).map(({ type, element }) => [type, Number(element.userHandle)])
  const close = (): void => {
    a.close()
    b.close()
    assertNothingLeft(m, [a, b])
  }
  return { m, a, b, cqA, cqB, srq, receivers, postToSrq, send, asyncEvents, close }
}

test('messages to all queue pairs consume WQEs in the order of arrival', () => {
  const { b, cqB, receivers, postToSrq, send, close } = setUp()
  for (const id of [1, 2, 3, 4]) postToSrq(id)
  for (const i of [1, 0, 0, 1]) send(i)
  const [first, second] = receivers.map(({ qpn }) => qpn)
  assert.deepEqual(
    pollAll(cqB.ring).map(({ id, qpn }) => [Number(id), qpn]),
    [
      [1, second],
      [2, first],
      [3, first],
      [4, second],
    ],
  )
  assert.equal(b.async.queue.length, 0)
  close()
})

test('the limit event is raised once, when fewer WQEs than the limit are left', () => {
  const { srq, postToSrq, send, asyncEvents, close } = setUp()
  for (const id of [1, 2, 3, 4, 5]) postToSrq(id)
  modifySrq(srq, { limit: 4 })
  send(0)
  assert.deepEqual(asyncEvents(), [])
  send(1)
  assert.deepEqual(asyncEvents(), [[SRQ_LIMIT_REACHED, 77]])
  assert.equal(querySrq(srq).limit, 0)
  send(1)
  assert.deepEqual(asyncEvents(), [])
  close()
})

test('a resize keeps the posted WQEs', () => {
  const { b, cqB, srq, postToSrq, send, close } = setUp()
  for (const id of [1, 2, 3]) postToSrq(id)
  send(0)
  modifySrq(srq, { maxWr: 50 })
  // The size of a ring is a power of two, and one element stays free.
  assert.deepEqual(querySrq(srq), { maxWr: 63, maxSge: 2, limit: 0 })
  for (const id of [4, 5]) postToSrq(id)
  for (const i of [0, 1, 0, 1]) send(i)
  assert.deepEqual(
    completions(cqB).map(({ id }) => id),
    [1, 2, 3, 4, 5],
  )
  for (const id of [6, 7, 8]) postToSrq(id)
  assert.throws(() => modifySrq(srq, { maxWr: 2 }), { code: 'EINVAL', message: /maxWr: 2 is less than the requests/ })
  assert.equal(b.rings.live.size, 1 + 1 + 2, 'rings of a CQ, an SRQ and two send queues')
  close()
})

test('a queue pair in error flushes no WQE of the SRQ, and raises LAST_WQE_REACHED', () => {
  const { cqB, receivers, postToSrq, send, asyncEvents, close } = setUp()
  for (const id of [1, 2]) postToSrq(id)
  modify(receivers[0], { state: Qps.ERR })
  // 1: the user handle of makeQpWithSrq
  assert.deepEqual(asyncEvents(), [[QP_LAST_WQE_REACHED, 1]])
  assert.deepEqual(completions(cqB), [])
  send(1)
  assert.deepEqual(
    completions(cqB).map(({ id }) => id),
    [1],
  )
  modify(receivers[0], { state: Qps.RESET })
  send(1)
  assert.deepEqual(
    completions(cqB).map(({ id }) => id),
    [2],
  )
  close()
})

test('a queue pair with an SRQ has no receive queue of its own', () => {
  const { receivers, close } = setUp()
  const { maxRecvWr, maxRecvSge } = query(receivers[0]).cap
  assert.deepEqual([maxRecvWr, maxRecvSge], [0, 0])
  assert.equal(receivers[0].cap.maxRecvWr, cap().maxRecvWr, 'create returns what was requested')
  close()
})

test('a queue pair with an SRQ may be created with any limits of a receive queue', () => {
  const { b, cqB, srq, close } = setUp()
  const qp = makeQpWithSrq(b, cqB, srq, cap({ maxRecvWr: 0xffffffff, maxRecvSge: 33 }))
  assert.deepEqual([query(qp).cap.maxRecvWr, query(qp).cap.maxRecvSge], [0, 0])
  close()
})

test('an SRQ in use cannot be destroyed', () => {
  const { b, srq, receivers, close } = setUp()
  const destroy = () => invokeNow(b.context, Srq, 'destroy', srq.handle, {}, b.caller)
  assert.equal(errnoOf(destroy), 'EBUSY')
  for (const qp of receivers) invokeNow(b.context, RcQp, 'destroy', qp.handle, {}, b.caller)
  assert.deepEqual(destroy().out, { events: 0 })
  close()
})

test('invalid sizes and limits are refused, and leave the SRQ as it was; create ignores the limit', () => {
  const m = machine()
  const p = program(m)
  const { maxSrqWr, maxSrqSge } = Limits
  assert.throws(() => makeSrq(p, { maxWr: maxSrqWr + 1 }), { code: 'EINVAL', message: /maxWr: 1048576 is above/ })
  assert.throws(() => makeSrq(p, { maxSge: maxSrqSge + 1 }), { code: 'EINVAL', message: /maxSge: 28 is above 27/ })
  assert.equal(
    errnoOf(() => makeSrq(p, { maxWr: 0 })),
    'EINVAL',
  )
  const srq = makeSrq(p, { maxWr: 20, maxSge: 0, limit: 1000 })
  assert.deepEqual(querySrq(srq), { maxWr: 31, maxSge: 1, limit: 0 })
  assert.throws(() => modifySrq(srq, { limit: 32 }), { code: 'EINVAL', message: /limit: 32 is above 31/ })
  modifySrq(srq, { limit: 31 })
  assert.throws(() => modifySrq(srq, { maxWr: 30 }), { code: 'EINVAL', message: /maxWr: 30 is below the limit, 31/ })
  assert.throws(() => modifySrq(srq, { maxWr: 40, limit: 41 }), { code: 'EINVAL', message: /limit: 41 is above 40/ })
  p.rings.allocationsLeft = 0
  assert.equal(
    errnoOf(() => makeSrq(p)),
    'ENOMEM',
  )
  assert.equal(
    errnoOf(() => modifySrq(srq, { maxWr: 100 })),
    'ENOMEM',
  )
  assert.deepEqual(querySrq(srq), { maxWr: 31, maxSge: 1, limit: 31 })
  p.close()
  assertNothingLeft(m, [p])
})

test('tag-matching SRQs are declared, but no device here supports them', () => {
  const m = machine()
  const p = program(m)
  const cq = makeCq(p)
  const args = { pd: p.pd, maxWr: 1, maxSge: 1, limit: 0, userHandle: 0n, cq: cq.handle, maxNumTags: 4 }
  const make = () => invokeNow(p.context, TmSrq, 'create', 0, args, p.caller)
  assert.throws(make, { code: 'EOPNOTSUPP', message: /this device has no tm_srq\.create/ })
})
