/*
 * Mistakes that a device does not detect, or reports only by an errno. The library throws an RdmaError with the call
 * and the mistake.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type CqOptions, createNetwork, type Endpoint, open, openSystem } from '../../../../src/library/index.ts'
import type { AnyCall } from '../../../../src/library/verbs/carrier.ts'
import { contextOf } from '../../../../src/library/verbs/device.ts'
import { refused } from '../../../../src/library/verbs/error.ts'
import { Classes } from '../../../../src/spec/classes.ts'
import { uncaughtDuring } from '../../../uncaught.ts'
import { eachCarrier, pair } from '../endpoints.ts'
import { ofAnotherDevice, refuses, untyped } from './mistakes.ts'

eachCarrier(openTwo => {
  test('a closed queue, and a queue of another device, are refused although the handles exist', async () => {
    const [device, otherDevice] = await openTwo()
    const pd = device.pd()
    const sendCq = device.cq()
    const foreignPd = otherDevice.pd()
    const foreignCq = otherDevice.cq()
    assert.equal(foreignCq.handle, sendCq.handle)
    refuses('pd.rcQp', ofAnotherDevice('sendCq'), () => pd.rcQp({ sendCq: foreignCq }))
    refuses('pd.ucQp', ofAnotherDevice('recvCq'), () => pd.ucQp({ sendCq, recvCq: foreignCq }))
    refuses('pd.udQp', ofAnotherDevice('srq'), () => pd.udQp({ sendCq, srq: foreignPd.srq() }))
    refuses('rc_qp.create', ofAnotherDevice('sendCq'), () =>
      device.chain(chain => chain.rcQp(pd, { sendCq: foreignCq })),
    )
    const { handle } = sendCq
    sendCq.close()
    const newCq = device.cq()
    assert.equal(newCq.handle, handle)
    refuses('pd.rcQp', /^sendCq is closed$/, () => pd.rcQp({ sendCq }))
    pd.rcQp({ sendCq: newCq }).close()
    await device.close()
    await otherDevice.close()
  })

  test('invalid buffers, kinds and addresses are refused', async () => {
    const [device, otherDevice] = await openTwo()
    const pd = device.pd()
    for (const buffer of [undefined, 'text', new ArrayBuffer(8), new Float64Array(8), new DataView(new ArrayBuffer(8))])
      refuses('pd.register', /not a Uint8Array/, () => pd.register(untyped<Uint8Array>(buffer)))
    pd.register(Buffer.alloc(8)).close()
    refuses('device.cq', /^kind "timd" is not one of entries, timed, counting$/, () =>
      device.cq(untyped<CqOptions>({ kind: 'timd' })),
    )
    const qp = pd.rcQp({ sendCq: device.cq() })
    const ud = pd.udQp({ sendCq: device.cq() })
    const attach = (gid: unknown) => () => device.call(Classes.ud_qp, 'attachMcast', untyped({ gid, mlid: 0 }), ud)
    refuses('ud_qp.attachMcast', /^attribute gid: must be a Uint8Array of 16 bytes$/, attach('224.0.0.1'))
    refuses('ud_qp.attachMcast', /^attribute gid: 4 bytes, must be 16$/, attach(new Uint8Array(4)))
    const create = (address: unknown) => () => device.create(Classes.ah, untyped({ pd: pd.handle, address }))
    refuses('ah.create', /^attribute address: must be a record$/, create(null))
    refuses('ah.create', /^attribute address\.dgid: must be a Uint8Array of 16 bytes$/, create({}))
    refuses('qp.modify', /^state: "RST" is not a value of qp_state/, () => qp.modify(untyped({ state: 'RST' })))
    refuses('qp.connect', /^gid undefined is not an address$/, () => qp.connect(untyped<Endpoint>({ qpn: 5, lid: 3 })))
    assert.equal(qp.state, 'RESET')
    await device.close()
    await otherDevice.close()
  })
})

eachCarrier(openTwo => {
  test('`supports` is false for a property that every object has', async () => {
    const [device, otherDevice] = await openTwo()
    assert.deepEqual([device.supports('pd', 'create'), device.supports('pd', 'toString')], [true, false])
    await device.close()
    await otherDevice.close()
  })

  test('calls on a closed device are refused with the reason', async () => {
    const [device, otherDevice] = await openTwo()
    const pd = device.pd()
    const [cq, qp] = [device.cq(), pd.rcQp()]
    await device.close()
    const closedDevice = { name: 'RdmaError', code: 'ERR_CLOSED', reason: 'the device is closed' }
    for (const [call, body] of [
      ['qp.query', () => qp.query()],
      ['device.pd', () => device.pd()],
      ['device.query', () => device.query()],
      ['device.counters', () => device.counters()],
    ] as const)
      assert.throws(body, { ...closedDevice, call })
    await assert.rejects(device.callAsync(Classes.pd, 'create', {}), { ...closedDevice, call: 'pd.create' })
    await assert.rejects(cq.wait(), { ...closedDevice, call: 'cq.wait' })
    await otherDevice.close()
  })

  test('an unknown attribute is refused with the list of attributes', async () => {
    const [device, otherDevice] = await openTwo()
    const qp = device.pd().rcQp()
    assert.throws(() => qp.modify(untyped({ stat: 'ERR' })), {
      code: 'EPROTONOSUPPORT',
      call: 'qp.modify',
      reason: /^the attribute stat is unknown to the device; there are state, .*destQpn/,
    })
    assert.throws(() => device.call(Classes.pd, 'create', untyped({ depth: 1 })), {
      reason: 'the attribute depth is unknown to the device; there are none',
    })
    await device.close()
    await otherDevice.close()
  })

  test('posting to a closed device is refused before anything is written', async () => {
    const [device, otherDevice] = await openTwo()
    const pd = device.pd()
    const mr = pd.register(new Uint8Array(64))
    const qp = pd.rcQp({ sendCq: device.cq() })
    const slice = mr.slice()
    const srq = pd.srq()
    qp.receive(slice)
    qp.connect({ qpn: 5, gid: otherDevice.address, psn: 0 })
    qp.send(slice)
    await device.close()
    const closedDevice = { name: 'RdmaError', code: 'ERR_CLOSED', reason: 'the device is closed or removed' }
    assert.throws(() => qp.send(slice), { ...closedDevice, call: 'qp.send' })
    assert.throws(() => qp.receive(slice), { ...closedDevice, call: 'qp.receive' })
    assert.throws(() => srq.receive(slice), { ...closedDevice, call: 'srq.receive' })
    assert.equal(qp.pending, 0, 'no request of a closed device is pending')
    await otherDevice.close()
  })
})

test('wrong options of networks, an address in use, and handlers that are not functions are refused', async () => {
  refuses('createNetwork', /^link "upd" is not one of memory, udp, udp-plain, dgram$/, () =>
    createNetwork(untyped({ link: 'upd' })),
  )
  refuses('createNetwork', /^path "x" is not one of direct, packets$/, () => createNetwork(untyped({ path: 'x' })))
  refuses('openSystem', /pass either network or socket/, () => openSystem(untyped(undefined)))
  const network = createNetwork()
  refuses('network.setFaults', /^fault undefined is not a string$/, () => network.setFaults(untyped(undefined)))
  const device = await open({ network, address: '127.0.0.9' })
  await assert.rejects(open({ network, address: '127.0.0.9' }), {
    name: 'RdmaError',
    code: 'EADDRINUSE',
    reason: 'address: "127.0.0.9" is the address of rxe0 on this network',
  })
  for (const [call, argument, body] of [
    ['network.addDevice', 'make', () => network.addDevice(untyped(5))],
    ['device.onEvent', 'handler', () => device.onEvent(untyped(5))],
    ['system.onChange', 'handler', () => openSystem({ network }).onChange(untyped(5))],
    ['device.chain', 'build', () => device.chain(untyped(5))],
  ] as const)
    refuses(call, new RegExp(`^${argument} 5 is not a function$`), body)
  for (const make of [() => undefined, async () => undefined, () => ({})])
    refuses('network.addDevice', /^make returned .*, which is not a device of the core/, () =>
      network.addDevice(untyped(make)),
    )
  await device.close()
  await (await open({ network, address: '127.0.0.9' })).close()
})

test('the message shows a value of a wrong type', async () => {
  const device = await open()
  const pd = device.pd()
  const values = [10n, Symbol('s'), () => 1, [], new Uint8Array(16), null, 1.5]
  const shown = ['10n', 'Symbol\\(s\\)', 'a function', 'a list', 'a Uint8Array', 'null', '1.5']
  for (const [i, value] of values.entries()) {
    refuses('device.cq', new RegExp(`^kind ${shown[i]} is not one of entries`), () =>
      device.cq(untyped({ kind: value })),
    )
    const gid = () => pd.addressHandle(untyped({ gid: value }))
    assert.match(refuses('pd.addressHandle', new RegExp(`^gid ${shown[i]} is not an address$`), gid), /^give text/)
  }
  await device.close()
})

test('invalid signals, invalid attributes, and objects without events are refused', async () => {
  const device = await open()
  const cq = device.cq()
  const qp = device.pd().rcQp({ sendCq: cq })
  const queue = device.eventQueue()
  for (const [signal, shown] of [
    ['x', '"x"'],
    [{}, 'an object'],
    [null, 'null'],
    [new EventTarget(), 'an object'],
  ]) {
    const reason = `signal ${shown} is not an AbortSignal`
    await assert.rejects(cq.wait(untyped({ signal })), { code: 'EINVAL', call: 'cq.wait', reason })
    await assert.rejects(cq.completions(untyped({ signal })).next(), { code: 'EINVAL', call: 'cq.completions', reason })
    await assert.rejects(queue.wait(untyped({ signal })), { code: 'EINVAL', call: 'event_queue.wait', reason })
    refuses('device.events', new RegExp(`^${reason}$`), () => device.events(untyped({ signal })))
  }
  refuses('device.events', /^options: "sinal" is unknown$/, () => device.events(untyped({ sinal: 1 })))
  await assert.rejects(cq.wait(untyped(null)), { code: 'EINVAL', reason: 'options: null is not an object' })
  refuses('qp.modify', /^attributes is missing$/, () => qp.modify(untyped(undefined)))
  for (const source of [undefined, null, 'port', 1])
    refuses('event_queue.attach', /not an object of this device that has events/, () => queue.attach(untyped(source)))
  await device.close()
})

test('a handler that throws does not stop other handlers; an iterator gets events from its creation on', async () => {
  const network = createNetwork()
  const owner = await open({ network, name: 'rxe7' })
  const device = await open({ network, device: 'rxe7' })
  const events: string[] = []
  device.onEvent(() => assert.fail('mine'))
  device.onEvent(({ type }) => events.push(type))
  using system = openSystem({ network })
  system.onChange(() => assert.fail('also mine'))
  system.onChange(({ type }) => events.push(type))
  const iteration = device.events()
  const uncaught = await uncaughtDuring(() => owner.close())
  assert.deepEqual(
    [uncaught.toSorted(), events.toSorted()],
    [
      ['also mine', 'mine'],
      ['DEVICE_FATAL', 'removed'],
    ],
  )
  const iterated: string[] = []
  for await (const { type } of iteration) iterated.push(type)
  assert.deepEqual(iterated, ['DEVICE_FATAL'])
  await device.close()
})

test('an iteration of events that ends before it begins leaves no handler', async () => {
  const device = await open()
  const { sources } = contextOf('test', device)
  const before = sources.size
  const iteration = device.events()
  assert.equal(sources.size, before + 1)
  assert.deepEqual(await iteration.return?.(7), { value: 7, done: true })
  assert.equal(sources.size, before)
  const waiting = device.events()
  const next = waiting.next()
  await waiting.return?.()
  assert.equal((await next).done, true)
  assert.equal(sources.size, before)
  await device.close()
})

test('a wait that fails after it has armed the queue leaves no waiter', async () => {
  const device = await open()
  const cq = device.cq()
  const { carrier } = contextOf('test', device)
  const { call, drive, setWaiting } = carrier
  let isArmed = false
  const changes: boolean[] = []
  Object.assign(carrier, {
    call(...args: Parameters<AnyCall>) {
      isArmed = args[1] === 'reqNotify'
      return call(...args)
    },
    // As on a device of a daemon, when the daemon ends.
    drive(callName: string) {
      if (isArmed) throw refused('EIO', callName, 'the daemon has ended')
      return drive(callName)
    },
    setWaiting(hasWaiters: boolean) {
      changes.push(hasWaiters)
      setWaiting(hasWaiters)
    },
  })
  await assert.rejects(cq.wait(), { code: 'EIO', call: 'cq.wait' })
  Object.assign(carrier, { call, drive, setWaiting })
  assert.deepEqual(changes, [true, false])
  await device.close()
})

test('a device is closed although its daemon ends while sends are drained', async () => {
  const { a, b } = await pair()
  a.qp.write(a.mr.slice(0, 8), b.mr.remote(0, 8))
  const { carrier } = contextOf('test', a.device)
  Object.assign(carrier, {
    // As on a device of a daemon, when the daemon ends.
    drive(call: string) {
      throw refused('EIO', call, 'the daemon has ended')
    },
  })
  await a.device.close({ drain: true })
  assert.throws(() => a.device.pd(), { code: 'ERR_CLOSED', reason: 'the device is closed' })
  await b.device.close()
})
