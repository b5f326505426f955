/*
 * Observation of a network in this process.
 */
import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { readFileSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { createNetwork, open, type TracedCall } from '../../../src/verbs/index.ts'
import { readCapture } from '../../../src/wire/index.ts'
import { temporaryFolder } from '../../system/programs.ts'
import { closeAll, completionText, openTwoHere, pair } from '../connections/endpoints.ts'

test('a capture has packets of later devices until stopped; symbolic links and unwritable paths are refused', async t => {
  const path = join(temporaryFolder(t), 'out.pcapng')
  const network = createNetwork()
  const stop = network.capture(path)
  const { a, b } = await pair(openTwoHere(network))
  a.qp.write(a.mr.slice(0, 3000), b.mr.remote(0, 3000), { id: 1 })
  assert.equal(await completionText(a.cq), '1 RDMA_WRITE')
  stop()
  stop()
  const { length } = readFileSync(path)
  a.qp.write(a.mr.slice(0, 3000), b.mr.remote(0, 3000), { id: 2 })
  assert.equal(await completionText(a.cq), '2 RDMA_WRITE')
  const bytes = readFileSync(path)
  assert.equal(bytes.length, length)
  assert.equal(statSync(path).mode & 0o777, 0o600)
  // The data (one or three packets) and an ACK.
  assert.ok(readCapture(bytes).length >= 2)
  symlinkSync(path, `${path}.link`)
  assert.throws(() => network.capture(`${path}.link`), { code: 'EINVAL', message: /symbolic link/ })
  assert.throws(() => network.capture('/dev/full'), { code: 'ENOSPC' })
  assert.throws(() => network.capture(`${path}.none/x`), { code: 'ENOENT', message: /cannot write to .*ENOENT/ })
  rmSync(path)
  await closeAll(a, b)
})

test('a trace reports calls, arguments and refusals, until stopped', async () => {
  const network = createNetwork()
  const calls: TracedCall[] = []
  const stop = network.trace(call => calls.push(call))
  const device = await open({ network })
  device.pd()
  const cq = device.cq({ entries: 10 })
  assert.throws(() => device.cq({ vector: 99 }), { code: 'EINVAL' })
  stop()
  device.pd()
  await device.close()
  const creations = calls.filter(({ method }) => method === 'create').map(({ class: cls, error }) => [cls, error?.code])
  assert.deepEqual(creations, [
    ['pd', undefined],
    ['cq', undefined],
    ['cq', 'EINVAL'],
  ])
  const created = calls.find(({ class: cls }) => cls === 'cq')
  assert.equal(created?.args.cqe, 10)
  assert.equal(created?.object, cq.handle)
  assert.equal(created?.device, 'rxe0')
  assert.match(inspect(created), /cq\.create\(.*cqe 10.*\) = \{/)
  assert.ok(JSON.stringify(calls))
})

test('diagnostics channels report RNR waits, retransmissions and failures', async () => {
  const messages: Record<string, unknown[]> = { failure: [], rnr: [], retransmission: [] }
  const listeners = Object.keys(messages).map(name => {
    const listener = (message: unknown): void => {
      messages[name]?.push(message)
    }
    subscribe(`userdma:${name}`, listener)
    return () => unsubscribe(`userdma:${name}`, listener)
  })
  const network = createNetwork()
  const { a, b } = await pair(openTwoHere(network))
  a.qp.send(Uint8Array.of(1), { id: 1 })
  while (messages.rnr?.length === 0) await new Promise(resolve => setImmediate(resolve))
  b.qp.receive(b.mr.slice(0, 8))
  assert.equal(await completionText(a.cq), '1 SEND')
  assert.deepEqual(messages.rnr?.[0], { device: 'rxe0', count: 1 })
  network.setFaults('drop=40%,seed=3')
  for (let i = 0; i < 20; i++) {
    a.qp.write(Uint8Array.of(i), b.mr.remote(0, 1), { id: i })
    assert.equal(await completionText(a.cq), `${i} RDMA_WRITE`)
  }
  network.setFaults('')
  assert.ok((messages.retransmission?.length ?? 0) > 0)
  const { 'transport.retransmissions': resent, ...metrics } = a.device.metrics()
  assert.ok((resent ?? 0) > 0)
  assert.ok(Object.values(metrics).every(Number.isFinite))
  a.qp.write(Uint8Array.of(1), { address: 0n, rkey: 1, length: 1 }, { id: 7 })
  assert.equal(await completionText(a.cq), '7 REM_ACCESS_ERR')
  const failures = messages.failure as { device: string; status?: string; wrId?: string }[]
  const failure = failures.find(({ status }) => status === 'REM_ACCESS_ERR')
  assert.deepEqual([failure?.device, failure?.status, failure?.wrId], ['rxe0', 'REM_ACCESS_ERR', '7'])
  for (const stop of listeners) stop()
  await closeAll(a, b)
})
