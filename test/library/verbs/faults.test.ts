/*
 * Fault rules for programs, as programs of the library see them.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { openToolSession, type ToolSession } from '../../../src/daemon/client/tool-session.ts'
import { hasNative } from '../../../src/host/native.ts'
import { createNetwork, open } from '../../../src/library/index.ts'
import { QpState } from '../../../src/spec/enums.ts'
import { startDaemon, suiteScope, type TestDaemon, TWO_DEVICES } from '../../system/programs.ts'
import { closeAll, completionText, nextEvent, type OpenTwo, openTwoInProcess, pair } from './endpoints.ts'

const tests = (openTwo: OpenTwo, setFaults: (rules: string) => Promise<void> | void): void => {
  it('calls fail', async () => {
    const { a, b } = await pair(openTwo)
    await setFaults('call=mr.create,nth=2,errno=ENOMEM')
    a.pd.register(new Uint8Array(8), {})
    assert.throws(() => a.pd.register(new Uint8Array(8), {}), {
      code: 'ENOMEM',
      message: /injected by fault rule 1 \(call=mr\.create,nth=2,errno=ENOMEM\)/,
    })
    a.pd.register(new Uint8Array(8), {})
    await closeAll(a, b)
  })

  it('posts fail', async () => {
    const { a, b } = await pair(openTwo)
    await setFaults('post=ENOMEM,request=SEND,length=8,inline=no;post=EIO,request=RECV,class=srq')
    assert.throws(() => a.qp.send(a.mr.slice(0, 8)), { code: 'ENOMEM', message: /injected by a fault rule/ })
    const srq = b.pd.srq()
    assert.throws(() => srq.receive(), { code: 'EIO' })
    a.qp.write(a.mr.slice(0, 8), b.mr.remote(), { id: 7 })
    assert.equal(await completionText(a.cq), '7 RDMA_WRITE')
    await setFaults('')
    srq.receive()
    await closeAll(a, b)
  })

  it('completions fail, and the later ones are flushed', async () => {
    const { a, b } = await pair(openTwo)
    await setFaults('completion=WRITE,status=RETRY_EXC_ERR,nth=2')
    for (const id of [1, 2, 3, 4]) a.qp.write(a.mr.slice(0, 8), b.mr.remote(), { id })
    assert.deepEqual(
      [await completionText(a.cq), await completionText(a.cq), await completionText(a.cq), await completionText(a.cq)],
      ['1 RDMA_WRITE', '2 RETRY_EXC_ERR', '3 WR_FLUSH_ERR', '4 WR_FLUSH_ERR'],
    )
    assert.equal(a.qp.query().state, QpState.values.ERR)
    await closeAll(a, b)
  })

  it('events come', async () => {
    const { a, b } = await pair(openTwo)
    const event = nextEvent(a.device)
    await setFaults('event=PORT_ERR')
    assert.equal((await event)?.type, 'PORT_ERR')
    await closeAll(a, b)
  })

  it('a test sets its own, which end with their scope', async () => {
    await setFaults('')
    const { a, b } = await pair(openTwo)
    const events = a.device.events()
    {
      using lost = b.device.fault({ qp: b.qp.qpn, drop: '100%', count: 1 })
      using refused = a.device.fault([
        { call: 'mr.create', errno: 'ENOMEM', nth: 2 },
        { call: 'mr.*', errno: 'EINVAL', nth: 9 },
      ])
      a.qp.write(a.mr.slice(0, 8), b.mr.remote(), { id: 7 })
      await lost.wait()
      assert.equal(lost.count, 1)
      assert.equal(await completionText(a.cq), '7 RDMA_WRITE')
      await assert.rejects(refused.wait(1, { milliseconds: 1 }), { code: 'ETIMEDOUT' })
      a.pd.register(new Uint8Array(8), {})
      assert.throws(() => a.pd.register(new Uint8Array(8), {}), { code: 'ENOMEM' })
      await setFaults('')
      assert.equal(lost.count, 1)
      lost.clear()
      assert.throws(() => lost.count, { code: 'ENOENT' })
    }
    a.pd.register(new Uint8Array(8), {})
    {
      using down = a.device.fault('link=600s')
      await down.wait()
      assert.equal((await events.next()).value?.type, 'PORT_ERR')
    }
    assert.equal((await events.next()).value?.type, 'PORT_ACTIVE')
    assert.throws(() => a.device.fault({ drop: 2 }), { code: 'EINVAL', message: /fault drop: "2" is not/ })
    assert.throws(() => a.device.fault(';'), { code: 'EINVAL', message: /the text has no rule/ })
    await closeAll(a, b)
  })

  it('links go down for a time', async () => {
    await setFaults('')
    const { a, b } = await pair(openTwo)
    const events = a.device.events()
    await setFaults('call=mr.create,nth=1,link=50ms')
    a.pd.register(new Uint8Array(8), {})
    assert.equal((await events.next()).value?.type, 'PORT_ERR')
    a.qp.write(a.mr.slice(0, 8), b.mr.remote(), { id: 7 })
    assert.equal((await events.next()).value?.type, 'PORT_ACTIVE')
    assert.equal(await completionText(a.cq), '7 RDMA_WRITE')
    await closeAll(a, b)
  })
}

describe('fault rules for programs in this process', () => {
  const network = createNetwork()
  tests(openTwoInProcess(network), rules => network.setFaults(rules))

  it('cannot delay calls, which are synchronous', () => {
    assert.throws(() => network.setFaults('call=mr.create,delay=1s'), {
      code: 'EINVAL',
      message: /calls of devices in this process are synchronous and cannot be delayed; use a daemon/,
    })
  })
})

describe('fault rules for programs on a daemon', { skip: !hasNative() && 'koffi is missing' }, () => {
  const scope = suiteScope()
  let daemon: TestDaemon
  let client: ToolSession
  before(async () => {
    daemon = await startDaemon(scope, { devices: TWO_DEVICES })
    client = await openToolSession(daemon.socket)
    scope.after(() => client.close())
  })
  tests(
    async () => [await open({ socket: daemon.socket }), await open({ socket: daemon.socket, device: 'rxe1' })],
    async rules => {
      await client.faults(rules)
    },
  )
})
