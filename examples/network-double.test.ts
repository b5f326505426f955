/*
 * Tests of a program with userdma as the network: two devices in this process, and a link with faults. Nothing is
 * mocked: the devices run the real protocol.
 *
 *   node --test dist/examples/network-double.test.js
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createNetwork, type Device, type Endpoint, open } from 'userdma'

const RETRIES = 5

/** Code under test: sends a file in parts, and waits for the completions. */
const sendParts = async (
  device: Device,
  file: Uint8Array,
  partBytes: number,
  connect: (endpoint: Endpoint) => Endpoint,
) => {
  const pd = device.pd()
  const mr = pd.register(file)
  const cq = device.cq()
  const qp = pd.polledRcQp({ sendCq: cq, maxSendWr: 64 })
  // Timeout 10: 4.096 µs · 2^10 = 4.2 ms.
  qp.connect(connect(qp.endpoint), { retryCount: RETRIES, ackTimeout: 4 })
  let incomplete = Math.ceil(file.length / partBytes)
  for (let at = 0; at < file.length; at += partBytes) qp.send(mr.slice(at, Math.min(partBytes, file.length - at)))
  for await (const wc of cq) {
    assert.equal(wc.statusName, 'SUCCESS')
    if (--incomplete === 0) break
  }
}

/** The receiver: stores the parts in `bytes`, in the order of arrival. */
const createReceiver = (device: Device, parts: number, partBytes: number) => {
  const pd = device.pd()
  const bytes = new Uint8Array(parts * partBytes)
  const mr = pd.register(bytes)
  const qp = pd.polledRcQp({ sendCq: device.cq(), maxRecvWr: parts })
  const connect = (endpoint: Endpoint): Endpoint => {
    // RNR timer code 1: 0.01 ms.
    qp.connect(endpoint, { minRnrTimer: 1 })
    for (let i = 0; i < parts; i++) qp.receive(mr.slice(i * partBytes, partBytes), i)
    return qp.endpoint
  }
  return { bytes, connect }
}

const file = Uint8Array.from({ length: 50_000 }, (_, i) => (i * 7) % 251)

/** The sender's device of the last transfer. It stays open, for its counters. */
let lastSender: Device | undefined

/** Transfers the file on a network with fault rules; returns the counters of both devices. */
const transfer = async (fault: string) => {
  const network = createNetwork({ fault })
  const sender = await open({ network })
  lastSender = sender
  await using receiver = await open({ network })
  const { bytes, connect } = createReceiver(receiver, 50, 1000)
  await sendParts(sender, file, 1000, connect)
  assert.deepEqual(bytes, file)
  return { sender: sender.counters(), receiver: receiver.counters() }
}

test('on a good network nothing is sent twice', async () => {
  const { sender, receiver } = await transfer('')
  assert.equal(sender.transport.retransmissions, 0)
  assert.equal(receiver.hw_counters.duplicate_request, 0)
})

test('a transfer whose acknowledgements are all lost fails after the configured retries', async () => {
  const failed = transfer('opcode=RC_ACKNOWLEDGE,drop=100%')
  await assert.rejects(failed, /RETRY_EXC_ERR/)
  assert.equal(lastSender?.counters().transport.retransmissions, RETRIES)
  assert.equal(lastSender?.counters().hw_counters.retry_exceeded_err, 1)
})

test('a lossy network causes retransmissions, and no data is lost', async () => {
  const { sender, receiver } = await transfer('drop=5%,dup=2%,seed=11')
  assert.ok(sender.transport.retransmissions > 0)
  assert.ok(receiver.faults.dropped > 0)
})
