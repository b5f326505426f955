/*
 * How a program's tests use userdma as their network: two devices in this process, a link with the losses that the test
 * needs, and counters that show the effect. Nothing is mocked: the protocol is the real one.
 *
 *   node --test dist/examples/network-double.test.js
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createNetwork, type Device, type Endpoint, open } from 'userdma'

const RETRIES = 5

/** Code under test: sends a file in parts and waits until all have arrived. */
const sendParts = async (
  device: Device,
  file: Uint8Array,
  partBytes: number,
  connect: (endpoint: Endpoint) => Endpoint,
) => {
  const pd = device.pd()
  const mr = pd.register(file)
  const cq = device.cq()
  const qp = pd.rcQp({ sendCq: cq, maxSendWr: 64 })
  qp.connect(connect(qp.endpoint), { retryCount: RETRIES, timeout: 10 })
  let left = Math.ceil(file.length / partBytes)
  for (let at = 0; at < file.length; at += partBytes) qp.send(mr.slice(at, Math.min(partBytes, file.length - at)))
  while (left > 0) {
    for await (const wc of cq) {
      assert.equal(wc.statusName, 'SUCCESS')
      if (--left === 0) break
    }
  }
}

/** The receiver: collects what arrives, in order. */
const receiver = (device: Device, parts: number, partBytes: number) => {
  const pd = device.pd()
  const bytes = new Uint8Array(parts * partBytes)
  const mr = pd.register(bytes)
  const qp = pd.rcQp({ sendCq: device.cq(), maxRecvWr: parts })
  const connect = (endpoint: Endpoint): Endpoint => {
    qp.connect(endpoint, { minRnrTimer: 1 })
    for (let i = 0; i < parts; i++) qp.receive(mr.slice(i * partBytes, partBytes), i)
    return qp.endpoint
  }
  return { bytes, connect }
}

const file = Uint8Array.from({ length: 50_000 }, (_, i) => (i * 7) % 251)

/** The sender of the last transfer. */
let last: Device | undefined

const transfer = async (fault: string) => {
  const network = createNetwork({ fault })
  const left = await open({ network })
  last = left
  await using right = await open({ network })
  const { bytes, connect } = receiver(right, 50, 1000)
  await sendParts(left, file, 1000, connect)
  assert.deepEqual(bytes, file)
  return { sender: left.counters(), receiver: right.counters() }
}

test('on a good network nothing is sent twice', async () => {
  const { sender, receiver } = await transfer('')
  assert.equal(sender.transport.retransmissions, 0)
  assert.equal(receiver.hw_counters.duplicate_request, 0)
})

test('a transfer to a peer that never answers fails after the configured retries', async () => {
  const failed = transfer('opcode=RC_ACKNOWLEDGE,drop=100%')
  await assert.rejects(failed, /RETRY_EXC_ERR/)
  assert.equal(last?.counters().transport.retransmissions, RETRIES)
  assert.equal(last?.counters().hw_counters.retry_exceeded_err, 1)
})

test('a lossy network causes retransmissions, and no data is lost', async () => {
  const { sender, receiver } = await transfer('drop=5%,dup=2%,seed=11')
  assert.ok(sender.transport.retransmissions > 0)
  assert.ok(receiver.faults.dropped > 0)
})
