/*
 * Devices with InfiniBand ports in virtual time: LIDs of the network's subnet manager, messages by LID, switches.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  connect,
  createNetwork,
  listen,
  MULTICAST_QPN,
  type NetworkOptions,
  open,
  senderOf,
} from '../../../../src/library/index.ts'
import { LinkLayer, PortState } from '../../../../src/spec/enums.ts'
import { closeAll, completionText, endpointOn, nextCompletion, openTwoInProcess } from '../../verbs/endpoints.ts'

const { INIT, ACTIVE, DOWN } = PortState.values
const infiniband = { layer: 'infiniband' } as const

const two = async (options: NetworkOptions = {}, rings: 'compact' | 'mapped' = 'compact') => {
  const network = createNetwork({ clock: 'virtual', ...options })
  const devices = await openTwoInProcess(network, { ...infiniband, rings })()
  const [a, b] = devices.map(device => endpointOn(device)) as [
    ReturnType<typeof endpointOn>,
    ReturnType<typeof endpointOn>,
  ]
  return { network, a, b }
}

for (const rings of ['compact', 'mapped'] as const)
  test(`RC by LID, with ${rings} rings: ports are ACTIVE at once; another LID is RETRY_EXC_ERR`, async () => {
    const { a, b } = await two({}, rings)
    const [own, peer] = [a, b].map(({ device }) => device.queryPort())
    assert.deepEqual([own!.state, own!.linkLayer], [ACTIVE, LinkLayer.values.INFINIBAND])
    assert.ok(own!.lid > 0 && peer!.lid > 0 && own!.lid !== peer!.lid, `${own!.lid} ${peer!.lid}`)
    assert.equal(b.qp.endpoint.lid, peer!.lid)
    a.qp.connect(b.qp.endpoint)
    b.qp.connect(a.qp.endpoint)
    b.qp.receive(b.mr.slice(0, 64), 1)
    a.mr.buffer.set([1, 2, 3])
    a.qp.send(a.mr.slice(0, 3), { id: 2 })
    assert.equal(await completionText(a.cq), '2 SEND')
    assert.equal(await completionText(b.cq), '1 RECV')
    assert.deepEqual([...b.mr.buffer.subarray(0, 3)], [1, 2, 3])

    const lost = a.pd.rcQp({ sendCq: a.cq })
    lost.connect({ ...b.qp.endpoint, lid: 999 }, { ackTimeoutExponent: 14, retryCount: 1 })
    lost.send(a.mr.slice(0, 3), { id: 3 })
    assert.equal(await completionText(a.cq), '3 RETRY_EXC_ERR')
    await closeAll(a, b)
  })

test('datagrams by LID: the 40 bytes are room, a GRH fills them; the receiver knows the LID of the sender', async () => {
  const { a, b } = await two()
  const [from, to] = [a, b].map(({ pd, cq }) => pd.udQp({ sendCq: cq, active: true })) as [
    ReturnType<typeof a.pd.udQp>,
    ReturnType<typeof a.pd.udQp>,
  ]
  const { lid, gid, qpn, qkey } = to.endpoint
  const addresses = [{ lid }, { lid, gid, isGlobal: true }].map(destination => a.pd.addressHandle(destination))
  const seen: unknown[] = []
  for (const [id, ah] of addresses.entries()) {
    b.mr.buffer.fill(0xee)
    to.receive(b.mr.slice(0, 64), id)
    from.send(a.mr.slice(0, 8), { ah, qpn, qkey })
    await nextCompletion(a.cq)
    while (!b.cq.poll()) await b.cq.wait()
    const { bytes, hasGrh, sourceLid, sourceQpn } = b.cq.completion
    const header = b.mr.buffer.subarray(0, 40)
    seen.push([bytes, hasGrh, sourceLid, sourceQpn, hasGrh ? senderOf(header).gid : header.every(byte => byte === 0)])
  }
  const { endpoint } = from
  assert.deepEqual(seen, [
    [48, false, endpoint.lid, endpoint.qpn, true],
    [48, true, endpoint.lid, endpoint.qpn, endpoint.gid],
  ])
  await closeAll(a, b)
})

test('fabric: no manager leaves ports INIT; a cut cable of a fat tree takes a port DOWN, and it comes back', async () => {
  const without = await two({ fabric: 'manager=none' })
  assert.deepEqual([without.a.device.queryPort().state, without.a.qp.endpoint.lid], [INIT, 0])
  await closeAll(without.a, without.b)

  const { network, a, b } = await two({ fabric: 'fat-tree,leaves=2,spines=2' })
  const told: string[] = []
  a.device.onEvent(({ type }) => told.push(type))
  network.setLink(a.device.name, false)
  assert.equal(a.device.queryPort().state, DOWN)
  network.setLink(a.device.name, true)
  await network.sleep(1)
  assert.equal(a.device.queryPort().state, ACTIVE)
  assert.deepEqual([told[0], told.at(-1)], ['PORT_ERR', 'PORT_ACTIVE'])
  a.qp.connect(b.qp.endpoint)
  b.qp.connect(a.qp.endpoint)
  a.qp.write(a.mr.slice(0, 8), b.mr.remote(), { id: 1 })
  assert.equal(await completionText(a.cq), '1 RDMA_WRITE')
  await closeAll(a, b)
})

test('connect and listen ask the subnet administrator for the path', async () => {
  const network = createNetwork({ clock: 'virtual' })
  const [left, right] = await openTwoInProcess(network, infiniband)()
  const server = await listen('rdma://0.0.0.0:7471', { device: left })
  const serve = async (): Promise<void> => {
    for await (const request of server) {
      const messages = await (await request.accept()).messages()
      for await (const message of messages) await messages.send(message)
      await messages.close()
    }
  }
  const served = serve()
  const connection = await connect(`rdma://${left.address}:7471`, { device: right })
  const messages = await connection.messages()
  await messages.send(Uint8Array.of(7))
  const { value } = await messages[Symbol.asyncIterator]().next()
  assert.deepEqual([...value!], [7])
  await messages.end()
  await messages.close()
  await server.close()
  await served
  await closeAll({ device: left }, { device: right })
})

test('a multicast LID reaches the members of its group, by the QPN of groups only', async () => {
  const { network, a, b } = await two()
  // With rdma_cm, ports are in the group of IP's broadcasts, whose LID is the first.
  for (const { device } of [a, b]) await listen('rdma://0.0.0.0:7471', { device })
  await network.sleep(1)
  const [gid, lid] = ['ff12:401b:ffff::ffff:ffff', 0xc000]
  const from = a.pd.udQp({ sendCq: a.cq, active: true })
  const to = b.pd.udQp({ sendCq: b.cq, active: true })
  to.attach(gid, lid)
  const ah = a.pd.addressHandle({ lid, gid, isGlobal: true })
  for (const [id, qpn] of [to.qpn, MULTICAST_QPN].entries()) {
    to.receive(b.mr.slice(0, 64), id)
    from.send(a.mr.slice(0, 8), { ah, qpn, qkey: to.endpoint.qkey }, { id })
    assert.equal(await completionText(a.cq), `${id} SEND`)
  }
  assert.equal(await completionText(b.cq), '0 RECV')
  assert.equal(b.cq.poll(), false)
  to.detach(gid, lid)
  await closeAll(a, b)
})

test('partitions: a limited member does not reach another limited member', async () => {
  const network = createNetwork({ clock: 'virtual' })
  const options = { network, ...infiniband }
  const [one, other] = [await open({ ...options, pkeys: [0x1234] }), await open({ ...options, pkeys: [0x1234] })]
  const [a, b] = [endpointOn(one), endpointOn(other)]
  const outcomes = []
  // The manager's own key comes first.
  for (const pkeyIndex of [0, 1]) {
    const [from, to] = [a, b].map(({ pd, cq }) => pd.rcQp({ sendCq: cq })) as [typeof a.qp, typeof a.qp]
    from.connect(to.endpoint, { pkeyIndex, ackTimeoutExponent: 14, retryCount: 1 })
    to.connect(from.endpoint, { pkeyIndex })
    from.write(a.mr.slice(0, 8), b.mr.remote(), { id: pkeyIndex })
    outcomes.push(await completionText(a.cq))
  }
  assert.deepEqual(outcomes, ['0 RDMA_WRITE', '1 RETRY_EXC_ERR'])
  await closeAll(a, b)
})

/** The virtual milliseconds from a WRITE of so many bytes to its completion. */
const writeTime = async ({ network, a, b }: Awaited<ReturnType<typeof two>>, bytes: number): Promise<number> => {
  const from = network.now()
  a.qp.write(a.mr.slice(0, bytes), b.mr.remote(), { id: 1 })
  assert.equal(await completionText(a.cq), '1 RDMA_WRITE')
  return network.now() - from
}

test('links between switches have a delay and a rate, for management and data', async () => {
  const both = await two({ fabric: 'links=x:y/delay=3ms+y:z/rate=1mbit,at=rxe0:x+rxe1:z' })
  const { network, a, b } = both
  assert.deepEqual([a.device.queryPort().state, b.device.queryPort().state], [ACTIVE, ACTIVE])
  assert.ok(network.now() > 6, `the manager has asked over the links by ${network.now()} ms`)
  a.qp.connect(b.qp.endpoint)
  b.qp.connect(a.qp.endpoint)
  const [small, large] = [await writeTime(both, 8), await writeTime(both, 1000)]
  // There and back; at the rate of 125 bytes in a millisecond the packet and its ACK, with 10 bytes of LRH and VCRC
  // each.
  const [packet, ack] = [10 + 12 + 16 + 8 + 4, 10 + 12 + 4 + 4]
  assert.ok(small >= 6 + (packet + ack) / 125 && small < 7.5, `${small} ms`)
  assert.ok(Math.abs(large - small - 992 / 125) < 0.1, `${large - small} ms more`)
  await closeAll(a, b)
})

test('a link that loses packets: RC goes on, datagrams and a group lose their share', async () => {
  const { network, a, b } = await two({ seed: 5, fabric: 'links=x:y,loss=20%,at=rxe0:x+rxe1:y' })
  for (const { device } of [a, b]) await listen('rdma://0.0.0.0:7471', { device })
  await network.sleep(5000)
  a.qp.connect(b.qp.endpoint, { ackTimeoutExponent: 10, retryCount: 7 })
  b.qp.connect(a.qp.endpoint)
  for (let id = 0; id < 50; id++) {
    a.qp.write(a.mr.slice(0, 8), b.mr.remote(), { id })
    assert.equal(await completionText(a.cq), `${id} RDMA_WRITE`)
  }
  const [gid, lid] = ['ff12:401b:ffff::ffff:ffff', 0xc000]
  const from = a.pd.udQp({ sendCq: a.cq, active: true })
  const to = b.pd.udQp({ sendCq: b.cq, active: true })
  to.attach(gid, lid)
  const { qpn, qkey } = to.endpoint
  const destinations = [a.pd.addressHandle({ lid: to.endpoint.lid }), a.pd.addressHandle({ lid, gid, isGlobal: true })]
  to.receive(b.mr.slice(0, 64))
  for (const ah of destinations) {
    let received = 0
    for (let i = 0; i < 100; i++) {
      from.send(a.mr.slice(0, 8), { ah, qpn: ah === destinations[0] ? qpn : MULTICAST_QPN, qkey })
      await nextCompletion(a.cq)
      await network.sleep(0.1)
      if (!b.cq.poll()) continue
      received++
      to.receive(b.mr.slice(0, 64))
    }
    assert.ok(received > 60 && received < 95, `${received} of 100`)
  }
  await closeAll(a, b)
})

test('options that fit no port are refused', async () => {
  const network = createNetwork({ clock: 'virtual' })
  const refusals: [object, RegExp][] = [
    [{ guid: '0x0002c90300a1b2c3' }, /guid is of an InfiniBand port/],
    [{ pkeys: [0xffff] }, /pkeys is of an InfiniBand port/],
    [{ layer: 'infinband' }, /layer "infinband"/],
    [{ ...infiniband, guid: '12' }, /16 hexadecimal digits/],
    [{ ...infiniband, pkeys: [0x8000] }, /1 to 128 partition keys/],
    [{ ...infiniband, dcqcn: true }, /dcqcn is of a port of RoCE/],
    [{ ...infiniband, host: 'h1' }, /host is of a port of RoCE/],
  ]
  for (const [options, message] of refusals)
    await assert.rejects(open({ network, ...options }), { code: 'EINVAL', message })
  assert.throws(() => createNetwork({ fabric: 'tree' }), { code: 'EINVAL', message: /is no shape of a fabric/ })
  const linked = createNetwork({ clock: 'virtual', links: { hosts: 2 } })
  await assert.rejects(open({ network: linked, ...infiniband }), { code: 'EINVAL', message: /links are between ports/ })
  await assert.rejects(open({ link: 'dgram', ...infiniband }), { code: 'EINVAL', message: /stay in this process/ })
})
