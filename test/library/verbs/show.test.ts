/*
 * console.log and JSON.stringify show attributes of the library's objects, no internals, and do not throw.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { createCtxDevice } from '../../../src/drivers/ctx/device.ts'
import { connect, createNetwork, listen, open, openSystem, requestWindow } from '../../../src/library/index.ts'
import { CtxContext } from '../../../src/spec/drivers/ctx.ts'
import { closeAll, eachCarrier, nextCompletion, pair } from './endpoints.ts'

/** Internals of the library's objects, as `inspect` and as JSON. */
const INTERNALS = /\bcontext"?:|carrier|waiters|sources|Uint8Array|DataView|\[Function|_userHandle/

eachCarrier(openTwo => {
  test('objects show their attributes, open and closed', async () => {
    const { a, b } = await pair(openTwo)
    const window = a.pd.window()
    assert.equal(inspect(a.cq.completion), 'Completion {}', 'before the first poll')
    const closed = a.pd.rcQp({ sendCq: a.cq })
    closed.close()
    assert.equal(inspect(closed), `RcQueuePair { qpn: ${closed.qpn}, closed: true }`)
    assert.match(inspect(a.qp, { depth: 0 }), /^RcQueuePair \{[^}]*state: 'RTS'/)
    const closedEvents = a.device.eventQueue()
    closedEvents.close()
    assert.equal(inspect(closedEvents), 'EventQueue { closed: true }')
    const xrcd = a.device.xrcd()
    const objects: Record<string, object> = {
      device: a.device,
      pd: a.pd,
      mr: a.mr,
      slice: a.mr.slice(0, 4),
      remote: a.mr.remote(0, 4),
      cq: a.cq,
      counting: a.device.cq({ kind: 'counting' }),
      qp: a.qp,
      awaitable: a.pd.rcQp(),
      ud: a.pd.udQp({ sendCq: a.cq }),
      ah: a.pd.addressHandle({ gid: '127.0.0.1' }),
      srq: a.pd.srq(),
      window,
      xrcd,
      xrcSrq: a.pd.xrcSrq({ xrcd, cq: a.cq }),
      events: a.device.eventQueue(),
    }
    a.qp.write(Uint8Array.of(1), b.mr.remote(0, 1), { id: 7 })
    await nextCompletion(a.cq)
    objects.completion = a.cq.completion
    const checkShown = () => {
      for (const [name, object] of Object.entries(objects)) {
        assert.doesNotMatch(inspect(object), INTERNALS, name)
        assert.match(inspect(object), /^[A-Z]\w+ \{/, name)
        assert.match(inspect({ object }, { depth: 0 }), /^\{ object: \[[A-Z]\w+\] \}$/)
        assert.doesNotMatch(JSON.stringify(object), INTERNALS, name)
      }
    }
    checkShown()
    assert.match(inspect(a.qp), new RegExp(`^RcQueuePair \\{[^}]*qpn: ${a.qp.qpn},\\s+state: 'RTS'`))
    const { state, peerQpn, pendingSends } = JSON.parse(JSON.stringify(a.qp))
    assert.deepEqual({ state, peerQpn, pendingSends }, { state: 'RTS', peerQpn: b.qp.qpn, pendingSends: 0 })
    assert.match(inspect(a.cq.completion), /^Completion \{\s+id: 7,\s+status: 'SUCCESS',\s+opcode: 'RDMA_WRITE'/)
    assert.equal(JSON.parse(JSON.stringify(a.mr)).address, `0x${a.mr.address.toString(16)}`)
    await closeAll(a, b)
    checkShown()
    // The ring is gone: its zeros must not be shown as status SUCCESS.
    assert.equal(inspect(a.cq.completion), 'Completion {}')
  })
})

test('networks, the system-wide device and objects of drivers show their attributes', async () => {
  const network = createNetwork()
  network.addDevice(core => createCtxDevice(core, 'ctx0'))
  await using device = await open({ network, device: 'ctx0' })
  using system = openSystem({ network })
  const object = device.create(CtxContext, {
    eagerCount: 16,
    eagerBytes: 64,
    expectedCount: 0,
    expectedBytes: 64,
    jobKey: 7,
  })
  using ops = device.driverOps()
  assert.equal(inspect(network), "Network { link: 'memory', path: 'direct', devices: [ 'ctx0' ], faults: 0 }")
  assert.equal(JSON.stringify(network), '{"link":"memory","path":"direct","devices":["ctx0"],"faults":0}')
  for (const shown of [device, system, object, ops]) {
    assert.doesNotMatch(inspect(shown), INTERNALS)
    assert.doesNotMatch(JSON.stringify(shown), INTERNALS)
  }
  for (const closed of [object, ops]) {
    closed.close()
    assert.match(inspect(closed), /closed: true/)
    assert.doesNotMatch(JSON.stringify(closed), /handle/)
  }
})

test('servers, connection requests, connections and request windows show their attributes', async () => {
  const network = createNetwork()
  await using left = await open({ network })
  await using right = await open({ network })
  const server = await listen('rdma://0.0.0.0:7471', { device: right })
  assert.equal(inspect(server), "Server { device: 'rxe1', address: '0.0.0.0', port: 7471 }")
  const pending = connect(`rdma://${right.address}:7471`, { device: left })
  for await (const request of server) {
    // 56: the private data of a REQ (92 bytes) without the addresses of RDMA IP CM (36 bytes)
    assert.match(inspect(request), /^ConnectionRequest \{ remote: '127\.0\.0\.1:\d+', privateBytes: 56 \}$/)
    assert.doesNotMatch(JSON.stringify(request), INTERNALS)
    const accepted = await request.accept()
    assert.match(JSON.stringify(accepted), /^\{"local":"127\.0\.0\.2:7471","remote":"127\.0\.0\.1:\d+","qpn":\d+\}$/)
    break
  }
  const connection = await pending
  const { qpn } = connection.qp
  assert.match(
    inspect(connection, { breakLength: Infinity }),
    /^Connection \{ local: '127\.0\.0\.1:\d+', remote: '127\.0\.0\.2:7471', qpn: \d+ \}$/,
  )
  await connection.close()
  assert.match(inspect(connection), new RegExp(`qpn: ${qpn},\\s+closed: true`))
  await server.close()
  assert.match(inspect(server), /closed: true/)
  assert.equal(inspect(requestWindow(4)), 'RequestWindow { limit: 4, inFlight: 0 }')
})
