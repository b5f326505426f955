/*
 * The result of a call includes requests that the program posted before, although the rings were not polled in between.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { closeContext, invoke, invokeNow } from '../../../../src/core/index.ts'
import type { RingsContext } from '../../../../src/drivers/rings/context.ts'
import { SLICE_ROWS } from '../../../../src/drivers/soft/posts.ts'
import { Cq } from '../../../../src/spec/classes/cq.ts'
import { RcQp } from '../../../../src/spec/classes/qp/rc_qp.ts'
import { WcStatus } from '../../../../src/spec/work.ts'
import { errnoOf } from '../../../core/fixture.ts'
import { makeQp, modify, Qps, query } from '../../rxe/machine.ts'
import { completions, type End, pair, sgeOf } from '../../rxe/pair.ts'
import { Flag, postReceive, postSend, Wr } from '../../rxe/provider.ts'

const resize = ({ p, cq }: End, cqe: number) => invokeNow(p.context, Cq, 'modify', cq.handle, { cqe }, p.caller)
const WRONG_LKEY = 0xbad
const send = ({ qp, mr }: End, lkey = mr.lkey): void => {
  const sges = [{ ...sgeOf(mr, 0, 8), lkey }]
  assert.ok(postSend(qp.send, { id: 7n, opcode: Wr.SEND, flags: Flag.SIGNALED, sges }))
}
/** The first of three requests fails, the others are flushed. */
const failThree = (end: End): void => {
  for (let i = 0; i < 3; i++) send(end, WRONG_LKEY)
}

test('a completion queue is not resized below the completions of earlier posts', () => {
  const { a } = pair()
  failThree(a)
  assert.equal(
    errnoOf(() => resize(a, 1)),
    'EINVAL',
  )
  resize(a, 3)
})

test('a query of a completion queue counts earlier posts', () => {
  const { a } = pair()
  failThree(a)
  const { completions: completed, errors } = invokeNow(a.p.context, Cq, 'query', a.cq.handle, {}, a.p.caller).out
  assert.deepEqual([completed, errors], [3n, 3n])
})

test('on a device with very many queue pairs, a query of a CQ answers later, and counts earlier posts', async () => {
  const { a } = pair()
  for (let i = 0; i < 2 * SLICE_ROWS; i++) makeQp(a.p, a.cq)
  failThree(a)
  const answer = invoke(a.p.context, Cq, 'query', a.cq.handle, {}, a.p.caller)
  assert.ok(answer instanceof Promise)
  assert.equal((await answer).out.errors, 3n)
})

test('a completion queue whose context is closed while the call waits is not resized', async () => {
  const { a } = pair()
  for (let i = 0; i < 2 * SLICE_ROWS; i++) makeQp(a.p, a.cq)
  const { context } = a.p
  const { rings } = context.state as RingsContext
  let allocated = 0
  const allocate: typeof rings.allocate = bytes => {
    allocated++
    return rings.allocate(bytes)
  }
  context.state = { ...(context.state as RingsContext), rings: { ...rings, allocate } } satisfies RingsContext
  const answer = invoke(context, Cq, 'modify', a.cq.handle, { cqe: 100 }, a.p.caller)
  assert.ok(answer instanceof Promise)
  closeContext(context)
  await assert.rejects(answer, { code: 'EIO' })
  assert.equal(allocated, 0)
})

test('a query of a queue pair includes earlier sends and failures', () => {
  const { a } = pair()
  const { sqPsn } = query(a.qp)
  send(a)
  assert.equal(query(a.qp).sqPsn, sqPsn + 1)
  const { b } = pair()
  send(b, WRONG_LKEY)
  assert.equal(query(b.qp).state, Qps.ERR)
})

test('a posted message is sent before its queue pair is modified or destroyed', () => {
  for (const leaveRts of [
    ({ qp }: End) => modify(qp, { state: Qps.ERR }),
    ({ qp }: End) => modify(qp, { state: Qps.RESET }),
    ({ p, qp }: End) => void invokeNow(p.context, RcQp, 'destroy', qp.handle, {}, p.caller),
  ]) {
    const { m, a, b } = pair()
    assert.ok(postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, 64)]))
    send(a)
    leaveRts(a)
    m.settle()
    assert.deepEqual(
      completions(b.cq).map(({ id, status, bytes }) => [id, status, bytes]),
      [[1, WcStatus.values.SUCCESS, 8]],
    )
  }
})

test('a program that has exited sends nothing more', () => {
  const { m, a, b } = pair()
  assert.ok(postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, 64)]))
  send(a)
  closeContext(a.p.context)
  m.settle()
  assert.deepEqual(completions(b.cq), [])
})
