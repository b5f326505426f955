/*
 * Connected queue pairs in the library.
 */
import assert from 'node:assert/strict'
import { constants } from 'node:os'
import { test } from 'node:test'
import { createNetwork, type RcQueuePair, RdmaError } from '../../../../src/library/index.ts'
import { Classes } from '../../../../src/spec/classes.ts'
import { closeAll, eachCarrier, endpointOn, nextCompletion, nextEvent, pair, resourcesOn } from '../endpoints.ts'

eachCarrier(openTwo => {
  test('a message goes from one device to another', async () => {
    const { a, b } = await pair(openTwo)
    a.buffer.set([1, 2, 3, 4, 5])
    b.qp.receive(b.mr.slice(100, 50), 7)
    a.qp.send(a.mr.slice(0, 5), { id: 9, immediate: 0xdeadbeef })
    const received = {
      id: 7,
      statusName: 'SUCCESS',
      opcodeName: 'RECV',
      bytes: 5,
      immediate: 0xdeadbeef,
      qpn: b.qp.qpn,
    }
    const { invalidated, sourceQpn: _, hasGrh: __, ...completion } = await nextCompletion(b.cq)
    assert.deepEqual(completion, received)
    assert.equal(invalidated, undefined)
    assert.deepEqual([...b.buffer.subarray(99, 106)], [0, 1, 2, 3, 4, 5, 0])
    const { id, statusName, opcodeName } = await nextCompletion(a.cq)
    assert.deepEqual([id, statusName, opcodeName], [9, 'SUCCESS', 'SEND'])
    await closeAll(a, b)
  })

  test('WRITE, READ and atomics access the peer’s memory without its program', async () => {
    const { a, b } = await pair(openTwo)
    a.buffer.fill(0x5a, 0, 3000)
    a.qp.write(a.mr.slice(0, 3000), b.mr.remote(1000), { id: 1 })
    await nextCompletion(a.cq)
    assert.ok(b.buffer.subarray(1000, 4000).every(byte => byte === 0x5a))
    const [wordsOfA, wordsOfB] = [a, b].map(({ buffer }) => new DataView(buffer.buffer)) as [DataView, DataView]
    /** Offset of a word of `b`, and of its values in `a` after READ, fetch and add, compare and swap. */
    const [word, readTo, addTo, swapTo] = [8, 3000, 3008, 3016]
    wordsOfB.setBigUint64(word, 0x1_0000_0007n, true)
    a.qp.read(a.mr.slice(readTo, 8), b.mr.remote(word, 8))
    a.qp.fetchAdd(a.mr.slice(addTo, 8), b.mr.remote(word, 8), 5n, { fence: true })
    a.qp.compareSwap(a.mr.slice(swapTo, 8), b.mr.remote(word, 8), 0x1_0000_000cn, 99n)
    for (const opcode of ['RDMA_READ', 'FETCH_ADD', 'COMP_SWAP'])
      assert.equal((await nextCompletion(a.cq)).opcodeName, opcode)
    assert.deepEqual(
      [readTo, addTo, swapTo].map(at => wordsOfA.getBigUint64(at, true)),
      [0x1_0000_0007n, 0x1_0000_0007n, 0x1_0000_000cn],
    )
    assert.equal(wordsOfB.getBigUint64(word, true), 99n)
    await closeAll(a, b)
  })

  test('unregistered bytes are sent inline; one request gathers several registered slices', async () => {
    const { a, b } = await pair(openTwo, { maxSendSge: 3 })
    b.qp.receive(b.mr.slice())
    a.qp.send(Uint8Array.of(1, 2, 3))
    assert.equal((await nextCompletion(b.cq)).bytes, 3)
    a.buffer.set([10, 20, 30])
    a.qp.write([a.mr.slice(2, 1), a.mr.slice(0, 1), a.mr.slice(1, 1)], b.mr.remote(3))
    await nextCompletion(a.cq)
    await nextCompletion(a.cq)
    assert.deepEqual([...b.buffer.subarray(0, 7)], [1, 2, 3, 30, 10, 20, 0])
    assert.throws(
      () => a.qp.send(new Uint8Array(a.qp.maxInlineData + 1)),
      /RdmaError: qp\.send: \d+ bytes inline, at most/,
    )
    assert.throws(() => a.qp.send(new Array(9).fill(a.mr.slice(0, 1))), /9 scatter.gather elements, at most \d/)
    await closeAll(a, b)
  })

  test('`for await` iterates over completions until its signal is aborted', async () => {
    const { a, b } = await pair(openTwo)
    const stop = new AbortController()
    const ids: number[] = []
    const iteration = (async () => {
      for await (const wc of b.cq.completions({ signal: stop.signal })) ids.push(wc.id)
    })()
    for (let i = 0; i < 5; i++) b.qp.receive(b.mr.slice(), i)
    for (let i = 0; i < 5; i++) {
      a.qp.send(a.mr.slice(0, 8))
      await nextCompletion(a.cq)
    }
    while (ids.length < 5) await new Promise(setImmediate)
    stop.abort(new Error('enough'))
    await assert.rejects(iteration, /enough/)
    assert.deepEqual(ids, [0, 1, 2, 3, 4])
    await closeAll(a, b)
  })

  test('a UC queue pair sends a message', async () => {
    const [device, otherDevice] = await openTwo()
    const pd = device.pd()
    const cq = device.cq()
    const [sender, receiver] = [pd.ucQp({ sendCq: cq }), pd.ucQp({ sendCq: cq })]
    sender.connect(receiver.endpoint)
    receiver.connect(sender.endpoint)
    const mr = pd.register(new Uint8Array(64))
    receiver.receive(mr.slice(), 1)
    sender.send(Uint8Array.of(4, 5), { id: 2 })
    assert.deepEqual([(await nextCompletion(cq)).id, (await nextCompletion(cq)).id].sort(), [1, 2])
    await closeAll({ device }, { device: otherDevice })
  })

  test('an RdmaError has errno, call, reason and remedy; invalid arguments are EINVAL', async () => {
    const { a, b } = await pair(openTwo)
    const thrown = (run: () => unknown): RdmaError => {
      try {
        run()
      } catch (error) {
        if (error instanceof RdmaError) return error
      }
      return assert.fail('no RdmaError')
    }
    const busy = thrown(() => a.cq.close())
    assert.deepEqual([busy.code, busy.errno, busy.call], ['EBUSY', constants.errno.EBUSY, 'cq.close'])
    assert.match(busy.message, /close what uses it first/)
    const member = a.pd.udQp({ sendCq: a.cq, active: true })
    member.attach('239.0.0.1')
    // The reason has the remedy.
    assert.match(thrown(() => member.close()).message, /detach it first \(EBUSY\)$/)
    member.detach('239.0.0.1')
    member.close()
    assert.equal(thrown(() => a.qp.modify({ state: 'INIT' })).code, 'EINVAL')
    assert.equal(thrown(() => a.mr.slice(a.buffer.length - 1, 2)).code, 'EINVAL')
    // The memory of a resizable buffer may shrink.
    const resizable = Reflect.construct(ArrayBuffer, [8, { maxByteLength: 16 }]) as ArrayBuffer
    assert.equal(thrown(() => a.pd.register(new Uint8Array(resizable))).code, 'EINVAL')
    assert.equal(thrown(() => createNetwork({ fault: 'dorp=1' })).code, 'EINVAL')
    assert.match(thrown(() => b.qp.connect({ qpn: 1, gid: 'here', psn: 0 })).message, /gid "here" is not an address/)
    await closeAll(a, b)
  })

  test('posting to a full queue is refused until completions are polled', async () => {
    const { a, b } = await pair(openTwo)
    const { maxSendWr } = a.qp.query().cap
    // No send completes: the peer has no receive.
    for (let i = 0; i < maxSendWr; i++) a.qp.send(a.mr.slice(0, 1), { signaled: i === maxSendWr - 1 })
    assert.equal(a.qp.pending, maxSendWr)
    assert.throws(() => a.qp.send(a.mr.slice(0, 1)), { code: 'ENOMEM' })
    for (let i = 0; i < maxSendWr; i++) b.qp.receive(b.mr.slice(0, 1))
    await nextCompletion(a.cq)
    assert.equal(a.qp.pending, 0)
    a.qp.write(a.mr.slice(0, 1), b.mr.remote())
    await nextCompletion(a.cq)
    await closeAll(a, b)
  })

  test('a refused WRITE moves both queue pairs to ERR, the responder with an event; after RESET they connect again', async () => {
    const { a, b } = await pair(openTwo)
    const event = nextEvent(b.device)
    const heard: string[] = []
    b.device.addEventListener('QP_ACCESS_ERR', ({ type, source }) => source === b.qp && heard.push(type))
    a.qp.write(a.mr.slice(0, 8), { ...b.mr.remote(), rkey: 0x1234 }, { id: 3 })
    const { id, statusName } = await nextCompletion(a.cq)
    assert.deepEqual([id, statusName, a.qp.state, b.qp.state], [3, 'REM_ACCESS_ERR', 'ERR', 'ERR'])
    const { type, source } = (await event) ?? {}
    assert.deepEqual([type, source === b.qp, heard], ['QP_ACCESS_ERR', true, ['QP_ACCESS_ERR']])
    const reset = (qp: RcQueuePair) => qp.modify({ state: 'RESET' })
    reset(a.qp)
    reset(b.qp)
    a.qp.connect(b.qp.endpoint)
    b.qp.connect(a.qp.endpoint)
    a.qp.write(a.mr.slice(0, 8), b.mr.remote())
    assert.equal((await nextCompletion(a.cq)).statusName, 'SUCCESS')
    await closeAll(a, b)
  })

  test('after a failed bind, a window can be bound again', async () => {
    const [device] = await openTwo()
    const { pd, mr } = resourcesOn(device)
    const unbindable = pd.register(new Uint8Array(64))
    for (const type of [1, 2] as const)
      for (const isReliable of [true, false]) {
        const makeQp = () => (isReliable ? pd.rcQp() : pd.ucQp())
        const [qp, peer, other] = [makeQp(), makeQp(), makeQp()]
        qp.connect(peer.endpoint)
        peer.connect(qp.endpoint)
        const window = pd.window(type)
        const failing = [qp.bind(window, { region: unbindable }), qp.bind(window, { region: mr })]
        const statuses = (await Promise.allSettled(failing)).map(({ status }) => status)
        assert.deepEqual(statuses, ['rejected', 'rejected'])
        // An error of UC moves the queue pair to SQE.
        if (isReliable) {
          qp.modify({ state: 'RESET' })
          qp.connect(peer.endpoint)
        } else qp.modify({ state: 'RTS' })
        const bound = await qp.bind(window, { region: mr })
        assert.equal(window.query().rkey, bound.rkey)
        if (type === 2) await qp.invalidate(window)
        await assert.rejects(qp.bind(window, { region: unbindable }))
        other.connect(peer.endpoint)
        const { rkey } = await other.bind(window, { region: mr })
        assert.equal(window.query().rkey, rkey)
      }
    await device.close()
  })

  test('a window can be bound again before an earlier bind is executed', async () => {
    const [device] = await openTwo()
    const { pd, mr } = resourcesOn(device)
    const [qp, peer, other] = [pd.rcQp(), pd.rcQp(), pd.rcQp()]
    qp.connect(peer.endpoint)
    other.connect(peer.endpoint)
    const window = pd.window(1)
    // One after the other: nothing orders the binds of two queue pairs.
    await qp.bind(window, { region: mr })
    await other.bind(window, { region: mr })
    assert.equal(window.query().rkey, window.rkey)
    // The peer does not answer yet, and a fenced bind waits for the READ.
    const requests = [qp.read(mr.slice(0, 8), mr.remote()), qp.bind(window, { region: mr }, { fence: true })]
    // A change of state usually means that an earlier bind has failed. Here the bind is still outstanding.
    qp.modify({ state: 'RTS', minRnrTimer: 1 })
    requests.push(qp.bind(window, { region: mr }))
    peer.connect(qp.endpoint)
    await Promise.all(requests)
    assert.equal(window.query().rkey, window.rkey)
    await device.close()
  })

  test('the 8 key bits of a window’s rkey wrap around; the other bits stay', async () => {
    const [device] = await openTwo()
    const { pd, mr } = resourcesOn(device)
    const [qp, peer] = [pd.rcQp(), pd.rcQp()]
    qp.connect(peer.endpoint)
    const window = pd.window(1)
    const index = window.rkey >>> 8
    const binds = 300 // more than 2^8
    for (let i = 0; i < binds; i++) assert.equal((await qp.bind(window, { region: mr })).rkey >>> 8, index)
    assert.equal(window.query().rkey, window.rkey)
    await device.close()
  })

  test('`using` closes objects, and closing a device closes all its objects', async () => {
    const [device, otherDevice] = await openTwo()
    {
      using pd = device.pd()
      using mr = pd.register(new Uint8Array(8), { remoteRead: true })
      assert.equal(mr.remote().length, 8)
    }
    assert.deepEqual(device.handles(Classes.pd, Classes.mr), [])
    const { cq } = endpointOn(device)
    const waiting = cq.wait()
    await device.close()
    await waiting
    assert.throws(() => device.pd(), { code: 'ERR_CLOSED' })
    await closeAll({ device }, { device: otherDevice })
  })

  test('an unsolicited completion does not wake a waiter for solicited completions', async () => {
    const { a, b } = await pair(openTwo)
    let isWoken = false
    for (let id = 1; id <= 2; id++) b.qp.receive(b.mr.slice(), id)
    const waiting = b.cq.wait({ solicitedOnly: true }).then(() => {
      isWoken = true
    })
    await new Promise(setImmediate)
    a.qp.send(Uint8Array.of(1))
    await nextCompletion(a.cq)
    assert.equal(isWoken, false)
    a.qp.send(Uint8Array.of(2), { solicited: true })
    await waiting
    assert.deepEqual([(await nextCompletion(b.cq)).id, (await nextCompletion(b.cq)).id], [1, 2])
    await closeAll(a, b)
  })

  test('a device has attributes', async () => {
    const { a, b } = await pair(openTwo)
    const { device } = a
    assert.equal(
      device
        .gids()
        .find(({ index }) => index === 1)
        ?.gid.slice(12)
        .join('.'),
      device.address,
    )
    assert.equal(device.queryPort().maxMtu, device.queryPort().activeMtu)
    assert.ok(device.query().maxQp > 1000)
    assert.ok(device.supports('rc_qp', 'create') && !device.supports('no_qp') && !device.supports('rc_qp', 'x'))
    assert.ok(device.interface().some(({ name }) => name === 'interface'))
    assert.equal(b.device.address, '127.0.0.2')
    await closeAll(a, b)
  })

  test('a signal or the close of the device ends a wait for events', async () => {
    const { a, b } = await pair(openTwo)
    const { device } = a
    const stop = new AbortController()
    const nextOfIteration = (signal?: AbortSignal) => device.events(signal && { signal }).next()
    const stopped = nextOfIteration(stop.signal)
    const ended = nextOfIteration()
    stop.abort(new Error('enough'))
    await assert.rejects(stopped, /enough/)
    await closeAll(a, b)
    assert.equal((await ended).done, true)
  })

  test('a closed queue refuses calls, and its memory may be reused', async () => {
    const [device, otherDevice] = await openTwo()
    const { pd, mr, cq } = resourcesOn(device)
    const srq = pd.srq()
    const qp = pd.rcQp({ sendCq: cq, maxSendWr: 4 })
    const slice = mr.slice(0, 8)
    qp.receive(slice)
    srq.receive(slice)
    qp.close()
    srq.close()
    const newQp = pd.rcQp({ sendCq: cq, maxSendWr: 4 })
    assert.throws(() => qp.send(slice), { code: 'ERR_CLOSED', message: /closed/ })
    assert.throws(() => qp.receive(slice), { code: 'ERR_CLOSED', message: /closed/ })
    assert.throws(() => srq.receive(slice), { code: 'ERR_CLOSED', message: /closed/ })
    assert.equal(newQp.pending, 0, 'the refused calls did not post to the new queue pair, which may have the memory')
    newQp.close()
    cq.close()
    assert.throws(() => cq.poll(), { code: 'ERR_CLOSED', message: /closed/ })
    await device.close()
    await otherDevice.close()
  })
})

test('a connected queue pair says so when it is connected again, and a timeout in milliseconds is rounded up', async () => {
  const { a, b } = await pair()
  assert.throws(() => a.qp.connect(b.qp.endpoint), {
    code: 'EINVAL',
    message:
      /^qp\.connect: the queue pair is connected already: it is in RTS \(EINVAL\); modify\(\{ state: "RESET" \}\)/,
  })
  const exponents: number[] = []
  for (const ackTimeout of [0, 0.001, 67.1, 67.2, 8_796_093]) {
    a.qp.modify({ state: 'RESET' })
    a.qp.connect(b.qp.endpoint, { ackTimeout })
    exponents.push(a.qp.query().ackTimeoutExponent)
  }
  assert.deepEqual(exponents, [0, 1, 14, 15, 31])
  a.qp.modify({ state: 'RESET' })
  for (const [options, message] of [
    [{ ackTimeout: -1 }, /ackTimeout -1 is not in 0 to 8796093 milliseconds/],
    [{ ackTimeout: 1, ackTimeoutExponent: 1 }, /ackTimeout and ackTimeoutExponent exclude each other/],
  ] as const)
    assert.throws(() => a.qp.connect(b.qp.endpoint, options), { code: 'EINVAL', message })
  await closeAll(a, b)
})
