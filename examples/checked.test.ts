/*
 * How a program's tests find its mistakes with RDMA: the devices of a checked network report them, with the line of the
 * program, and the test fails when it closes its device.
 *
 *   node --enable-source-maps --test dist/examples/checked.test.js
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createNetwork, type Device, FindingsError, open } from 'userdma'

/** Code under test: a server that lends memory to one reader. With `early` it deregisters the memory too early. */
const lend = (device: Device, early: boolean) => {
  const pd = device.pd()
  const mr = pd.register(new Uint8Array(64).fill(7), { remoteRead: true })
  const qp = pd.rcQp()
  const remote = mr.remote()
  if (early) mr.close()
  const close = () => {
    for (const one of [qp, mr, pd]) one.close()
  }
  return { qp, remote, close }
}

/** Reads what the server lends; returns whether it arrived. */
const transfer = async (server: Device, client: Device, early: boolean): Promise<boolean> => {
  const lent = lend(server, early)
  const pd = client.pd()
  const mr = pd.register(new Uint8Array(64))
  const qp = pd.rcQp()
  qp.connect(lent.qp.endpoint)
  lent.qp.connect(qp.endpoint)
  const arrived = await qp.read(mr.slice(), lent.remote).then(
    () => true,
    () => false,
  )
  for (const one of [qp, mr, pd]) one.close()
  lent.close()
  return arrived
}

test('a transfer without mistakes', async () => {
  const network = createNetwork({ check: true })
  await using server = await open({ network })
  await using client = await open({ network })
  assert.ok(await transfer(server, client, false))
})

test('memory that is deregistered too early is found, with the line of the deregistration', async () => {
  const network = createNetwork({ check: { onFinding: () => {} } })
  await using server = await open({ network })
  const client = await open({ network })
  assert.equal(await transfer(server, client, true), false)
  await assert.rejects(client.close(), (error: FindingsError) => {
    assert.ok(error instanceof FindingsError)
    assert.match(error.message, /error stale-rkey: .* was deregistered/)
    assert.match(error.message, /deregistered .* before: lend \(examples\/checked\.test\.ts:\d+\)/)
    return true
  })
})
