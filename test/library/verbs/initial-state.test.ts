/*
 * R7 in the library: one call, or one chain, creates a queue pair that is connected to its peer, or in any state.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { QpState } from '../../../src/spec/enums.ts'
import { closeAll, completionText, eachCarrier, resourcesOn } from './endpoints.ts'

eachCarrier(openTwo => {
  const bothResources = async () => {
    const [one, two] = await openTwo()
    return [resourcesOn(one), resourcesOn(two)] as const
  }

  test('one call creates a connected queue pair of every connected service', async () => {
    const [a, b] = await bothResources()
    const rc = a.pd.rcQp({ sendCq: a.cq })
    const rcPeer = b.pd.rcQp({ sendCq: b.cq, peer: rc.endpoint, connection: { pathMtu: 256, ackTimeoutExponent: 10 } })
    assert.deepEqual([rcPeer.state, rcPeer.query().ackTimeoutExponent, rcPeer.query().pathMtu], ['RTS', 10, 256])
    rc.connect(rcPeer.endpoint, { pathMtu: 256 })
    const reset = a.pd.rcQp()
    assert.throws(() => reset.modify({ pathMtu: 300 }), { code: 'EINVAL', reason: /^pathMtu 300 is not 256, 512/ })
    reset.close()
    rc.write(Uint8Array.of(1, 2), b.mr.remote(), { id: 3 })
    assert.equal(await completionText(a.cq), '3 RDMA_WRITE')
    rcPeer.write(Uint8Array.of(3), a.mr.remote(), { id: 4 })
    assert.equal(await completionText(b.cq), '4 RDMA_WRITE')

    const uc = a.pd.ucQp({ sendCq: a.cq })
    const ucPeer = b.pd.ucQp({ sendCq: b.cq, peer: uc.endpoint })
    uc.connect(ucPeer.endpoint)
    ucPeer.receive(b.mr.slice(0, 8), 6)
    uc.send(Uint8Array.of(9))
    assert.equal(await completionText(b.cq), '6 RECV')

    const xrcd = b.device.xrcd()
    const srq = b.pd.xrcSrq({ xrcd, cq: b.cq })
    const first = a.pd.xrcInitiator({ sendCq: a.cq })
    const target = xrcd.target({ peer: first.endpoint })
    // The users are the SRQ and the target.
    assert.deepEqual({ ...xrcd.query() }, { shared: 0, openers: 1, users: 2 })
    const initiator = a.pd.xrcInitiator({ sendCq: a.cq, peer: target.endpoint })
    assert.deepEqual([target.state, initiator.state], ['RTS', 'RTS'])
    first.connect(target.endpoint)
    srq.receive(b.mr.slice(0, 8), 7)
    first.send(Uint8Array.of(1), { srqNumber: srq.srqNumber })
    assert.equal(await completionText(b.cq), '7 RECV')
    await closeAll(a, b)
  })

  test('a datagram queue pair is created in RTS, and an RC queue pair in INIT', async () => {
    const [a, b] = await bothResources()
    const receiver = b.pd.udQp({ sendCq: b.cq, active: { qkey: 77 } })
    assert.deepEqual([receiver.state, receiver.endpoint.qkey], ['RTS', 77])
    const sender = a.pd.udQp({ sendCq: a.cq, active: true })
    receiver.receive(b.mr.slice(), 2)
    sender.send(Uint8Array.of(1), { ah: a.pd.addressHandle(receiver.endpoint), qpn: receiver.qpn, qkey: 77 })
    assert.equal(await completionText(b.cq), '2 RECV')
    // In RESET the endpoint, which peers get, has the Q_Key that the next `activate` sets.
    receiver.modify({ state: 'RESET' })
    const { qkey } = receiver.endpoint
    receiver.activate()
    assert.equal(qkey, receiver.query().qkey)
    const { INIT } = QpState.values
    const qp = a.pd.rcQp({ sendCq: a.cq, initial: { state: INIT, pkeyIndex: 0, port: 1, accessFlags: 0 } })
    assert.equal(qp.state, 'INIT')
    await closeAll(a, b)
  })

  test('a creation with a wrong peer, or without attributes of the state, is refused and leaves no object', async () => {
    const [a, b] = await bothResources()
    const peer = { qpn: 1, gid: 'nowhere', psn: 0 }
    assert.throws(() => a.pd.rcQp({ sendCq: a.cq, peer }), {
      code: 'EINVAL',
      reason: /gid "nowhere" is not an address/,
    })
    const initial = { state: QpState.values.RTS }
    assert.throws(() => a.pd.rcQp({ sendCq: a.cq, initial }), { code: 'EINVAL', call: 'pd.rcQp' })
    // Refused with EBUSY if a queue pair used the CQ.
    a.cq.close()
    await closeAll(a, b)
  })

  test('a chain creates connected queue pairs', async () => {
    const [a, b] = await bothResources()
    const ends = Array.from({ length: 5 }, () => a.pd.rcQp({ sendCq: a.cq }))
    const { qps } = b.device.chain(chain => ({
      qps: ends.map(({ endpoint }) => chain.rcQp(b.pd, { sendCq: b.cq, peer: endpoint })),
    }))
    assert.deepEqual(
      qps.map(({ state }) => state),
      ends.map(() => 'RTS'),
    )
    for (const [id, end] of ends.entries()) {
      end.connect(qps[id].endpoint)
      end.write(Uint8Array.of(1), b.mr.remote(), { id })
      assert.equal(await completionText(a.cq), `${id} RDMA_WRITE`)
    }
    await closeAll(a, b)
  })
})
