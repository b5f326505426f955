/*
 * Mistakes with valid objects, and load that must not starve the event loop or exhaust a network.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { createNetwork, type Network, open } from '../../../../src/library/index.ts'
import { vendorErrorOf } from '../../../../src/spec/check/causes.ts'
import { inLongRun } from '../../../long-run.ts'
import { closeAll, completionText, eachCarrier, pair } from '../endpoints.ts'
import { refuses, untyped } from './mistakes.ts'

const UNKNOWN_RKEY = 5
/** Of a network (src/library/network/network.ts). */
const MAX_DEVICES = 1024

eachCarrier(openTwo => {
  test('slices of another device, and accesses beyond the peer’s region, are refused', async () => {
    const { a, b } = await pair(openTwo, { maxSendSge: 2 })
    const foreign = b.mr.slice(0, 10)
    const foreignSlice = /^the bytes: the slice is of another device$/
    for (const local of [foreign, [a.mr.slice(0, 1), foreign]]) {
      refuses('qp.send', foreignSlice, () => a.qp.send(local))
      refuses('qp.write', foreignSlice, () => a.qp.write(local, b.mr.remote()))
      refuses('qp.read', foreignSlice, () => a.qp.read(local, b.mr.remote()))
      if (!Array.isArray(local)) refuses('qp.receive', foreignSlice, () => a.qp.receive(local))
    }
    const small = b.mr.remote(0, 10)
    const tooLong = /^11 bytes do not fit the peer's memory of 10 bytes$/
    refuses('qp.write', tooLong, () => a.qp.write(a.mr.slice(0, 11), small))
    refuses('qp.write', tooLong, () => a.qp.write(new Uint8Array(11), small))
    refuses('qp.write', tooLong, () => a.qp.write([a.mr.slice(0, 5), a.mr.slice(5, 6)], small))
    refuses('qp.read', tooLong, () => a.qp.read(a.mr.slice(0, 11), small))
    const slice = a.mr.slice(0, 8)
    for (const wrong of [{ length: Number.NaN }, { length: -4 }, { length: 1.5 }, { lkey: Number.NaN }, { lo: -1 }])
      refuses('qp.write', /^the bytes: an object is not a slice/, () => a.qp.write({ ...slice, ...wrong }, small))
    for (const wrong of [
      { length: Number.NaN },
      { rkey: small.rkey + 2 ** 32 },
      { rkey: Number.NaN },
      { address: small.address + 2n ** 64n },
      { address: -1n },
    ])
      refuses('qp.write', /^remote memory: (length|rkey|address) \S+ is not /, () =>
        a.qp.write(slice, { ...small, ...wrong }),
      )
    assert.equal(a.qp.pending, 0)
    a.qp.write(a.mr.slice(0, 10), small, { id: 1 })
    assert.equal(await completionText(a.cq), '1 RDMA_WRITE')
    await closeAll(a, b)
  })

  test('ids that a completion cannot contain, and immediate with invalidate, are refused', async () => {
    const { a, b } = await pair(openTwo)
    for (const id of [-1, 1.5, Number.NaN, 2 ** 60, Number.POSITIVE_INFINITY])
      for (const post of [() => a.qp.send(new Uint8Array(1), { id }), () => a.qp.receive(undefined, id)])
        assert.throws(post, {
          code: 'EINVAL',
          message: new RegExp(`id ${id} is not a number that a completion can contain`),
        })
    const immediateAndInvalidate = { immediate: 1, invalidate: 2 }
    refuses('qp.send', /immediate and invalidate exclude each other/, () =>
      a.qp.send(new Uint8Array(1), immediateAndInvalidate),
    )
    await closeAll(a, b)
  })

  test('a failed completion names its cause', async () => {
    const { a, b } = await pair(openTwo)
    a.qp.write(a.mr.slice(0, 8), b.mr.remote(0, 8), { id: 1 })
    assert.equal(await completionText(a.cq), '1 RDMA_WRITE')
    assert.deepEqual([a.cq.completion.cause, a.cq.completion.vendorError], [undefined, 0])
    a.qp.write(a.mr.slice(0, 8), { ...b.mr.remote(0, 8), rkey: UNKNOWN_RKEY })
    // A wait may end by the event of the completion before.
    while (!a.cq.poll()) await a.cq.wait()
    const { statusName, cause, vendorError } = a.cq.completion
    assert.deepEqual(
      [statusName, cause, vendorError],
      ['REM_ACCESS_ERR', 'RKEY_UNKNOWN', vendorErrorOf('RKEY_UNKNOWN')],
    )
    await closeAll(a, b)
  })

  test('a send to a queue pair before RTS is refused with its state', async () => {
    const { a, b } = await pair(openTwo)
    const qp = a.pd.rcQp({ sendCq: a.cq })
    refuses('qp.send', /^the queue pair is in RESET: it cannot send$/, () => qp.send(new Uint8Array(1)))
    qp.modify({ state: 'INIT', pkeyIndex: 0, port: 1, accessFlags: 0 })
    refuses('qp.write', /^the queue pair is in INIT: it cannot send$/, () => qp.write(a.mr.slice(), b.mr.remote()))
    qp.close()
    a.qp.modify({ state: 'RESET' })
    refuses('qp.send', /^the queue pair is in RESET: it cannot send$/, () => a.qp.send(new Uint8Array(1)))
    await closeAll(a, b)
  })

  test('a loop that posts on each completion does not starve the event loop', async () => {
    const { a, b } = await pair(openTwo)
    const controller = new AbortController()
    const abortAfterTurns = async (): Promise<void> => {
      for (let turn = 0; turn < 20; turn++) await nextTurn()
      controller.abort(new Error('enough'))
    }
    const aborting = abortAfterTurns()
    const write = (): void => a.qp.write(new Uint8Array(8), b.mr.remote(0, 8))
    for (let i = 0; i < 8; i++) write()
    const iterate = async (): Promise<void> => {
      for await (const { ok } of a.cq.completions({ signal: controller.signal })) {
        assert.ok(ok)
        write()
      }
    }
    await assert.rejects(iterate(), /enough/)
    await aborting
    await closeAll(a, b)
  })

  for (const hasEventQueue of [false, true])
    test(`a wait reports that its queue${hasEventQueue ? ', attached to an event queue,' : ''} overflowed`, async () => {
      const { a, b } = await pair(openTwo)
      // Devices may round the size up, but not to this number.
      const writes = 600
      const cq = a.device.cq({ entries: 1 })
      if (hasEventQueue) a.device.eventQueue().attach(cq)
      const qp = a.pd.rcQp({ sendCq: cq, recvCq: a.cq, maxSendWr: writes })
      const peer = b.pd.rcQp({ sendCq: b.cq })
      qp.connect(peer.endpoint)
      peer.connect(qp.endpoint)
      for (let i = 0; i < writes; i++) qp.write(new Uint8Array(8), b.mr.remote(0, 8), { id: i })
      const pollUntilRefused = async (): Promise<void> => {
        while (qp.state !== 'ERR') await nextTurn()
        for (;;) {
          await cq.wait()
          while (cq.poll());
        }
      }
      await assert.rejects(pollUntilRefused(), {
        code: 'EOVERFLOW',
        message: /completions were lost: the queue has room for \d+/,
      })
      await closeAll(a, b)
    })
})

test('a network serves devices whose IPv6 addresses end alike', async () => {
  const network = createNetwork()
  const devices = [await open({ network, address: 'fd00::1' }), await open({ network, address: 'fd01::1' })]
  assert.deepEqual(
    devices.map(({ address }) => address),
    ['fd00::1', 'fd01::1'],
  )
  for (const device of devices) await device.close()
})

test('a network serves 1,024 devices at the same time, and any number one after the other', async () => {
  const [most, more] = inLongRun([MAX_DEVICES, MAX_DEVICES], [100, 0])
  const network = createNetwork()
  for (let i = 0; i < more; i++) await (await open({ network })).close()
  const devices = []
  for (let i = 0; i < most; i++) devices.push(await open({ network }))
  if (most === MAX_DEVICES)
    await assert.rejects(open({ network }), { code: 'ENOSPC', message: /the network has 1024 devices/ })
  await devices[0].close()
  const replacement = await open({ network })
  for (const device of [...devices, replacement]) await device.close()
})

test('options of `open` with a wrong type, and options that do not fit the network, are refused', async () => {
  const network = createNetwork()
  const refusedWith = (options: object, reason: RegExp) =>
    assert.rejects(open(untyped(options)), { code: 'EINVAL', message: reason })
  await refusedWith({ address: 5 }, /address 5 is not a string/)
  await refusedWith({ name: {} }, /name an object is not a string/)
  await refusedWith({ device: 7 }, /device 7 is not a string/)
  await refusedWith({ socket: 7 }, /socket 7 is not a path/)
  await refusedWith({ socket: '' }, /socket "" is not a path/)
  await refusedWith({ network: {} }, /network an object is not a network/)
  await refusedWith({ network: null }, /network null is not a network/)
  await refusedWith({ link: 'wire' }, /link "wire"/)
  await refusedWith({ network, link: 'udp' }, /link "udp": the network has link "memory"/)
  await (await open({ network, link: 'memory' })).close()
})

test('a method that is called without its object is refused with a message', async () => {
  const device = await open()
  const cq = device.cq()
  const qp = device.pd().rcQp({ sendCq: cq })
  for (const name of ['send', 'write', 'receive'] as const) {
    const call = qp[name] as unknown as (...args: unknown[]) => void
    assert.throws(() => call(new Uint8Array(1), { address: 0n, rkey: 0, length: 1 }), {
      code: 'EINVAL',
      message: new RegExp(`qp.${name}: the method was called without its object`),
    })
  }
  const { poll } = cq
  assert.throws(() => poll(), { code: 'EINVAL', message: /cq.poll: the method was called without its object/ })
  await device.close()
})

test('a long message does not starve the event loop', async () => {
  const network: Network = createNetwork()
  const { a, b } = await pair(async () => [await open({ network }), await open({ network })])
  const mebibytes = 256
  const [source, target] = [0, 1].map(() => new Uint8Array(mebibytes << 20))
  // The first byte of each MiB shows whether the MiB was received.
  for (let i = 0; i < mebibytes; i++) source[i << 20] = 1
  const sourceMr = a.pd.register(source)
  const targetMr = b.pd.register(target, { remoteWrite: true })
  a.qp.write(sourceMr.slice(), targetMr.remote(), { id: 1 })
  /** MiB received in total, and the maximum in one turn of the event loop. */
  let received = 0
  let maxInTurn = 0
  let isDone = false
  const done = completionText(a.cq).then(text => {
    isDone = true
    return text
  })
  while (!isDone) {
    await nextTurn()
    const before = received
    while (target[received << 20] === 1) received++
    maxInTurn = Math.max(maxInTurn, received - before)
  }
  assert.equal(await done, '1 RDMA_WRITE')
  assert.equal(received, mebibytes)
  // After a millisecond, the devices start no further round. No memory copies 64 MiB in this time.
  assert.ok(maxInTurn <= 64, `${maxInTurn} MiB in one turn`)
  await closeAll(a, b)
})
