/*
 * What console.log and JSON.stringify show of the library's objects: their attributes and no internals. Neither throws,
 * also for closed objects.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { createCtxDevice } from '../../src/drivers/ctx/device.ts'
import { CtxContext } from '../../src/spec/drivers/ctx.ts'
import { createNetwork, open, openSystem } from '../../src/verbs/index.ts'
import { closeAll, eachCarrier, nextCompletion, pair } from './connections/endpoints.ts'

/** Internals of the library's objects. */
const INTERNALS = /\bcontext:|carrier|waiters|sources|Uint8Array|DataView|\[Function|_userHandle/

eachCarrier(openTwo => {
  test('objects show their attributes, open and closed', async () => {
    const { a, b } = await pair(openTwo)
    const window = a.pd.window()
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
    assert.match(
      inspect(a.qp),
      new RegExp(`^RcQueuePair \\{[^}]*qpn: ${a.qp.qpn}, +state: 'RTS'`.replaceAll(', +', ',\\s+')),
    )
    const { state, peerQpn, pendingSends } = JSON.parse(JSON.stringify(a.qp))
    assert.deepEqual({ state, peerQpn, pendingSends }, { state: 'RTS', peerQpn: b.qp.qpn, pendingSends: 0 })
    assert.match(inspect(a.cq.completion), /^Completion \{\s+id: 7,\s+status: 'SUCCESS',\s+opcode: 'RDMA_WRITE'/)
    assert.deepEqual(JSON.parse(JSON.stringify(a.mr)).address, `0x${a.mr.address.toString(16)}`)
    await closeAll(a, b)
    checkShown()
  })
})

test('networks, the system-wide device and objects of drivers show their attributes too', async () => {
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
})
