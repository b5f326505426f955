/*
 * Wrong options of JavaScript programs are refused with an RdmaError.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createNetwork, type Device, open, openSystem, RdmaError } from '../../../../src/library/index.ts'
import { Classes } from '../../../../src/spec/classes.ts'
import { eachCarrier } from '../endpoints.ts'
import { ofAnotherDevice, refuses, untyped } from './mistakes.ts'

const { mr: Mr } = Classes
const closed = (option: string) => new RegExp(`^${option} is closed$`)
const unknown = (record: string, name: string) => new RegExp(`^${record}: "${name}" is unknown$`)

eachCarrier(openTwo => {
  test('an unknown option is refused with the list of known ones', async () => {
    const [device, otherDevice] = await openTwo()
    const pd = device.pd()
    const sendCq = device.cq()
    const xrcd = device.xrcd()
    const qp = pd.rcQp({ sendCq })
    const ud = pd.udQp({ sendCq })
    const mr = pd.register(new Uint8Array(64))
    const { endpoint } = pd.rcQp({ sendCq })
    const bad = untyped<never>
    const options = (word: string) => unknown('options', word)
    const cases: readonly (readonly [string, RegExp, () => unknown])[] = [
      ['pd.register', unknown('access', 'remoteWrit'), () => pd.register(mr.buffer, bad({ remoteWrit: true }))],
      ['mr.reregister', unknown('changes', 'acess'), () => mr.reregister(bad({ acess: {} }))],
      ['pd.registerFile', options('lenght'), () => pd.registerFile(0, bad({ lenght: 5 }))],
      ['pd.nullRegion', unknown('access', 'x'), () => pd.nullRegion(5, bad({ x: true }))],
      ['device.cq', options('entrys'), () => device.cq(bad({ entrys: 5 }))],
      ['cq.arm', options('solicited'), () => sendCq.arm(bad({ solicited: true }))],
      ['cq.moderate', unknown('threshold', 'count'), () => sendCq.moderate(bad({ count: 5 }))],
      ['pd.rcQp', options('maxsends'), () => pd.rcQp(bad({ sendCq, maxsends: 5 }))],
      ['pd.ucQp', options('toString'), () => pd.ucQp(bad({ sendCq, toString: 5 }))],
      ['pd.udQp', options('peer'), () => pd.udQp(bad({ sendCq, peer: endpoint }))],
      ['pd.udQp', unknown('active', 'key'), () => pd.udQp(bad({ sendCq, active: { key: 5 } }))],
      ['pd.xrcInitiator', options('srq'), () => pd.xrcInitiator(bad({ sendCq, srq: pd }))],
      ['xrcd.target', options('number'), () => xrcd.target(bad({ number: 5 }))],
      ['device.xrcd', options('fd'), () => device.xrcd(bad({ fd: 5 }))],
      ['pd.srq', options('max'), () => pd.srq(bad({ max: 5 }))],
      ['pd.xrcSrq', options('max'), () => pd.xrcSrq(bad({ xrcd, cq: sendCq, max: 5 }))],
      ['qp.connect', options('mtu'), () => qp.connect(endpoint, bad({ mtu: 512 }))],
      ['qp.connect', unknown('access', 'read'), () => qp.connect(endpoint, bad({ access: { read: true } }))],
      ['qp.connect', unknown('access', 'mwBind'), () => qp.connect(endpoint, { access: bad({ mwBind: true }) })],
      ['pd.ucQp', options('retries'), () => pd.ucQp({ sendCq, peer: endpoint, connection: bad({ retries: 1 }) })],
      ['qp.activate', options('key'), () => ud.activate(bad({ key: 5 }))],
      ['qp.bind', unknown('binding', 'size'), () => qp.bind(pd.window(), bad({ region: mr, size: 5 }))],
      [
        'qp.bind',
        unknown('access', 'mwBind'),
        () => qp.bind(pd.window(), { region: mr, access: bad({ mwBind: true }) }),
      ],
      ['rc_qp.create', options('x'), () => device.chain(chain => chain.rcQp(pd, bad({ sendCq, x: 1 })))],
    ]
    for (const [call, reason, body] of cases) {
      const hint = refuses(call, reason, body)
      assert.match(hint, /^there are \w+/)
    }
    assert.equal(qp.state, 'RESET')
    // An option with the value undefined counts as absent.
    pd.register(mr.buffer, bad({ remoteWrit: undefined })).close()
    await device.close()
    await otherDevice.close()
  })

  test('a missing option, and an option of a wrong type, are named', async () => {
    const [device, otherDevice] = await openTwo()
    const pd = device.pd()
    const sendCq = device.cq()
    const qp = pd.rcQp({ sendCq })
    const { endpoint } = qp
    for (const make of ['rcQp', 'ucQp', 'udQp', 'xrcInitiator', 'xrcSrq'] as const) {
      const makers = untyped<Record<typeof make, (options?: unknown) => unknown>>(pd)
      // Without options RC, UC and UD queue pairs create their own completion queue.
      if (make.startsWith('xrc')) refuses(`pd.${make}`, /^options is missing$/, () => makers[make]())
      refuses(`pd.${make}`, /^options: 5 is not an object$/, () => makers[make](5))
    }
    refuses('pd.rcQp', /^sendCq 5 is not an object of a device$/, () => pd.rcQp(untyped({ sendCq: 5 })))
    refuses('pd.xrcSrq', /^xrcd is missing$/, () => pd.xrcSrq(untyped({ cq: sendCq })))
    refuses('qp.connect', /^peer is missing$/, () => qp.connect(untyped(undefined)))
    refuses('qp.connect', /^psn undefined is not a number of 24 bits$/, () =>
      qp.connect(untyped({ ...endpoint, psn: undefined })),
    )
    refuses('pd.rcQp', /^connection is given without peer$/, () => pd.rcQp({ sendCq, connection: { ackTimeout: 3 } }))
    refuses('pd.rcQp', /^peer: "x" is not an object$/, () => pd.rcQp(untyped({ sendCq, peer: 'x' })))
    assert.equal(qp.state, 'RESET')
    refuses('pd.addressHandle', /^the destination is missing$/, () => pd.addressHandle(untyped(undefined)))
    refuses('pd.addressHandles', /^the destination is missing$/, () => pd.addressHandles(untyped([undefined])))
    refuses('pd.addressHandles', /not a list$/, () => pd.addressHandles(untyped(undefined)))
    refuses('pd.window', /^type 3 is not 1 or 2$/, () => pd.window(untyped(3)))
    // A destination may have additional fields.
    pd.addressHandle(untyped({ ...endpoint, note: 5 })).close()
    await device.close()
    await otherDevice.close()
  })

  test('closed objects, and objects of another device, are refused although the handles exist', async () => {
    const [openDevice, otherDevice] = await openTwo()
    const address = { gid: openDevice.address }
    const make = (device: Device) => {
      const pd = device.pd()
      const mr = pd.register(new Uint8Array(64), { mwBind: true })
      return { pd, mr, cq: device.cq(), xrcd: device.xrcd(), window: pd.window(), ah: pd.addressHandle(address) }
    }
    const local = make(openDevice)
    const foreign = make(otherDevice)
    assert.equal(local.pd.handle, foreign.pd.handle)
    const qp = local.pd.rcQp({ sendCq: local.cq })
    const ud = local.pd.udQp({ sendCq: local.cq, active: true })
    const chained = (build: Parameters<Device['chain']>[0]) => () => openDevice.chain(build)
    refuses(
      'pd.register',
      ofAnotherDevice('pd'),
      chained(chain => chain.register(foreign.pd, new Uint8Array(8))),
    )
    refuses(
      'mw.create',
      ofAnotherDevice('pd'),
      chained(chain => chain.window(foreign.pd)),
    )
    refuses(
      'rc_qp.create',
      ofAnotherDevice('pd'),
      chained(chain => chain.rcQp(foreign.pd, { sendCq: local.cq })),
    )
    refuses(
      'srq.create',
      ofAnotherDevice('pd'),
      chained(chain => chain.srq(foreign.pd)),
    )
    refuses(
      'ah.create',
      ofAnotherDevice('pd'),
      chained(chain => chain.addressHandle(foreign.pd, address)),
    )
    refuses('mr.query', ofAnotherDevice('object'), () => openDevice.call(Mr, 'query', {}, foreign.mr))
    refuses('mr.reregister', ofAnotherDevice('pd'), () => local.mr.reregister({ pd: foreign.pd }))
    refuses('pd.xrcSrq', ofAnotherDevice('xrcd'), () => local.pd.xrcSrq({ xrcd: foreign.xrcd, cq: local.cq }))
    refuses('pd.xrcSrq', ofAnotherDevice('cq'), () => local.pd.xrcSrq({ xrcd: local.xrcd, cq: foreign.cq }))
    refuses('qp.bind', ofAnotherDevice('window'), () => qp.bind(foreign.window, { region: local.mr }))
    refuses('qp.bind', ofAnotherDevice('region'), () => qp.bind(local.window, { region: foreign.mr }))
    refuses('qp.invalidate', ofAnotherDevice('window'), () => qp.invalidate(foreign.window))
    refuses('qp.send', /^the address handle is of another device$/, () =>
      ud.send(new Uint8Array(1), { ah: foreign.ah, qpn: 5, qkey: 5 }),
    )
    refuses('pd.closeAddressHandles', /^the address handle is of another device$/, () =>
      local.pd.closeAddressHandles([foreign.ah]),
    )
    const closedPd = openDevice.pd()
    const { handle } = closedPd
    const closedXrcd = openDevice.xrcd()
    closedPd.close()
    closedXrcd.close()
    const [newPd, newXrcd] = [openDevice.pd(), openDevice.xrcd()]
    assert.equal(newPd.handle, handle)
    refuses('pd.register', closed('pd'), () => closedPd.register(new Uint8Array(8)))
    refuses('pd.rcQp', closed('pd'), () => closedPd.rcQp({ sendCq: local.cq }))
    refuses('xrcd.target', closed('xrcd'), () => closedXrcd.target())
    newPd.register(new Uint8Array(8)).close()
    newXrcd.target().close()
    for (const device of [openDevice, otherDevice]) await device.close()
  })

  test('values of a wrong type or out of range are refused', async () => {
    const [device, otherDevice] = await openTwo()
    const pd = device.pd()
    const sendCq = device.cq()
    const qp = pd.rcQp({ sendCq })
    const bad = untyped<never>
    const flag = (option: string) => new RegExp(`^${option} "no" is not true or false$`)
    const cases: readonly (readonly [string, RegExp, () => unknown])[] = [
      ['pd.register', flag('access.remoteWrite'), () => pd.register(new Uint8Array(8), bad({ remoteWrite: 'no' }))],
      ['qp.connect', flag('access.remoteRead'), () => qp.connect(qp.endpoint, { access: bad({ remoteRead: 'no' }) })],
      ['pd.rcQp', flag('signalAll'), () => pd.rcQp({ sendCq, signalAll: bad('no') })],
      ['cq.arm', flag('solicitedOnly'), () => sendCq.arm({ solicitedOnly: bad('no') })],
      ['device.xrcd', flag('exclusive'), () => device.xrcd({ exclusive: bad('no') })],
      ['device.cq', /^options: a list is not an object$/, () => device.cq(bad([]))],
      ['pd.rcQp', /^options: null is not an object$/, () => pd.rcQp(bad(null))],
      ['pd.rcQp', /^sendCq is an object of class pd, not cq$/, () => pd.rcQp({ sendCq: bad(pd) })],
      ['pd.rcQp', /^sendCq null is not an object of a device$/, () => pd.rcQp({ sendCq: bad(null) })],
      ['pd.rcQp', /^options: recvCq is for queue pairs with a sendCq$/, () => pd.rcQp(bad({ recvCq: sendCq }))],
      ['pd.rcQp', /^maxSendWr: "x" is not a whole number/, () => pd.rcQp({ maxSendWr: bad('x') })],
      ['pd.rcQp', /^maxSendWr \+ maxRecvWr: 100016 is above \d+, the/, () => pd.rcQp({ maxSendWr: 100_000 })],
      ['qp.bind', /^window is an object of class pd, not mw$/, () => qp.bind(bad(pd), bad({}))],
      ['qp.bind', /^window an object is not a memory window$/, () => qp.bind(bad({ handle: 1 }), bad({}))],
      ['qp.activate', /^qkey: -1 is not a whole number/, () => pd.udQp({ sendCq }).activate({ qkey: -1 })],
      ['qp.connect', /^pathMtu null is not 256,/, () => qp.connect(qp.endpoint, { pathMtu: bad(null) })],
      [
        'qp.bind',
        /^offset 9 does not lie in a region of 8 bytes$/,
        () => qp.bind(pd.window(), { region: pd.register(new Uint8Array(8)), offset: 9 }),
      ],
      ['qp.connect', /^qpn "5" is not a number of 24 bits$/, () => qp.connect({ ...qp.endpoint, qpn: bad('5') })],
      ['qp.connect', /^sl 16 is not an integer from 0 to 15$/, () => qp.connect(qp.endpoint, { sl: 16 })],
      [
        'pd.addressHandle',
        /^flowLabel -1 is not an integer from 0 to 1048575$/,
        () => pd.addressHandle({ gid: '127.0.0.1', flowLabel: -1 }),
      ],
      ['pd.register', /^buffer has no bytes$/, () => pd.register(new Uint8Array(0))],
      ['cq.resize', /^entries undefined is not a number of 32 bits$/, () => sendCq.resize(bad(undefined))],
      ['srq.setLimit', /^limit undefined is not a number of 32 bits$/, () => pd.srq().setLimit(bad(undefined))],
    ]
    for (const [call, reason, body] of cases) refuses(call, reason, body)
    await assert.rejects(device.close(bad({ drain: 'no' })), { reason: 'drain "no" is not true or false' })
    assert.equal(qp.state, 'RESET')
    await device.close()
    await otherDevice.close()
  })
})

test('the hint for memory that is not a Uint8Array shows how to make a Uint8Array', async () => {
  const device = await open()
  const pd = device.pd()
  const register = (value: unknown, type: string) =>
    refuses('pd.register', new RegExp(`^buffer: ${type} is not a Uint8Array$`), () =>
      pd.register(untyped<Uint8Array>(value)),
    )
  assert.equal(register(new ArrayBuffer(8), 'an ArrayBuffer'), 'write new Uint8Array(buffer)')
  assert.match(register(new Float64Array(8), 'a Float64Array'), /view\.buffer, view\.byteOffset, view\.byteLength/)
  assert.match(register('text', '"text"'), /TextEncoder/)
  await device.close()
})

test('wrong options of `createNetwork`, `open` and `openSystem` are refused', async () => {
  refuses('createNetwork', unknown('options', 'lnk'), () => createNetwork(untyped({ lnk: 'udp' })))
  refuses('openSystem', unknown('options', 'sock'), () => openSystem(untyped({ sock: true })))
  const rejects = (options: object, reason: RegExp) =>
    assert.rejects(open(options), error => error instanceof RdmaError && reason.test(error.reason))
  await rejects({ addres: '127.0.0.9' }, unknown('options', 'addres'))
  await rejects({ rings: 'x' }, /^rings "x" is not one of compact, mapped$/)
})
