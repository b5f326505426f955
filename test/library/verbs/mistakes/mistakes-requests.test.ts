/*
 * Wrong work requests of JavaScript programs are refused before they are posted. The queue pair works afterwards.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { RemoteMemory, Slice } from '../../../../src/library/index.ts'
import { closeAll, completionText, eachCarrier, pair } from '../endpoints.ts'
import { refuses, untyped } from './mistakes.ts'

eachCarrier(openTwo => {
  test('a slice, alone or in a list, is refused by a queue for requests without elements', async () => {
    const { a, b } = await pair(openTwo, { maxSendSge: 0, maxInlineData: 0, maxRecvSge: 0 })
    const slice = a.mr.slice(0, 8)
    const tooMany = /^1 scatter\/gather elements, at most 0 are possible$/
    for (const local of [slice, { ...slice }, [slice]]) {
      refuses('qp.send', tooMany, () => a.qp.send(local))
      refuses('qp.receive', tooMany, () => a.qp.receive(local))
    }
    b.qp.receive()
    a.qp.send([], { id: 7 })
    assert.equal(await completionText(a.cq), '7 SEND')
    await closeAll(a, b)
  })

  test('an argument that is not a slice, remote memory or number is refused', async () => {
    const { a, b } = await pair(openTwo, { maxSendSge: 2 })
    const { qp } = a
    const slice = a.mr.slice(0, 8)
    const remote = b.mr.remote(8, 8)
    const notSlice = (shown: string) => new RegExp(`^the bytes: ${shown} is not a slice of registered memory$`)
    const notLocal = [
      ['"text"', 'text'],
      ['null', null],
      ['5', 5],
      ['an object', {}],
      ['an object', a.mr],
      ['a DataView', new DataView(new ArrayBuffer(8))],
      ['a list', [slice, {}]],
      ['a list', [undefined]],
      // In the scatter/gather element the length would be 8.
      ['an object', { ...slice, length: 2 ** 32 + 8 }],
    ] as const
    for (const [shown, value] of notLocal) {
      const local = untyped<Slice>(value)
      const hint = refuses('qp.send', notSlice(shown), () => qp.send(local))
      assert.match(hint, /mr\.slice\(\)/)
      refuses('qp.write', notSlice(shown), () => qp.write(local, remote))
      refuses('qp.read', notSlice(shown), () => qp.read(local, remote))
      refuses('qp.fetchAdd', notSlice(shown), () => qp.fetchAdd(local, remote, 1n))
      if (!Array.isArray(value)) refuses('qp.receive', notSlice(shown), () => qp.receive(local))
    }
    // A receive without a slice is allowed; any other request without bytes is a mistake.
    const nothing = untyped<Slice>(undefined)
    refuses('qp.send', notSlice('undefined'), () => qp.send(nothing))
    refuses('qp.write', notSlice('undefined'), () => qp.write(nothing, remote))
    refuses('qp.read', notSlice('undefined'), () => qp.read(nothing, remote))
    refuses('srq.receive', /is not a slice/, () => a.pd.srq().receive(untyped('text')))
    const bytes = untyped<Slice>(new Uint8Array(8))
    refuses('qp.receive', notSlice('a Uint8Array'), () => qp.receive(bytes))
    refuses('qp.read', notSlice('a Uint8Array'), () => qp.read(bytes, remote))
    refuses('qp.compareSwap', notSlice('a Uint8Array'), () => qp.compareSwap(bytes, remote, 1n, 2n))
    refuses('qp.send', /^id 5n is not a number that a completion can contain$/, () =>
      qp.send(slice, { id: untyped(5n) }),
    )
    refuses('qp.send', /^id "a" is not a number that a completion can contain$/, () =>
      qp.send(new Uint8Array(1), { id: untyped('a') }),
    )
    for (const [shown, value] of [
      ['"x"', 'x'],
      ['-1', -1],
      ['4294967296', 2 ** 32],
      ['0.5', 0.5],
      ['null', null],
    ] as const) {
      const immediate = untyped<number>(value)
      const wrong = (option: string) => new RegExp(`^${option} ${shown} is not a number of 32 bits$`)
      refuses('qp.send', wrong('immediate'), () => qp.send(slice, { immediate }))
      refuses('qp.send', wrong('invalidate'), () => qp.send(slice, { invalidate: immediate }))
      refuses('qp.write', wrong('immediate'), () => qp.write(slice, remote, { immediate }))
    }
    const { address, rkey, length } = remote
    for (const [value, reason] of [
      [undefined, /^remote memory is missing$/],
      [null, /^remote memory: null is not an object$/],
      [slice, /^remote memory: has no address$/],
      [{ address: 5, rkey, length }, /^remote memory: address 5 is not a bigint or text of 64 bits/],
      [{ address, rkey: '5', length }, /^remote memory: rkey "5" is not a number of 32 bits$/],
      [{ address, rkey, length: -1 }, /^remote memory: length -1 is not a number of bytes$/],
    ] as const) {
      const memory = untyped<RemoteMemory>(value)
      refuses('qp.write', reason, () => qp.write(slice, memory))
      refuses('qp.read', reason, () => qp.read(slice, memory))
      refuses('qp.fetchAdd', reason, () => qp.fetchAdd(slice, memory, 1n))
      refuses('qp.atomicWrite', reason, () => qp.atomicWrite(memory, 1n))
      refuses('qp.flush', reason, () => qp.flush(memory))
    }
    const tooLong = /^2147483649 bytes of remote memory, a FLUSH has at most 2147483648$/
    refuses('qp.flush', tooLong, () => qp.flush({ address, rkey, length: 2 ** 31 + 1 }))
    assert.equal(qp.pending, 0)
    qp.write([slice, slice], b.mr.remote(0, 16), { id: 7 })
    assert.equal(await completionText(a.cq), '7 RDMA_WRITE')
    assert.equal(qp.state, 'RTS')
    await closeAll(a, b)
  })

  test('a request option of another operation or service is refused', async () => {
    const { a, b } = await pair(openTwo)
    const { qp, pd, cq } = a
    const [slice, remote] = [a.mr.slice(0, 8), b.mr.remote(8, 8)]
    const misspelled = untyped<{ readonly id?: number }>({ id: 1, signalled: false })
    const unknown = /^options: "signalled" is unknown$/
    const common = 'there are id, signaled, solicited, fence'
    assert.equal(
      refuses('qp.send', unknown, () => qp.send(slice, misspelled)),
      `${common}, immediate, invalidate`,
    )
    assert.equal(
      refuses('qp.write', unknown, () => qp.write(slice, remote, misspelled)),
      `${common}, immediate`,
    )
    assert.equal(
      refuses('qp.flush', unknown, () => qp.flush(remote, misspelled)),
      `${common}, persistent, wholeRegion`,
    )
    assert.equal(
      refuses('qp.read', unknown, () => qp.read(slice, remote, misspelled)),
      common,
    )
    refuses('qp.fetchAdd', unknown, () => qp.fetchAdd(slice, remote, 1n, misspelled))
    refuses('qp.compareSwap', unknown, () => qp.compareSwap(slice, remote, 1n, 1n, misspelled))
    refuses('qp.atomicWrite', unknown, () => qp.atomicWrite(remote, 1n, misspelled))
    refuses('qp.invalidate', unknown, () => qp.invalidate(pd.window(), misspelled))
    refuses('qp.bind', unknown, () => qp.bind(pd.window(), { region: a.mr }, misspelled))
    refuses('qp.write', /^options: "invalidate" is unknown$/, () => qp.write(slice, remote, untyped({ invalidate: 5 })))
    refuses('qp.send', /^options: "toString" is unknown$/, () => qp.send(slice, untyped({ toString: 5 })))
    refuses('qp.send', /^options: "srqNumber" is unknown$/, () => qp.send(slice, untyped({ srqNumber: 5 })))
    refuses('qp.send', /^options: 5 is not an object$/, () => qp.send(slice, untyped(5)))
    refuses('qp.send', /^options: null is not an object$/, () => qp.send(slice, untyped(null)))

    const uc = pd.ucQp({ sendCq: cq })
    refuses('qp.send', /^options: "invalidate" is unknown$/, () => uc.send(slice, untyped({ invalidate: 5 })))
    const ud = pd.udQp({ sendCq: cq, active: true })
    const receiver = { ah: pd.addressHandle(ud.endpoint), qpn: ud.qpn, qkey: ud.endpoint.qkey }
    refuses('qp.send', unknown, () => ud.send(slice, receiver, misspelled))
    const xrc = pd.xrcInitiator({ sendCq: cq })
    refuses('qp.receive', /^an XRC initiator only sends$/, () => untyped<{ receive(): void }>(xrc).receive())
    assert.match(
      refuses('qp.send', unknown, () => xrc.send(slice, { srqNumber: 1, ...misspelled })),
      /, srqNumber$/,
    )
    for (const [shown, value] of [
      ['undefined', undefined],
      ['-1', -1],
      ['16777216', 2 ** 24],
      ['"1"', '1'],
    ] as const) {
      const wrong = new RegExp(`^srqNumber ${shown} is not an integer from 0 to 16777215$`)
      refuses('qp.send', wrong, () => xrc.send(slice, { srqNumber: untyped<number>(value) }))
      refuses('qp.read', wrong, () => xrc.read(slice, remote, { srqNumber: untyped<number>(value) }))
    }
    const word = a.mr.slice(0, 8)
    for (const [call, post] of [
      ['qp.send', () => xrc.send(slice, untyped(undefined))],
      ['qp.write', () => xrc.write(slice, remote, untyped(undefined))],
      ['qp.read', () => xrc.read(slice, remote, untyped(undefined))],
      ['qp.compareSwap', () => xrc.compareSwap(word, remote, 1n, 2n, untyped(undefined))],
      ['qp.fetchAdd', () => xrc.fetchAdd(word, remote, 1n, untyped(undefined))],
      ['qp.atomicWrite', () => xrc.atomicWrite(remote, 1n, untyped(undefined))],
      ['qp.flush', () => xrc.flush(remote, untyped(undefined))],
    ] as const)
      refuses(call, /^srqNumber undefined is/, post)
    assert.deepEqual([qp.pending, uc.pending, ud.pending, xrc.pending], [0, 0, 0, 0])

    // Options with the value undefined are ignored, unknown ones too.
    qp.write(slice, remote, untyped({ id: 7, signaled: undefined, invalidate: undefined, noSuchOption: undefined }))
    assert.equal(await completionText(a.cq), '7 RDMA_WRITE')
    await closeAll(a, b)
  })

  test('a receive on a full shared receive queue is refused', async () => {
    const [device, otherDevice] = await openTwo()
    const srq = device.pd().srq({ maxWr: 4 })
    for (let i = 0; i < srq.maxWr; i++) srq.receive()
    assert.throws(() => srq.receive(), { code: 'ENOMEM', message: /is full.*ask for a larger maxWr/ })
    await closeAll({ device }, { device: otherDevice })
  })

  test('an atomic with a wrong size, alignment or operand is refused', async () => {
    const { a, b } = await pair(openTwo)
    const { qp } = a
    const slice = a.mr.slice(0, 8)
    const remote = b.mr.remote(8, 8)
    refuses('qp.fetchAdd', /^add 5 is not a bigint$/, () => qp.fetchAdd(slice, remote, untyped(5)))
    refuses('qp.compareSwap', /^compare 5 is not a bigint$/, () => qp.compareSwap(slice, remote, untyped(5), 1n))
    refuses('qp.compareSwap', /^swap undefined is not a bigint$/, () =>
      qp.compareSwap(slice, remote, 1n, untyped(undefined)),
    )
    refuses('qp.atomicWrite', /^word 5 is not a bigint$/, () => qp.atomicWrite(remote, untyped(5)))
    refuses('qp.fetchAdd', /^add 18446744073709551616n is not in -2\^63 to 2\^64 - 1$/, () =>
      qp.fetchAdd(slice, remote, 2n ** 64n),
    )
    refuses('qp.flush', /^persistent "no" is not true or false$/, () => qp.flush(remote, { persistent: untyped('no') }))
    refuses('qp.flush', /^options: null is not an object/, () => qp.flush(remote, untyped(null)))
    refuses('qp.read', /^fence 1 is not true or false$/, () => qp.read(slice, remote, { fence: untyped(1) }))
    refuses('qp.fetchAdd', /^4 bytes for the old value, which has 8$/, () => qp.fetchAdd(a.mr.slice(0, 4), remote, 1n))
    refuses('qp.fetchAdd', /^remote address 0x\w+ is not a multiple of 8$/, () =>
      qp.fetchAdd(slice, b.mr.remote(4, 8), 1n),
    )
    refuses('qp.atomicWrite', /is not a multiple of 8$/, () => qp.atomicWrite(b.mr.remote(9, 8), 1n))
    refuses('qp.compareSwap', /^4 bytes of remote memory/, () => qp.compareSwap(slice, b.mr.remote(8, 4), 1n, 1n))
    assert.equal(qp.pending, 0)
    qp.fetchAdd(slice, remote, 5n, { id: 3 })
    assert.equal(await completionText(a.cq), '3 FETCH_ADD')
    assert.equal(b.buffer[8], 5)
    await closeAll(a, b)
  })

  test('a datagram without a destination is refused', async () => {
    const [device, otherDevice] = await openTwo()
    const pd = device.pd()
    const cq = device.cq()
    const ud = pd.udQp({ sendCq: cq, active: true })
    const bytes = new Uint8Array(4)
    const ah = pd.addressHandle({ gid: otherDevice.address })
    const { qpn, qkey } = ud.endpoint
    refuses('qp.send', /^the receiver is missing$/, () => ud.send(bytes, untyped(undefined)))
    refuses('qp.send', /^the receiver: has no qkey$/, () => ud.send(bytes, untyped({ ah, qpn })))
    refuses('qp.send', /^the receiver: qpn "5" is not a number of 24 bits$/, () =>
      ud.send(bytes, untyped({ ah, qpn: '5', qkey })),
    )
    refuses('qp.send', /^the address handle is missing$/, () => ud.send(bytes, untyped(ud.endpoint)))
    ud.send(bytes, { ah, qpn, qkey }, { id: 4 })
    assert.equal(await completionText(cq), '4 SEND')
    ah.close()
    refuses('qp.send', /^the address handle is closed/, () => ud.send(bytes, { ah, qpn, qkey }))
    await device.close()
    await otherDevice.close()
  })
})
