/*
 * Devices in this process: injected faults, and the memory that posts and polls allocate.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createNetwork, open } from '../../../src/library/index.ts'
import type { LocalNetwork } from '../../../src/library/network/contract.ts'
import { libraryUrl } from '../../paths.ts'
import { start } from '../../system/programs.ts'
import { closeAll, nextCompletion, openTwoInProcess, pair } from '../verbs/endpoints.ts'

test('WRITEs complete, and no data is lost, while packets are dropped', async () => {
  const network = createNetwork({ fault: 'drop=0.2,seed=3' })
  const { a, b } = await pair(openTwoInProcess(network))
  for (let round = 0; round < 20; round++) {
    a.buffer.fill(round + 1, 0, 2000)
    a.qp.write(a.mr.slice(0, 2000), b.mr.remote())
    assert.equal((await nextCompletion(a.cq)).statusName, 'SUCCESS')
    assert.ok(b.buffer.subarray(0, 2000).every(byte => byte === round + 1))
  }
  network.setFaults('')
  assert.ok(a.device.counters().transport.retransmissions > 0, 'packets were dropped')
  await closeAll(a, b)
})

test('posting, polling and reading completions allocate almost nothing', async () => {
  const { a, b } = await pair()
  const local = a.mr.slice(0, 64)
  const remote = b.mr.remote(0, 64)
  const options = { id: 5 }
  let sum = 0
  const round = () => {
    a.qp.write(local, remote, options)
    while (!a.cq.poll());
    const { completion } = a.cq
    sum += completion.id + completion.status + completion.opcode + completion.bytes + completion.qpn
  }
  // At most 350 bytes per round, for readings of the clock. The minimum of several runs excludes what V8 allocates when
  // it compiles.
  const ROUNDS = 1000
  const limit = 350 * ROUNDS
  let min = Number.POSITIVE_INFINITY
  for (let run = 0; run < 200 && min >= limit; run++) {
    const before = process.memoryUsage().heapUsed
    for (let i = 0; i < ROUNDS; i++) round()
    const grown = process.memoryUsage().heapUsed - before
    if (grown > 0) min = Math.min(min, grown)
  }
  assert.ok(min < limit, `${min} bytes in ${ROUNDS} rounds`)
  assert.ok(sum > 0)
  await closeAll(a, b)
})

test('polling and reading queued completions allocates nothing', async () => {
  const { a, b } = await pair()
  const MANY = 4000
  const cq = a.device.cq({ entries: 2 * MANY })
  const sender = a.pd.rcQp({ sendCq: cq, maxSendWr: MANY })
  const receiver = b.pd.rcQp({ sendCq: b.cq })
  sender.connect(receiver.endpoint)
  receiver.connect(sender.endpoint)
  const remote = b.mr.remote(0, 1)
  const { completion } = cq
  let sum = 0
  let min = Number.POSITIVE_INFINITY
  let runs = 0
  // Until V8 has compiled the reader of a number, each large number costs 16 bytes.
  for (; runs < 100 && min >= MANY; runs++) {
    for (let i = 0; i < MANY; i++) sender.write(a.mr.slice(0, 1), remote, { id: 1 })
    await cq.wait()
    // A poll of the empty queue lets the device work.
    while (sender.pending > 0) a.cq.poll()
    const before = process.memoryUsage().heapUsed
    // One completion stays: no poll finds an empty queue.
    for (let i = 1; i < MANY; i++) if (cq.poll()) sum += completion.id + completion.status
    const grown = process.memoryUsage().heapUsed - before
    if (grown >= 0) min = Math.min(min, grown)
    cq.poll()
  }
  assert.equal(sum, runs * (MANY - 1))
  assert.ok(min < MANY, `${min} bytes for ${MANY} completions`)
  for (const qp of [sender, receiver]) qp.close()
  cq.close()
  await closeAll(a, b)
})

test('polling an empty queue allocates almost nothing while a timer runs', async () => {
  const { a, b } = await pair()
  const lost = a.pd.rcQp({ sendCq: a.device.cq() })
  lost.connect({ qpn: 5, gid: '127.0.0.99', psn: 0 })
  lost.send(new Uint8Array(8))
  const POLLS = 20_000
  // One poll in 32 reads the clock, which allocates numbers. An object per poll would have at least 16 bytes.
  const limit = 8 * POLLS
  let found = 0
  let min = Number.POSITIVE_INFINITY
  for (let run = 0; run < 200 && min >= limit; run++) {
    const before = process.memoryUsage().heapUsed
    for (let i = 0; i < POLLS; i++) if (a.cq.poll()) found++
    const grown = process.memoryUsage().heapUsed - before
    if (grown >= 0) min = Math.min(min, grown)
  }
  assert.equal(found, 0)
  assert.ok(min < limit, `${min} bytes for ${POLLS} polls`)
  await closeAll(a, b)
})

test('a closed device gets no more events of the driver', async () => {
  const network = createNetwork()
  const first = await open({ network })
  const handlers = (network as LocalNetwork).core.devices.get(first.name)!.eventHandlers
  const before = handlers.size
  const second = await open({ network, device: first.name })
  assert.equal(handlers.size, before + 1)
  await second.close()
  assert.equal(handlers.size, before)
  await first.close()
})

test('a program that awaits a connection is kept alive', async t => {
  const program = `
    import { connect, createNetwork, open } from '${libraryUrl}'
    const network = createNetwork({ fault: 'drop=100%' })
    const [device, peer] = [await open({ network }), await open({ network })]
    const signal = AbortSignal.timeout(1000)
    await connect('rdma://' + peer.address + ':9', { device, signal }).catch(({ name }) => console.log(name))`
  const { stdout } = await start(t, process.execPath, ['--input-type=module', '-e', program]).ended
  assert.equal(stdout, 'TimeoutError\n')
})
