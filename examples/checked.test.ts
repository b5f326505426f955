/*
 * Tests of a program with checked devices. A checked device reports mistakes as findings, with lines of the program.
 * After a finding of severity error (`failOn`: of another severity), closing the device fails, and with it the test.
 *
 *   node --enable-source-maps --test dist/examples/checked.test.js
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createNetwork, type Device, FindingsError, open } from 'userdma'

/**
 * Code under test: a server that lets a client read memory. `deregistersEarly`: the server makes a mistake, and
 * deregisters the memory before the client reads.
 */
const lend = (device: Device, deregistersEarly: boolean) => {
  const pd = device.pd()
  const mr = pd.register(new Uint8Array(64).fill(7), { remoteRead: true })
  const qp = pd.rcQp()
  const remote = mr.remote()
  if (deregistersEarly) mr.close()
  const close = () => {
    for (const object of [qp, mr, pd]) object.close()
  }
  return { qp, remote, close }
}

/** Reads the server's memory; resolves with false if the READ fails. */
const transfer = async (server: Device, client: Device, deregistersEarly: boolean): Promise<boolean> => {
  const lent = lend(server, deregistersEarly)
  const pd = client.pd()
  const mr = pd.register(new Uint8Array(64))
  const qp = pd.rcQp()
  qp.connect(lent.qp.endpoint)
  lent.qp.connect(qp.endpoint)
  const isComplete = await qp.read(mr.slice(), lent.remote).then(
    () => true,
    () => false,
  )
  for (const object of [qp, mr, pd]) object.close()
  lent.close()
  return isComplete
}

test('a transfer without mistakes has no findings', async () => {
  // Warnings and notes, too, make `close` fail.
  const network = createNetwork({ check: { failOn: 'note' } })
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
