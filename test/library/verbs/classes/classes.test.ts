/*
 * Objects and operations of the library beyond connected queue pairs.
 */
import assert from 'node:assert/strict'
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type DatagramPeer, GRH_BYTES, MULTICAST_QPN, senderOf } from '../../../../src/library/index.ts'
import type { AnyCall } from '../../../../src/library/verbs/carrier.ts'
import type { DeviceContext } from '../../../../src/library/verbs/plan.ts'
import { scratchFolder } from '../../../tools.ts'
import {
  closeAll,
  completionText,
  eachCarrier,
  nextCompletion,
  nextEvent,
  openTwoInProcess,
  pair,
  resourcesOn,
} from '../endpoints.ts'

eachCarrier(openTwo => {
  const datagrams = async () => {
    const [one, two] = await openTwo()
    const a = resourcesOn(one)
    const b = resourcesOn(two)
    const [sender, receiver] = [a.pd.udQp({ sendCq: a.cq }), b.pd.udQp({ sendCq: b.cq })]
    return { a, b, sender, receiver }
  }

  test('a datagram has the address of its sender, and the reply reaches the sender', async () => {
    const { a, b, sender, receiver } = await datagrams()
    sender.activate()
    receiver.activate({ qkey: 0x1234 })
    assert.equal(receiver.endpoint.qkey, 0x1234)
    const ah = a.pd.addressHandle({ gid: receiver.endpoint.gid, trafficClass: 32 })
    receiver.receive(b.mr.slice(), 1)
    sender.send(Uint8Array.of(7, 8, 9), { ah, qpn: receiver.qpn, qkey: 0x1234 }, { immediate: 5 })
    assert.equal(await completionText(a.cq), '0 SEND')
    const received = await nextCompletion(b.cq)
    assert.deepEqual(
      [received.bytes, received.sourceQpn, received.hasGrh, received.immediate, received.qpn],
      [GRH_BYTES + 3, sender.qpn, true, 5, receiver.qpn],
    )
    assert.deepEqual([...b.buffer.subarray(GRH_BYTES, GRH_BYTES + 4)], [7, 8, 9, 0])
    const source = senderOf(b.buffer.subarray(0, GRH_BYTES))
    assert.deepEqual(source, { gid: sender.endpoint.gid, trafficClass: 32 })

    const destination = { ah: b.pd.addressHandle(source), qpn: received.sourceQpn, qkey: sender.endpoint.qkey }
    sender.receive(a.mr.slice(), 2)
    receiver.send(b.mr.slice(GRH_BYTES, 3), destination)
    assert.equal(await completionText(a.cq), '2 RECV')
    assert.deepEqual([...a.buffer.subarray(GRH_BYTES, GRH_BYTES + 3)], [7, 8, 9])
    await closeAll(a, b)
  })

  test('an address handle can be modified and queried', async () => {
    const [one, two] = await openTwo()
    const pd = one.pd()
    const ah = pd.addressHandle({ gid: '127.0.0.77' })
    ah.modify({ gid: '127.0.0.2' })
    assert.equal(ah.query().address.dgid.join('.'), '0.0.0.0.0.0.0.0.0.0.255.255.127.0.0.2')
    assert.throws(() => pd.addressHandle({ gid: 'nowhere' }), { code: 'EINVAL', class: 'ah', method: 'create' })
    await one.close()
    await two.close()
  })

  test('a datagram with a wrong Q_Key is dropped and counted', async () => {
    const { a, b, sender, receiver } = await datagrams()
    sender.activate()
    receiver.activate()
    const ah = a.pd.addressHandle({ gid: receiver.endpoint.gid })
    const wrong: DatagramPeer = { ah, qpn: receiver.qpn, qkey: 1 }
    receiver.receive(b.mr.slice(), 1)
    const before = b.device.counters().transport.qkeyViolations
    sender.send(Uint8Array.of(1), wrong)
    sender.send(Uint8Array.of(2), { ...wrong, qkey: receiver.endpoint.qkey })
    await nextCompletion(b.cq)
    assert.equal(b.buffer[GRH_BYTES], 2)
    assert.equal(b.device.counters().transport.qkeyViolations, before + 1)
    await closeAll(a, b)
  })

  test('a datagram to a group reaches its members', async () => {
    const { a, b, sender, receiver } = await datagrams()
    sender.activate()
    receiver.activate()
    receiver.attach('224.0.0.77')
    const group = a.pd.addressHandle({ gid: '224.0.0.77' })
    receiver.receive(b.mr.slice(), 4)
    sender.send(Uint8Array.of(6), { ah: group, qpn: MULTICAST_QPN, qkey: receiver.endpoint.qkey })
    assert.equal(await completionText(b.cq), '4 RECV')
    receiver.detach('224.0.0.77')
    assert.throws(() => receiver.detach('224.0.0.77'), { call: 'qp.detach' })
    await closeAll(a, b)
  })

  test('queue pairs share a receive queue, which has a limit event and can be resized', async () => {
    const [one, two] = await openTwo()
    const [a, b] = [resourcesOn(one), resourcesOn(two)]
    const srq = b.pd.srq({ maxWr: 8 })
    const event = nextEvent(two)
    for (let id = 1; id <= 3; id++) srq.receive(b.mr.slice(id * 16, 16), id)
    srq.resize(100)
    assert.ok(srq.maxWr >= 100)
    for (let id = 4; id <= 6; id++) srq.receive(b.mr.slice(id * 16, 16), id)
    assert.equal(srq.pending, 6)
    srq.setLimit(5)
    assert.equal(srq.query().limit, 5)
    const senders = [0, 1].map(() => {
      const sender = a.pd.rcQp({ sendCq: a.cq })
      const receiver = b.pd.rcQp({ sendCq: b.cq, srq })
      sender.connect(receiver.endpoint)
      receiver.connect(sender.endpoint)
      assert.throws(() => receiver.receive(), /uses a shared receive queue/)
      return sender
    })
    for (let i = 0; i < 6; i++) {
      senders[i % 2].send(Uint8Array.of(i + 100))
      assert.equal(await completionText(b.cq), `${i + 1} RECV`)
      assert.equal(b.buffer[(i + 1) * 16], i + 100)
      await nextCompletion(a.cq)
    }
    const { type, source } = (await event) ?? {}
    assert.deepEqual([type, source === srq], ['SRQ_LIMIT_REACHED', true])
    assert.throws(() => srq.close(), { code: 'EBUSY' })
    await closeAll(a, b)
  })

  test('a window gives a peer access to a part of a region until it is invalidated', async () => {
    const { a, b } = await pair(openTwo)
    const window = b.pd.window()
    const remote = b.qp.bind(window, { region: b.mr, offset: 100, length: 50, access: { remoteWrite: true } })
    assert.equal(await completionText(b.cq), '0 BIND_MW')
    assert.equal(window.query().rkey, remote.rkey)
    a.qp.write(Uint8Array.of(1, 2), remote)
    assert.equal(await completionText(a.cq), '0 RDMA_WRITE')
    assert.deepEqual([...b.buffer.subarray(99, 103)], [0, 1, 2, 0])
    b.qp.receive()
    a.qp.send([], { invalidate: remote.rkey })
    assert.equal((await nextCompletion(b.cq)).invalidated, remote.rkey)
    await nextCompletion(a.cq)
    const zeroBased = { remoteRead: true, zeroBased: true }
    const rebound = b.qp.bind(window, { region: b.mr, offset: 8, access: zeroBased })
    await nextCompletion(b.cq)
    assert.equal(rebound.address, 0n)
    b.qp.invalidate(window)
    assert.equal(await completionText(b.cq), '0 LOCAL_INV')
    a.qp.read(a.mr.slice(0, 8), rebound, { id: 9 })
    assert.equal(await completionText(a.cq), '9 REM_ACCESS_ERR')
    const typeOneWindow = b.pd.window(1)
    assert.throws(() => b.qp.invalidate(typeOneWindow), /type 1/)
    window.close()
    await closeAll(a, b)
  })

  test('FLUSH and ATOMIC WRITE complete, and the peer has the data', async () => {
    const { a, b } = await pair(openTwo)
    a.qp.write(Uint8Array.of(9), b.mr.remote(16, 1), { signaled: false })
    a.qp.flush(b.mr.remote(16, 8), { id: 1 })
    a.qp.atomicWrite(b.mr.remote(24, 8), 0x1122334455667788n, { id: 2 })
    assert.equal(await completionText(a.cq), '1 FLUSH')
    assert.equal(await completionText(a.cq), '2 ATOMIC_WRITE')
    assert.equal(b.buffer[16], 9)
    assert.equal(new DataView(b.buffer.buffer).getBigUint64(24, true), 0x1122334455667788n)
    await closeAll(a, b)
  })

  test('XRC: one connection reaches any shared queue of the peer’s domain', async () => {
    const [one, two] = await openTwo()
    const [a, b] = [resourcesOn(one), resourcesOn(two)]
    const xrcd = two.xrcd()
    const queues = [two.cq(), two.cq()].map(cq => ({ cq, srq: b.pd.xrcSrq({ xrcd, cq }) }))
    const target = xrcd.target()
    const sender = a.pd.xrcInitiator({ sendCq: a.cq })
    sender.connect(target.endpoint)
    target.connect(sender.endpoint)
    for (const [i, { srq }] of queues.entries()) {
      srq.receive(b.mr.slice(i * 16, 16), i)
      sender.send(Uint8Array.of(i + 50), { srqNumber: srq.srqNumber, id: i })
    }
    for (const [i, { cq }] of queues.entries()) {
      assert.equal(await completionText(cq), `${i} RECV`)
      assert.equal(b.buffer[i * 16], i + 50)
    }
    sender.write(Uint8Array.of(1), b.mr.remote(500), { srqNumber: queues[0].srq.srqNumber, id: 7 })
    for (const expected of ['0 SEND', '1 SEND', '7 RDMA_WRITE']) assert.equal(await completionText(a.cq), expected)
    const reopened = xrcd.target(target.qpn)
    assert.equal(reopened.qpn, target.qpn)
    assert.equal(reopened.state, 'RTS')
    assert.throws(() => xrcd.close(), { code: 'EBUSY' })
    await closeAll(a, b)
  })

  test('XRC domains of one file are one domain, whatever descriptors name the file', async () => {
    const folder = scratchFolder()
    const [one, two] = await openTwo()
    const [first, again, another] = ['a', 'a', 'b'].map(name => openSync(join(folder, name), 'w'))
    const domains = [first, again, another].map(file => one.xrcd({ file }))
    assert.deepEqual(
      domains.map(xrcd => xrcd.query().openers),
      [2, 2, 1],
    )
    assert.throws(() => one.xrcd({ file: again, exclusive: true }), { code: 'EINVAL' })
    for (const fd of [first, again, another]) closeSync(fd)
    assert.throws(() => one.xrcd({ file: first }), { code: 'EBADF' })
    await Promise.all([one.close(), two.close()])
  })

  test('the endpoint of a datagram queue pair has the Q_Key that a query returns', async () => {
    const [one, two] = await openTwo()
    const { pd, cq } = resourcesOn(one)
    const chosen = pd.udQp({ sendCq: cq, active: { qkey: 7 } })
    const zero = pd.udQp({ sendCq: cq, active: { qkey: 0 } })
    const activatedLater = pd.udQp({ sendCq: cq })
    const early = activatedLater.endpoint.qkey
    activatedLater.activate()
    const changed = pd.udQp({ sendCq: cq, active: true })
    changed.modify({ state: 'RTS', qkey: 9 })
    const queuePairs = [chosen, zero, activatedLater, changed]
    const keys = queuePairs.map(({ endpoint }) => endpoint.qkey)
    assert.deepEqual(keys, [7, 0, early, 9])
    assert.deepEqual(
      keys,
      queuePairs.map(qp => qp.query().qkey),
    )
    await one.close()
    await two.close()
  })

  test('a counting queue wakes waiters after the threshold’s count or time', async () => {
    const [one, two] = await openTwo()
    const [a, b] = [resourcesOn(one), resourcesOn(two)]
    const counting = b.device.cq({ kind: 'counting' })
    const sender = a.pd.rcQp({ sendCq: a.cq })
    const receiver = b.pd.rcQp({ sendCq: b.cq, recvCq: counting, maxRecvWr: 40 })
    sender.connect(receiver.endpoint)
    receiver.connect(sender.endpoint)
    for (let id = 0; id < 40; id++) receiver.receive(b.mr.slice(0, 8), id)
    const send = async (count: number) => {
      for (let id = 0; id < count; id++) {
        sender.send(Uint8Array.of(id), { id })
        assert.equal(await completionText(a.cq), `${id} SEND`)
      }
    }
    await send(1)
    await counting.wait()
    assert.deepEqual([counting.count, counting.poll(), counting.query().errors], [1, false, 0n])
    counting.moderate({ completions: 10 })
    assert.equal(counting.query().count, 10)
    const grown = counting.wait()
    await send(20)
    await grown
    assert.deepEqual([counting.count, counting.query().completions], [21, 21n])
    counting.moderate({ completions: 60_000, microseconds: 2000 })
    const timed = counting.wait()
    await send(2)
    await timed
    assert.equal(counting.count, 23)
    assert.throws(() => counting.resize(100), { code: 'EINVAL' })
    await assert.rejects(counting.completions().next(), { code: 'EINVAL', reason: /counting queue has no completions/ })
    await closeAll(a, b)
  })

  test('timestamps of completions in a queue of kind `timed` never decrease', async () => {
    const [one, two] = await openTwo()
    const [a, b] = [resourcesOn(one), resourcesOn(two)]
    const cq = a.device.cq({ kind: 'timed', entries: 4 })
    const sender = a.pd.rcQp({ sendCq: cq })
    const receiver = b.pd.rcQp({ sendCq: b.cq })
    sender.connect(receiver.endpoint)
    receiver.connect(sender.endpoint)
    const times = [one.clock()]
    for (let id = 0; id < 3; id++) {
      sender.write(Uint8Array.of(id), b.mr.remote(), { id })
      await nextCompletion(cq)
      times.push(cq.completion.timestamp ?? 0, one.clock())
    }
    assert.ok(times[0] > 0)
    assert.deepEqual(
      times,
      [...times].sort((x, y) => x - y),
    )
    assert.equal(cq.count, 3)
    await closeAll(a, b)
  })

  test('a region can be reregistered', async () => {
    const { a, b } = await pair(openTwo)
    b.mr.reregister({ access: { remoteRead: true } })
    assert.equal(b.mr.query().rkey, b.mr.rkey)
    a.qp.write(Uint8Array.of(1), b.mr.remote(), { id: 1 })
    assert.equal(await completionText(a.cq), '1 REM_ACCESS_ERR')
    assert.equal(b.buffer[0], 0)
    await closeAll(a, b)
  })

  test('a completion queue with completions can be resized', async () => {
    const [one, two] = await openTwo()
    const { cq, mr, pd } = resourcesOn(one)
    const [x, y] = [pd.rcQp({ sendCq: cq }), pd.rcQp({ sendCq: cq })]
    x.connect(y.endpoint)
    y.connect(x.endpoint)
    for (let id = 0; id < 10; id++) x.write(mr.slice(0, 8), mr.remote(8, 8), { id })
    assert.equal(await completionText(cq), '0 RDMA_WRITE')
    cq.resize(500)
    assert.ok(cq.entries >= 500)
    for (let id = 1; id < 10; id++) assert.equal(await completionText(cq), `${id} RDMA_WRITE`)
    assert.equal(cq.poll(), false)
    await one.close()
    await two.close()
  })
})

test('a message may consume a receive request while its queue is resized', async () => {
  const [a, b] = (await openTwoInProcess()()).map(one => resourcesOn(one))
  const srq = b.pd.srq({ maxWr: 4 })
  const sender = a.pd.rcQp({ sendCq: a.cq })
  const receiver = b.pd.rcQp({ sendCq: b.cq, srq })
  sender.connect(receiver.endpoint)
  receiver.connect(sender.endpoint)
  for (let id = 1; id <= 3; id++) srq.receive(b.mr.slice(id * 16, 16), id)
  // A message consumes a receive request before the call runs. On a daemon this may happen.
  const { carrier } = (srq as unknown as { context: DeviceContext }).context
  const { call } = carrier
  const sendFirst: AnyCall = (...args) => {
    sender.send(Uint8Array.of(1))
    while (!b.cq.poll());
    return call(...args)
  }
  carrier.call = sendFirst as typeof call
  srq.resize(100)
  carrier.call = call
  assert.deepEqual([b.cq.completion.id, srq.pending], [1, 2])
  srq.receive(b.mr.slice(64, 16), 4)
  for (let id = 2; id <= 4; id++) {
    sender.send(Uint8Array.of(id))
    assert.equal(await completionText(b.cq), `${id} RECV`)
    assert.equal(b.buffer[id * 16], id)
  }
  assert.equal(srq.pending, 0)
  await closeAll(a, b)
})
