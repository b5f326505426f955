/*
 * On ports where sending costs a system call, an ACK waits for at most one poll of the device, so that it is sent
 * together with the program's reply.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { closeContext, invoke, invokeNow } from '../../../../src/core/index.ts'
import { SLICE_ROWS } from '../../../../src/drivers/soft/posts.ts'
import { Cq } from '../../../../src/spec/classes/cq.ts'
import { RcQp } from '../../../../src/spec/classes/qp/rc_qp.ts'
import { connectQps, machine, makeQp, modify, Qps } from '../../rxe/machine.ts'
import { completions, makeEnd, sgeOf } from '../../rxe/pair.ts'
import { Flag, postReceive, postSend, Wr } from '../../rxe/provider.ts'

/**
 * A message from `a` to `b` is in flight. `windowBytes`: of a port on which sending costs a system call; absent: the
 * memory link. `sent` returns the number of packets that the device of `b` sent.
 */
const start = (windowBytes?: number, hasRead = false) => {
  const m = machine(2, { windowBytes })
  const [a, b] = [makeEnd(m, 0), makeEnd(m, 1)]
  connectQps(a.qp, b.qp)
  m.settle()
  postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, 100)])
  postReceive(a.qp.receive, 2n, [sgeOf(a.mr, 200, 100)])
  postSend(a.qp.send, { opcode: Wr.SEND, id: 3n, sges: [sgeOf(a.mr, 0, 64)], flags: Flag.SIGNALED })
  const { address: remote, rkey } = b.mr
  if (hasRead) postSend(a.qp.send, { opcode: Wr.READ, id: 4n, sges: [sgeOf(a.mr, 300, 64)], remote, rkey })
  m.devices[0].poll(0)
  const sent = (): number => m.devices[1].device.state.engine().counters.sentPackets
  return { m, a, b, sent }
}

describe('the acknowledgement of a message', () => {
  it('is sent at the next poll, together with the reply', () => {
    const { m, a, b, sent } = start(0x4_0000)
    assert.equal(m.devices[1].poll(0), true, 'more work is pending')
    assert.equal(completions(b.cq).length, 1, 'the message is delivered to the program immediately')
    assert.equal(sent(), 0)
    postSend(b.qp.send, { opcode: Wr.SEND, id: 4n, sges: [sgeOf(b.mr, 0, 64)], flags: Flag.SIGNALED })
    m.devices[1].poll(0)
    assert.equal(sent(), 2)
    m.settle()
    assert.equal(completions(a.cq).length, 2)
    assert.equal(completions(b.cq).length, 1)
  })

  it('is sent alone at the next poll if the program has not replied', () => {
    const { m, a, sent } = start(0x4_0000)
    m.devices[1].poll(0)
    assert.equal(m.devices[1].poll(0), true)
    assert.equal(sent(), 1)
    m.settle()
    assert.equal(completions(a.cq).length, 1)
  })

  for (const end of ['destroy', 'reset', 'context'] as const)
    it(`is sent before the queue pair ends: ${end}`, () => {
      const { m, a, b, sent } = start(0x4_0000)
      m.devices[1].poll(0)
      assert.equal(completions(b.cq).length, 1)
      const { context, caller } = b.p
      if (end === 'destroy') invokeNow(context, RcQp, 'destroy', b.qp.handle, {}, caller)
      else if (end === 'reset') modify(b.qp, { state: Qps.RESET })
      else closeContext(context)
      assert.equal(sent(), 1)
      m.settle()
      assert.deepEqual(
        completions(a.cq).map(({ id, status }) => [id, status]),
        [[3, 0]],
      )
    })

  it('is sent by the loop, if a call that checks very many queues has received the message', async () => {
    const { m, a, b } = start(0x4_0000)
    m.settle()
    for (let i = 0; i < SLICE_ROWS; i++) makeQp(b.p, b.cq)
    m.settle()
    const answer = invoke(b.p.context, Cq, 'query', b.cq.handle, {}, b.p.caller)
    assert.ok(answer instanceof Promise)
    postReceive(b.qp.receive, 5n, [sgeOf(b.mr, 0, 100)])
    postSend(a.qp.send, { opcode: Wr.SEND, id: 6n, sges: [sgeOf(a.mr, 0, 64)] })
    m.devices[0].poll(0)
    let wakes = 0
    m.ports[1].wake = () => wakes++
    await answer
    assert.equal(completions(b.cq).length, 2)
    assert.equal(wakes, 1)
  })

  it('is implied by the response of a later READ, which is sent before the queue pair is destroyed', () => {
    const { m, a, b } = start(0x4_0000, true)
    m.devices[1].poll(0)
    assert.equal(completions(b.cq).length, 1)
    invokeNow(b.p.context, RcQp, 'destroy', b.qp.handle, {}, b.p.caller)
    m.settle()
    assert.deepEqual(
      completions(a.cq).map(({ id, status }) => [id, status]),
      [
        [3, 0],
        [4, 0],
      ],
    )
  })

  it('is sent immediately on the memory link, where sending costs no system call', () => {
    const { m, sent } = start()
    m.devices[1].poll(0)
    assert.equal(sent(), 1)
  })
})
