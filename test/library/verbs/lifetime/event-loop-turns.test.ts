/*
 * Devices in this process work without turns of the event loop, and do not starve the process.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { STEPS_PER_TURN } from '../../../../src/core/devices/registry.ts'
import { hasNative } from '../../../../src/host/native.ts'
import { createNetwork, open } from '../../../../src/library/index.ts'
import { loopbackText } from '../../../loopback.ts'
import { closeAll, nextCompletion, openTwoInProcess, pair } from '../endpoints.ts'

test('messages and their replies need no turn of the event loop', async () => {
  const { a, b } = await pair()
  let isNextTurn = false
  setImmediate(() => {
    isNextTurn = true
  })
  for (let i = 0; i < 20; i++) {
    b.qp.receive(b.mr.slice())
    a.qp.send(a.mr.slice(0, 8), { signaled: false })
    await nextCompletion(b.cq)
    a.qp.receive(a.mr.slice())
    b.qp.send(b.mr.slice(0, 8), { signaled: false })
    await nextCompletion(a.cq)
  }
  assert.equal(isNextTurn, false)
  await closeAll(a, b)
})

test('two loops with endless replies do not starve timers', async () => {
  const { a, b } = await pair()
  const stop = AbortSignal.timeout(20)
  let rounds = 0
  const play = async ({ cq, qp, mr }: typeof a) => {
    for await (const wc of cq.completions({ signal: stop })) {
      if (wc.opcodeName !== 'RECV') continue
      rounds++
      qp.receive(mr.slice())
      qp.send(mr.slice(0, 8))
    }
  }
  for (const { qp, mr } of [a, b]) for (let i = 0; i < 4; i++) qp.receive(mr.slice())
  a.qp.send(a.mr.slice(0, 8))
  const ends = await Promise.allSettled([play(a), play(b)])
  for (const end of ends) assert.equal(end.status === 'rejected' && end.reason.name, 'TimeoutError')
  assert.ok(rounds > 10)
  await closeAll(a, b)
})

test('polling alone drives retries: time advances without the event loop', async () => {
  const { a, b } = await pair()
  a.qp.modify({ state: 'RESET' })
  a.qp.connect({ ...b.qp.endpoint, qpn: 0x123456 }, { ackTimeoutExponent: 8, retryCount: 2 })
  a.qp.write(Uint8Array.of(1), b.mr.remote())
  while (!a.cq.poll());
  assert.equal(a.cq.completion.statusName, 'RETRY_EXC_ERR')
  assert.equal(a.device.counters().transport.retransmissions, 2)
  await closeAll(a, b)
})

test('the time limit of a threshold also applies to requests that complete without a turn of the event loop', async () => {
  const { a, b } = await pair()
  a.cq.moderate({ completions: 9, microseconds: 500 })
  const waiting = a.cq.wait()
  await new Promise(setImmediate)
  a.qp.write(a.mr.slice(0, 64), b.mr.remote())
  await waiting
  assert.ok(a.cq.poll())
  await closeAll(a, b)
})

test('the time limit of a threshold also applies to a completion that is older than the threshold', async () => {
  const { a, b } = await pair()
  const waiting = a.cq.wait({ completions: 9 })
  await new Promise(setImmediate)
  a.qp.write(a.mr.slice(0, 64), b.mr.remote())
  await new Promise(setImmediate)
  a.cq.arm({ completions: 9, microseconds: 500 })
  await waiting
  assert.ok(a.cq.poll())
  await closeAll(a, b)
})

test('messages delayed by torment arrive, also if no call follows the post', async () => {
  for (let torment = 1; torment <= 40; torment++) {
    const { a, b } = await pair(openTwoInProcess(createNetwork({ torment, random: () => 0 })))
    for (let i = 0; i < 5; i++) {
      b.qp.receive(b.mr.slice())
      const done = [a.cq, b.cq].map(nextCompletion)
      await new Promise(setImmediate)
      a.qp.send(Uint8Array.of(1))
      for (const { statusName } of await Promise.all(done)) assert.equal(statusName, 'SUCCESS')
    }
    await closeAll(a, b)
  }
})

test('a request that was posted in SQD is sent after the move to RTS, also if the program only waits', async () => {
  const { a, b } = await pair()
  a.qp.modify({ state: 'SQD' })
  const done = nextCompletion(a.cq)
  await new Promise(setImmediate)
  a.qp.write(a.mr.slice(0, 8), b.mr.remote())
  await new Promise(setImmediate)
  assert.equal(a.qp.pending, 1)
  a.qp.modify({ state: 'RTS' })
  assert.equal((await done).statusName, 'SUCCESS')
  await closeAll(a, b)
})

test('over UDP, a device acknowledges messages that a call has received', { skip: !hasNative() }, async () => {
  const openAt = (n: number) => open({ network: createNetwork({ link: 'udp' }), address: loopbackText(n) })
  const { a, b } = await pair(async () => [await openAt(75), await openAt(76)])
  for (let i = 1; i <= 100; i++) {
    b.qp.receive(b.mr.slice())
    await new Promise(setImmediate)
    a.qp.send(Uint8Array.of(1))
    // the device sends in a microtask
    await null
    assert.equal(b.cq.count, i)
    assert.equal((await nextCompletion(a.cq)).statusName, 'SUCCESS')
    assert.ok(b.cq.poll())
  }
  const { retransmissions } = a.device.counters().transport
  await closeAll(a, b)
  assert.equal(retransmissions, 0)
})

test('clearing faults releases delayed packets', async () => {
  const network = createNetwork({ fault: 'dir=sent,delay=9s' })
  const { a, b } = await pair(openTwoInProcess(network))
  a.qp.write(a.mr.slice(0, 64), b.mr.remote())
  assert.equal(a.cq.poll(), false, 'the packet is delayed')
  const done = nextCompletion(a.cq)
  await new Promise(setImmediate)
  network.setFaults('')
  assert.equal((await done).statusName, 'SUCCESS')
  assert.equal(a.device.counters().transport.retransmissions, 0)
  await closeAll(a, b)
})

test('closing a device with very many objects does not starve the process', async () => {
  const device = await open({ network: createNetwork() })
  const pd = device.pd()
  const REGIONS = 500
  let turns = 0
  for (let i = 0; i < REGIONS; i++) pd.register(new Uint8Array(8))
  let isOpen = true
  const count = (): void => {
    turns++
    if (isOpen) setImmediate(count)
  }
  setImmediate(count)
  await device.close()
  isOpen = false
  // One step per region, with a margin of a factor of 2.
  assert.ok(turns >= REGIONS / (2 * STEPS_PER_TURN), `${turns} turns`)
})
