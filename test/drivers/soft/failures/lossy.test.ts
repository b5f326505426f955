/*
 * Retransmissions after packet loss, or after a pause of the process (IBA 9.7.5.1.1, 9.7.6).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { WcOpcode, WcStatus } from '../../../../src/spec/work.ts'
import type { FaultPort } from '../../../../src/transport/phy/faults/layer.ts'
import { register } from '../../rxe/machine.ts'
import { completions, pair, pattern, sgeOf } from '../../rxe/pair.ts'
import { postReceive, postSend, Wr } from '../../rxe/provider.ts'

const { SUCCESS, RETRY_EXC_ERR } = WcStatus.values
const { SEND, RDMA_READ, RECV } = WcOpcode.values
const MTU = 1024
const BYTES = 0x20_0000

test('a loss of 1 % does not triple the responses of a long READ', () => {
  const { m, a, b } = pair([0, 1], 'drop=1%,seed=3')
  const [target, source] = [register(a.p, BYTES), register(b.p, BYTES)]
  pattern(source.bytes, 11)
  const read = { opcode: Wr.READ, id: 5n, sges: [sgeOf(target, 0, BYTES)], remote: source.address, rkey: source.rkey }
  assert.ok(postSend(a.qp.send, read))
  m.settle()
  while (m.tick()) {}
  assert.deepEqual(completions(a.cq), [{ id: 5, status: SUCCESS, opcode: RDMA_READ, bytes: BYTES }])
  assert.ok(Buffer.compare(target.bytes, source.bytes) === 0)
  const { sentPackets } = m.devices[1].device.state.engine().counters
  assert.ok(sentPackets > BYTES / MTU, 'packets are lost')
  assert.ok(sentPackets < (3 * BYTES) / MTU, `${sentPackets} responses`)
})

test('nothing is retransmitted when the process slept past the ACK timeout', () => {
  // the ACK timeout is 67 ms (code 14)
  for (const sleepUs of [70_000, 5_000_000]) {
    const { m, a, b } = pair()
    assert.ok(postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, 64)]))
    assert.ok(postSend(a.qp.send, { opcode: Wr.SEND, id: 2n, sges: [sgeOf(a.mr, 0, 64)] }))
    // the packet is in flight
    assert.ok(m.devices[0].poll(m.now))
    m.now += sleepUs
    m.settle()
    assert.deepEqual(completions(a.cq), [{ id: 2, status: SUCCESS, opcode: SEND, bytes: 64 }])
    assert.equal(m.devices[0].device.state.engine().counters.retransmissions, 0)
    assert.equal(m.devices[1].device.state.engine().counters.duplicateRequests, 0)
    assert.ok(!m.tick(), 'no timer is left')
  }
})

test('a sender that gets no ACK completes with RETRY_EXC, although the message arrived', () => {
  const { m, a, b } = pair([0, 1], 'opcode=RC_ACKNOWLEDGE,drop=100%')
  assert.ok(postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, 64)]))
  assert.ok(postSend(a.qp.send, { opcode: Wr.SEND, id: 2n, sges: [sgeOf(a.mr, 0, 64)] }))
  m.settle()
  assert.deepEqual(completions(b.cq), [{ id: 1, status: SUCCESS, opcode: RECV, bytes: 64 }])
  // the receiver ends, so retransmissions are not answered
  b.p.close()
  while (m.tick()) {}
  assert.deepEqual(
    completions(a.cq).map(({ id, status }) => [id, status]),
    [[2, RETRY_EXC_ERR]],
  )
})

test('packets held by a fault are delivered when the faults are cleared, even if nothing else is sent', () => {
  const { m, a, b } = pair([0, 1], 'dir=sent,delay=5s')
  assert.ok(postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, 64)]))
  assert.ok(postSend(a.qp.send, { opcode: Wr.SEND, id: 2n, sges: [sgeOf(a.mr, 0, 64)] }))
  m.settle()
  assert.deepEqual(completions(b.cq), [])
  for (const {
    device: { state },
  } of m.devices)
    (state.port as FaultPort).setFaults([])
  m.settle()
  assert.deepEqual(completions(b.cq), [{ id: 1, status: SUCCESS, opcode: RECV, bytes: 64 }])
  assert.deepEqual(completions(a.cq), [{ id: 2, status: SUCCESS, opcode: SEND, bytes: 64 }])
  assert.ok(!m.tick(), 'no timer is left')
})
