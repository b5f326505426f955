/*
 * The limits that a program asks for are the same on every path of its messages: a capture changes nothing.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createNetwork, type Network, type OpenOptions, open } from '../../../../src/library/index.ts'

/** Two devices with a protection domain each. */
const openTwo = async (network: Network, options: OpenOptions = {}) => {
  const [one, two] = [await open({ ...options, network }), await open({ ...options, network })]
  const close = () => Promise.all([one.close(), two.close()])
  return { one, two, pds: [one.pd(), two.pd()] as const, close }
}

/** How many of `count` writes that are posted at once are complete, and the reason of the first that is not. */
const burst = async (network: Network, count: number, options: OpenOptions = {}) => {
  const { pds, close, one } = await openTwo(network, options)
  const [client, server] = [pds[0].rcQp({ maxSendWr: 5 }), pds[1].rcQp()]
  client.connect(server.endpoint)
  server.connect(client.endpoint)
  const remote = pds[1].register(new Uint8Array(8), { remoteWrite: true }).remote()
  const results = await Promise.allSettled(Array.from({ length: count }, () => client.write(Uint8Array.of(1), remote)))
  const failures = results.flatMap(result => (result.status === 'rejected' ? [String(result.reason)] : []))
  const { findings } = one
  await close()
  return { complete: count - failures.length, reason: failures[0] ?? '', findings }
}

test('as many requests as the program asked for are outstanding at once, with and without packets', async () => {
  const captured = createNetwork()
  const stop = captured.capture('/dev/null')
  const faulted = createNetwork({ fault: 'delay=1ms,opcode=RC_ACKNOWLEDGE' })
  for (const network of [createNetwork(), createNetwork({ path: 'packets' }), captured, faulted]) {
    const { complete, reason } = await burst(network, 20)
    assert.equal(complete, 5)
    assert.match(reason, /qp\.write: the send queue is full: 5 requests are outstanding \(ENOMEM\)/)
  }
  stop()
})

test('a check reports requests beyond the limit', async () => {
  const { findings } = await burst(createNetwork(), 6, { check: { onFinding: () => {}, failOn: 'never' } })
  assert.deepEqual(
    findings.filter(({ id }) => id === 'queue-full').map(({ severity, count }) => [severity, count]),
    [['warning', 1]],
  )
})

test('queues and requests have the size that the program asked for in both layouts of rings', async () => {
  for (const rings of ['compact', 'mapped'] as const) {
    const { one, pds, close } = await openTwo(createNetwork(), { rings })
    const limits = { maxSendWr: 5, maxRecvWr: 3, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 10 }
    const qp = pds[0].rcQp({ sendCq: one.cq(), ...limits })
    const peer = pds[1].rcQp({ peer: qp.endpoint })
    qp.connect(peer.endpoint)
    const memory = pds[0].register(new Uint8Array(8))
    const two = [memory.slice(0, 1), memory.slice(1, 1)]
    assert.throws(() => qp.send(two), /2 scatter\/gather elements, at most 1 .*ask for a larger maxSendSge/)
    assert.throws(() => qp.receive(two), /2 scatter\/gather elements, at most 1 .*ask for a larger maxRecvSge/)
    assert.throws(() => qp.send(new Uint8Array(11)), /11 bytes inline, at most 10/)
    assert.equal(qp.maxInlineData, 10)
    for (let i = 0; i < 5; i++) qp.send(Uint8Array.of(i))
    assert.throws(() => qp.send(Uint8Array.of(5)), /the send queue is full: 5 requests/)
    for (let i = 0; i < 3; i++) qp.receive()
    assert.throws(() => qp.receive(), /the receive queue is full: 3 requests/)
    await close()
  }
})
