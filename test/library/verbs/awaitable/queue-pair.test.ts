/*
 * Queue pairs whose requests return promises.
 */
import assert from 'node:assert/strict'
import { createHook } from 'node:async_hooks'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { hasNative } from '../../../../src/host/native.ts'
import { GRH_BYTES, open, RdmaError, RequestError, requestWindow } from '../../../../src/library/index.ts'
import { Cq } from '../../../../src/spec/classes/cq.ts'
import { startDaemon, TWO_DEVICES } from '../../../system/programs.ts'
import { countMoves } from '../array-moves.ts'
import { eachCarrier, type OpenTwo, openTwoInProcess } from '../endpoints.ts'
import { untyped } from '../mistakes/mistakes.ts'

const pair = async (openTwo: OpenTwo) => {
  const [one, two] = await openTwo()
  const side = (device: typeof one) => {
    const pd = device.pd()
    const buffer = new Uint8Array(4096)
    const mr = pd.register(buffer, { remoteRead: true, remoteWrite: true, remoteAtomic: true, flushGlobal: true })
    return { device, pd, buffer, mr, qp: pd.rcQp() }
  }
  const [a, b] = [side(one), side(two)]
  a.qp.connect(b.qp.endpoint)
  b.qp.connect(a.qp.endpoint)
  return { a, b, close: () => Promise.all([one.close(), two.close()]) }
}

const failureOf = async (promise: Promise<unknown>): Promise<RdmaError> => {
  const error = await promise.then(
    () => undefined,
    reason => reason,
  )
  assert.ok(error instanceof RdmaError, String(error))
  return error
}

eachCarrier(openTwo => {
  test('each request resolves with its own completion, in any order of awaits', async () => {
    const { a, b, close } = await pair(openTwo)
    const message = b.qp.receive(b.mr.slice(0, 100))
    const emptyReceive = b.qp.receive()
    const send = a.qp.send(Uint8Array.of(1, 2, 3), { immediate: 7 })
    const write = a.qp.write(Uint8Array.of(9), b.mr.remote(200, 1))
    const immediateWrite = a.qp.write(Uint8Array.of(8), b.mr.remote(201, 1), { immediate: 11 })
    const read = a.qp.read(a.mr.slice(300, 3), b.mr.remote(0, 3))
    a.buffer[400] = 77
    const word = b.mr.remote(512, 8)
    await a.qp.fetchAdd(a.mr.slice(400, 8), word, 5n)
    assert.equal(a.buffer[400], 0)
    await a.qp.compareSwap(a.mr.slice(400, 8), word, 5n, 6n)
    assert.deepEqual([a.buffer[400], b.buffer[512]], [5, 6])
    await a.qp.atomicWrite(word, 9n)
    assert.equal((await a.qp.flush(word)).opcode, 'FLUSH')
    const { address, rkey } = word
    const wholeFlush = await a.qp.flush({ address, rkey, length: 2 ** 33 }, { wholeRegion: true })
    assert.equal(wholeFlush.bytes, 2 ** 31, 'the length in the packet, which rxe limits')
    assert.equal(b.buffer[512], 9)
    // A ping is a WRITE of length 0.
    assert.equal((await a.qp.ping()).opcode, 'RDMA_WRITE')
    assert.deepEqual([(await read).opcode, (await read).bytes], ['RDMA_READ', 3])
    assert.deepEqual(
      [await immediateWrite, await write, await send].map(({ opcode }) => opcode),
      ['RDMA_WRITE', 'RDMA_WRITE', 'SEND'],
    )
    const { opcode, bytes, immediate } = await message
    assert.deepEqual([opcode, bytes, immediate], ['RECV', 3, 7])
    assert.deepEqual([(await emptyReceive).opcode, (await emptyReceive).immediate], ['RECV_RDMA_WITH_IMM', 11])
    assert.deepEqual([...a.buffer.subarray(300, 303)], [1, 2, 3])
    assert.deepEqual([...b.buffer.subarray(200, 202)], [9, 8])
    assert.equal(a.qp.pending, 0)
    await close()
  })

  test('a failed request rejects with status, opcode, cause; flushed requests name the earlier failure', async () => {
    const { a, b, close } = await pair(openTwo)
    const deregistered = b.pd.register(new Uint8Array(8), { remoteWrite: true })
    const remote = deregistered.remote()
    deregistered.close()
    const refusedWrite = failureOf(a.qp.write(Uint8Array.of(1), remote))
    // Flushed too; an unhandled rejection would end the test.
    void a.qp.write(Uint8Array.of(1), b.mr.remote(0, 1))
    const flushedWrite = failureOf(a.qp.write(Uint8Array.of(1), b.mr.remote(0, 1)))
    const error = await refusedWrite
    assert.ok(error instanceof RequestError)
    const { status, opcode, causeName, call, code, cause } = error
    assert.deepEqual(
      { status, opcode, causeName, call, code, cause },
      {
        status: 'REM_ACCESS_ERR',
        opcode: 'RDMA_WRITE',
        causeName: 'RKEY_DEREGISTERED',
        call: 'qp.write',
        code: 'EACCES',
        cause: undefined,
      },
    )
    assert.match(error.message, /^qp\.write: REM_ACCESS_ERR: .*rkey .* was deregistered/)
    const flushedError = await flushedWrite
    assert.ok(flushedError instanceof RequestError)
    assert.deepEqual([flushedError.status, flushedError.code, flushedError.cause], ['WR_FLUSH_ERR', 'ECANCELED', error])
    assert.match(flushedError.message, /qp\.write failed before: REM_ACCESS_ERR/)
    await close()
  })

  test('outstanding requests, awaited or not, reject with ECANCELED at a close or reset of the queue pair or a close of the device', async () => {
    const { a, b, close } = await pair(openTwo)
    const awaitedUntilClose = failureOf(b.qp.receive())
    void b.qp.receive()
    b.qp.close()
    const { code, reason } = await awaitedUntilClose
    assert.deepEqual([code, reason], ['ECANCELED', 'the queue pair was closed before the request was complete'])
    const awaitedUntilReset = failureOf(a.qp.receive())
    a.qp.modify({ state: 'RESET' })
    const resetError = await awaitedUntilReset
    assert.equal(resetError.code, 'ECANCELED')
    assert.match(resetError.message, /moved to RESET/)
    const newPeer = b.pd.rcQp()
    a.qp.connect(newPeer.endpoint)
    newPeer.connect(a.qp.endpoint)
    await a.qp.write(Uint8Array.of(4), b.mr.remote(0, 1))
    const awaitedUntilDeviceClose = failureOf(a.qp.receive())
    await close()
    assert.equal((await awaitedUntilDeviceClose).code, 'ECANCELED')
    // An unhandled rejection would end the test.
    await nextTurn()
  })

  test('queue pairs can be closed after their device', async () => {
    const { a, b, close } = await pair(openTwo)
    // Each close polls, and each 128th poll checks the daemon (POLLS_PER_CHECK).
    const qps = Array.from({ length: 200 }, () => a.pd.rcQp())
    await close()
    for (const qp of qps) qp.close()
    b.qp.close()
  })

  test('a full queue rejects requests; a window limits the number of requests in flight', async () => {
    const { a, b, close } = await pair(openTwo)
    const receives = Array.from({ length: 17 }, () => a.qp.receive())
    const fullError = await failureOf(receives[16])
    assert.match(
      fullError.message,
      /the receive queue is full: 16 requests are outstanding.*requestWindow.*larger maxRecvWr/,
    )
    const writes = Array.from({ length: 17 }, () => a.qp.write(Uint8Array.of(0), b.mr.remote(0, 1)))
    assert.match((await failureOf(writes[16]!)).message, /the send queue is full: 16 .*larger maxSendWr/)
    await Promise.all(writes.slice(0, 16))
    const window = requestWindow(16)
    let maxPending = 0
    for (let i = 0; i < 200; i++) {
      await window.add(() => a.qp.write(Uint8Array.of(i), b.mr.remote(i, 1)))
      maxPending = Math.max(maxPending, a.qp.pending)
    }
    await window.drain()
    assert.ok(maxPending <= 16 && window.inFlight === 0)
    assert.deepEqual([...b.buffer.subarray(0, 200)], [...Array(200).keys()])
    await close()
  })

  test('requests of datagrams and unreliable connections return promises', async () => {
    const { a, b, close } = await pair(openTwo)
    const [sender, receiver] = [a.pd.udQp({ active: true }), b.pd.udQp({ active: { qkey: 42 } })]
    const received = receiver.receive(b.mr.slice(0, GRH_BYTES + 8))
    const ah = a.pd.addressHandle(receiver.endpoint)
    await sender.send(Uint8Array.of(1, 2), { ah, qpn: receiver.qpn, qkey: 42 })
    const { bytes, sourceQpn } = await received
    assert.deepEqual([bytes, sourceQpn], [GRH_BYTES + 2, sender.qpn])
    const [ucSender, ucReceiver] = [a.pd.ucQp(), b.pd.ucQp()]
    ucSender.connect(ucReceiver.endpoint)
    ucReceiver.connect(ucSender.endpoint)
    const message = ucReceiver.receive(b.mr.slice(0, 8))
    await ucSender.send(Uint8Array.of(5))
    assert.equal((await message).bytes, 1)
    await close()
  })
})

test('`drained` waits for sends, also for those that a close cancels, but not for receives', async () => {
  const { a, b, close } = await pair(openTwoInProcess())
  await a.qp.drained()
  const receive = a.qp.receive(a.mr.slice(0, 8))
  void a.qp.write(Uint8Array.of(7), b.mr.remote(0, 1))
  const write = a.qp.write(Uint8Array.of(8), b.mr.remote(1, 1))
  let isWritten = false
  void write.then(() => {
    isWritten = true
  })
  await a.qp.drained()
  assert.deepEqual([isWritten, a.qp.pending, ...b.buffer.subarray(0, 2)], [true, 0, 7, 8])
  // The peer has no receive.
  const send = failureOf(a.qp.send(Uint8Array.of(1)))
  let isDrained = false
  const waits = [a.qp.drained(), a.qp.drained().then(() => (isDrained = true))]
  await b.qp.send(Uint8Array.of(2))
  await receive
  await nextTurn()
  assert.equal(isDrained, false)
  a.qp.close()
  await Promise.all(waits)
  assert.equal((await send).code, 'ECANCELED')
  await a.qp.drained()
  await close()
})

test('an error has the errno of its status', async () => {
  const { a, b, close } = await pair(openTwoInProcess())
  const shortReceive = failureOf(b.qp.receive(b.mr.slice(0, 1)))
  const errors = [await failureOf(a.qp.send(Uint8Array.of(1, 2))), await shortReceive]
  for (const { qp } of [a, b]) qp.modify({ state: 'RESET' })
  b.qp.connect(a.qp.endpoint)
  a.qp.connect(b.qp.endpoint, { rnrRetryCount: 0 })
  errors.push(await failureOf(a.qp.send(Uint8Array.of(1))))
  assert.deepEqual(
    errors.map(error => (error instanceof RequestError ? [error.status, error.code] : error)),
    [
      ['REM_INV_REQ_ERR', 'EINVAL'],
      ['LOC_LEN_ERR', 'EMSGSIZE'],
      ['RNR_RETRY_EXC_ERR', 'ETIMEDOUT'],
    ],
  )
  await close()
})

test('a queue pair that is refused or closed leaves no completion queue, a refused post no outstanding request', async () => {
  const { a, close } = await pair(openTwoInProcess())
  const cqs = a.device.handles(Cq).length
  assert.throws(() => a.pd.rcQp({ maxSendWr: 0.5 }), /maxSendWr/)
  assert.throws(() => a.pd.rcQp({ maxSendWr: 2 ** 20 }), /maxSendWr/)
  const closed = a.pd.rcQp()
  for (let i = 0; i < 2; i++) closed.close()
  assert.equal(a.device.handles(Cq).length, cqs)
  for (let i = 0; i < 17; i++) assert.equal((await failureOf(a.qp.write(untyped('x'), untyped(1)))).code, 'EINVAL')
  assert.equal(a.qp.pending, 0)
  await close()
})

test('invalid arguments are refused with a message', async () => {
  const { a, b, close } = await pair(openTwoInProcess())
  assert.match((await failureOf(a.qp.write(untyped('x'), b.mr.remote()))).message, /"x" is not a slice/)
  assert.match((await failureOf(a.qp.send(Uint8Array.of(1), untyped({ id: 4 })))).message, /id is for queue pairs with/)
  assert.match(
    (await failureOf(a.qp.send(Uint8Array.of(1), untyped({ solicitd: 1 })))).message,
    /"solicitd" is unknown/,
  )
  for (const options of [5, null, []])
    assert.match(
      (await failureOf(a.qp.send(Uint8Array.of(1), untyped(options)))).hint,
      /^give \{ fence: true \}, or nothing$/,
    )
  assert.throws(() => a.pd.rcQp(untyped({ sendCQ: 1 })), /"sendCQ" is unknown/)
  // As absent: its requests return promises.
  assert.ok('drained' in a.pd.rcQp(untyped({ sendCq: undefined })))
  assert.throws(() => a.pd.rcQp({ maxSendWr: -1 }), /maxSendWr: -1 is not/)
  await close()
})

test('the hint of a failed request tells how to restart the queue pair, and works', async () => {
  const errHint = (call: string): string =>
    `the queue pair is in ERR: modify({ state: "RESET" }) and ${call} start it again`
  const sqeHint = 'the queue pair is in SQE and still receives: modify({ state: "RTS" }) lets it send again'
  const { a, b, close } = await pair(openTwoInProcess())
  /** Memory of another protection domain: requests with it fail with LOC_PROT_ERR. */
  const [foreignA, foreignB] = [a, b].map(({ device }) => device.pd().register(new Uint8Array(64)).slice())
  const failSend = async (send: (local: ReturnType<typeof a.mr.slice>) => Promise<unknown>) => {
    const [failing, flushed] = [failureOf(send(foreignA!)), failureOf(send(a.mr.slice(0, 8)))]
    const [error, flush] = [await failing, await flushed]
    assert.ok(error instanceof RequestError && flush instanceof RequestError)
    assert.deepEqual(
      [error.status, error.code, flush.status, flush.cause],
      ['LOC_PROT_ERR', 'EACCES', 'WR_FLUSH_ERR', error],
    )
    assert.equal(flush.hint, error.hint)
    return error.hint
  }

  const [sender, receiver] = [a.pd.udQp({ active: true }), b.pd.udQp({ active: { qkey: 42 } })]
  const ah = a.pd.addressHandle(receiver.endpoint)
  const sendTo = (local: Parameters<typeof sender.send>[0]) => sender.send(local, { ah, qpn: receiver.qpn, qkey: 42 })
  for (let round = 0; round < 2; round++) {
    assert.equal(await failSend(sendTo), sqeHint)
    sender.modify({ state: 'RTS' })
    await sendTo(Uint8Array.of(1))
  }
  const [failing, flushed] = [failureOf(receiver.receive(foreignB)), failureOf(receiver.receive(b.mr.slice(0, 64)))]
  void sendTo(Uint8Array.of(1))
  assert.deepEqual([(await failing).hint, (await flushed).hint], [errHint('activate()'), errHint('activate()')])
  receiver.modify({ state: 'RESET' })
  receiver.activate({ qkey: 42 })
  const received = receiver.receive(b.mr.slice(0, 64))
  await sendTo(Uint8Array.of(1))
  assert.equal((await received).bytes, GRH_BYTES + 1)
  sender.modify({ state: 'ERR' })
  assert.equal((await failureOf(sendTo(Uint8Array.of(1)))).hint, errHint('activate()'))
  const restart = (): void => {
    sender.modify({ state: 'RESET' })
    sender.activate()
  }

  // From SQE to ERR, by the program or by a failed receive.
  restart()
  assert.equal(await failSend(sendTo), sqeHint)
  sender.modify({ state: 'ERR' })
  assert.equal((await failureOf(sendTo(Uint8Array.of(1)))).hint, errHint('activate()'))
  restart()
  const failingReceive = failureOf(sender.receive(foreignA))
  assert.equal(await failSend(sendTo), sqeHint)
  const senderAh = b.pd.addressHandle(sender.endpoint)
  void receiver.send(Uint8Array.of(1), { ah: senderAh, qpn: sender.qpn, qkey: sender.query().qkey! })
  assert.equal((await failingReceive).hint, errHint('activate()'))
  assert.equal((await failureOf(sendTo(Uint8Array.of(1)))).hint, errHint('activate()'))

  const [ucSender, ucReceiver] = [a.pd.ucQp(), b.pd.ucQp()]
  ucSender.connect(ucReceiver.endpoint)
  ucReceiver.connect(ucSender.endpoint)
  assert.equal(await failSend(local => ucSender.send(local)), sqeHint)
  ucSender.modify({ state: 'RTS' })
  await ucSender.send(Uint8Array.of(1))
  assert.equal(await failSend(local => a.qp.send(local)), errHint('connect()'))
  a.qp.modify({ state: 'RESET' })
  a.qp.connect(b.qp.endpoint)
  a.qp.modify({ state: 'ERR' })
  const flush = await failureOf(a.qp.send(Uint8Array.of(1)))
  assert.ok(flush instanceof RequestError && flush.status === 'WR_FLUSH_ERR')
  assert.deepEqual([flush.cause, flush.hint], [undefined, errHint('connect()')])
  await close()
})

const skip = !hasNative() && 'koffi is missing'

test('a completed request resolves even if the queue pair is reset before the promise is settled', {
  skip,
}, async t => {
  const { socket } = await startDaemon(t, { devices: TWO_DEVICES })
  const { a, b, close } = await pair(async () => [await open({ socket }), await open({ socket, device: 'rxe1' })])
  const cq = a.device.cq()
  const [probe, probePeer] = [a.pd.rcQp({ sendCq: cq }), b.pd.rcQp()]
  probe.connect(probePeer.endpoint)
  probePeer.connect(probe.endpoint)
  const write = a.qp.write(Uint8Array.of(7), b.mr.remote(0, 1))
  // Busy waits: a turn of the event loop would settle the promise.
  while (b.buffer[0] !== 7);
  // The daemon completes this request after the WRITE.
  probe.write(Uint8Array.of(1), b.mr.remote(1, 1))
  while (!cq.poll());
  a.qp.modify({ state: 'RESET' })
  assert.equal((await write).opcode, 'RDMA_WRITE')
  await close()
})

test('a ping rejects with the status RETRY_EXC_ERR after the device of the peer is closed', async () => {
  const { a, b, close } = await pair(openTwoInProcess())
  a.qp.modify({ state: 'RESET' })
  a.qp.connect(b.qp.endpoint, { ackTimeoutExponent: 1, retryCount: 1 })
  await a.qp.ping()
  await b.device.close()
  const error = await failureOf(a.qp.ping())
  assert.ok(error instanceof RequestError)
  assert.deepEqual([error.status, error.code, error.call], ['RETRY_EXC_ERR', 'ETIMEDOUT', 'qp.ping'])
  a.qp.modify({ state: 'RESET' })
  const { code, call } = await failureOf(a.qp.ping())
  assert.deepEqual([code, call], ['EINVAL', 'qp.ping'])
  await close()
})

test('a window reports the first failed request once; a limit of 0 is refused', async () => {
  const window = requestWindow(2)
  const failing = ['first', 'second'].map(text =>
    window.add(async () => {
      throw new Error(text)
    }),
  )
  await Promise.all(failing)
  await nextTurn()
  await assert.rejects(
    window.add(async () => {}),
    /first/,
  )
  assert.equal(window.inFlight, 0)
  await window.add(async () => {})
  await Promise.all(['one', 'two'].map(text => window.add(() => Promise.reject(new Error(text)))))
  await assert.rejects(window.drain(), /one/)
  await window.drain()
  assert.throws(() => requestWindow(0), /limit 0 is not a number of requests/)
})

test('a post that throws leaves its slot free; `drain` also waits for requests that are added while it waits', async () => {
  const window = requestWindow(1)
  const refuse = () => {
    throw new Error('not posted')
  }
  await assert.rejects(window.add(refuse), /not posted/)
  assert.equal(window.inFlight, 0)
  const finish: (() => void)[] = []
  const post = () => new Promise<void>(resolve => finish.push(resolve))
  await window.add(post)
  let isDrained = false
  const drained = window.drain().then(() => {
    isDrained = true
  })
  finish.pop()!()
  // `add` takes the slot in the turn in which `drain` is woken.
  while (window.inFlight > 0) await undefined
  void window.add(post)
  await nextTurn()
  assert.equal(isDrained, false)
  finish.pop()!()
  await drained
})

test('calls of `add` that do not wait for each other post in order, at a cost linear in their number', async t => {
  const window = requestWindow(3)
  const posted: number[] = []
  const count = 1000
  let promises = 0
  const hook = createHook({
    init(_id, type) {
      if (type === 'PROMISE') promises++
    },
  }).enable()
  t.after(() => hook.disable())
  let results: readonly PromiseSettledResult<void>[] = []
  const moves = await countMoves(async () => {
    const added = Array.from({ length: count }, (_, i) =>
      window.add(async () => {
        posted.push(i)
        assert.ok(window.inFlight <= 3)
        if (i === 10) throw new Error('request 10')
      }),
    )
    results = await Promise.allSettled(added)
    await window.drain()
  })
  hook.disable()
  assert.equal(window.inFlight, 0)
  // The next call that finds the failure of request 10 rejects with it, and posts nothing.
  const [failed, ...others] = results.flatMap(({ status }, i) => (status === 'rejected' ? [i] : []))
  assert.deepEqual(others, [])
  assert.ok(failed !== undefined && failed > 10)
  assert.deepEqual(
    posted,
    results.flatMap((_, i) => (i === failed ? [] : [i])),
  )
  // If each completion woke all waiting calls, each would make new promises.
  assert.ok(promises <= 20 * count, `${promises} promises were made`)
  assert.ok(moves <= 2 * count, `${moves} elements were moved`)
})

test('a signal ends the wait for a request at once; the request stays in the queue until it completes', async () => {
  const { a, b, close } = await pair(openTwoInProcess())
  const aborted = AbortSignal.abort('early')
  const controller = new AbortController()
  const { signal } = controller
  const isReason = (reason: unknown) => (error: unknown) => error === reason
  // The peer has no receive: the send would wait for ever.
  const requests = [a.qp.send(Uint8Array.of(1), { signal }), a.qp.receive(a.mr.slice(0, 8), { signal })]
  const rejected = Promise.all(requests.map(request => assert.rejects(request, isReason('late'))))
  assert.equal(a.qp.pending, 1)
  controller.abort('late')
  await rejected
  assert.equal(a.qp.pending, 1)
  for (const refused of [
    a.qp.write(Uint8Array.of(9), b.mr.remote(0, 1), { signal: aborted }),
    a.qp.receive(undefined, { signal: aborted }),
    a.qp.ping({ signal: aborted }),
  ])
    await assert.rejects(refused, isReason('early'))
  assert.deepEqual([a.qp.pending, b.buffer[0]], [1, 0])
  // The send completes when the peer posts a receive, and the receive takes the next message.
  const { bytes } = await b.qp.receive(b.mr.slice(0, 8), { signal: new AbortController().signal })
  await a.qp.drained()
  await b.qp.send(Uint8Array.of(5))
  assert.deepEqual([bytes, a.qp.pending, a.buffer[0]], [1, 0, 5])
  await assert.rejects(a.qp.send(Uint8Array.of(2), { timeout: 1 }), {
    code: 'ETIMEDOUT',
    message: /^qp\.send: it is not complete after 1 ms \(ETIMEDOUT\); the request stays in the queue/,
  })
  await assert.rejects(a.qp.receive(undefined, { timeout: 0 }), /timeout 0 is not an integer from 1 to/)
  await assert.rejects(
    a.qp.write(Uint8Array.of(2), b.mr.remote(0, 1), { signal: untyped(5) }),
    /signal 5 is not an AbortSignal/,
  )
  await assert.rejects(a.qp.receive(undefined, untyped(7)), { code: 'EINVAL' })
  await close()
})
