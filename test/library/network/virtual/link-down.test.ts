/*
 * Links that go down and come back: queue pairs survive if their retries last longer.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createNetwork } from '../../../../src/library/index.ts'
import { PortState } from '../../../../src/spec/enums.ts'
import { closeAll, completionText, endpointOn, openTwoInProcess } from '../../verbs/endpoints.ts'

const { DOWN, ACTIVE } = PortState.values

/** Two queue pairs that retry for about 8 s, and what the first device's program is told. */
const connected = async (fault?: string) => {
  const network = createNetwork({ clock: 'virtual', fault })
  const [one, two] = await openTwoInProcess(network)()
  const told: string[] = []
  const follow = async (): Promise<void> => {
    for await (const { type } of one.events()) told.push(`${type} ${Math.round(network.now())}`)
  }
  void follow().catch(() => {})
  const a = endpointOn(one)
  const b = endpointOn(two)
  const retries = { ackTimeoutExponent: 18, retryCount: 7 }
  a.qp.connect(b.qp.endpoint, retries)
  b.qp.connect(a.qp.endpoint, retries)
  return { network, told, a, b }
}

test('a connection survives an outage that is shorter than its retries, and ends by a longer one', async () => {
  const { network, told, a, b } = await connected()
  const start = Math.round(network.now())
  network.setLink(a.device.name, false)
  a.qp.write(a.mr.slice(0, 8), b.mr.remote(), { id: 1 })
  await network.sleep(3000)
  assert.equal(a.device.queryPort().state, DOWN)
  assert.equal(b.device.queryPort().state, ACTIVE)
  network.setLink(a.device.name, true)
  assert.equal(await completionText(a.cq), '1 RDMA_WRITE')
  assert.equal(a.device.queryPort().state, ACTIVE)
  assert.deepEqual(told, [`PORT_ERR ${start}`, `PORT_ACTIVE ${start + 3000}`])
  assert.equal(a.device.counters().port.linkDowned, 1)

  network.setLink(b.device.name, false)
  a.qp.write(a.mr.slice(0, 8), b.mr.remote(), { id: 2 })
  assert.equal(await completionText(a.cq), '2 RETRY_EXC_ERR')
  await closeAll(a, b)
})

test('a rule takes the link down at a completion, for its time', async () => {
  const { network, told, a, b } = await connected('completion=WRITE,nth=2,link=2s')
  for (const id of [1, 2]) a.qp.write(a.mr.slice(0, 8), b.mr.remote(), { id })
  assert.equal(await completionText(a.cq), '1 RDMA_WRITE')
  assert.equal(await completionText(a.cq), '2 RDMA_WRITE')
  const start = network.now()
  a.qp.write(a.mr.slice(0, 8), b.mr.remote(), { id: 3 })
  assert.equal(await completionText(a.cq), '3 RDMA_WRITE')
  assert.ok(network.now() - start >= 2000, String(network.now() - start))
  assert.deepEqual(
    told.map(line => line.split(' ')[0]),
    ['PORT_ERR', 'PORT_ACTIVE'],
  )
  await closeAll(a, b)
})

test('outages that overlap end with the last; up ends all', async () => {
  const { network, told, a, b } = await connected()
  network.setLink(a.device.name, false)
  network.setFaults('call=mr.create,link=2s')
  a.pd.register(new Uint8Array(8), {})
  await network.sleep(3000)
  assert.equal(a.device.queryPort().state, DOWN)
  a.pd.register(new Uint8Array(8), {})
  await network.sleep(1)
  network.setLink(a.device.name, true)
  assert.equal(a.device.queryPort().state, ACTIVE)
  await network.sleep(3000)
  assert.equal(told.length, 2)
  await closeAll(a, b)
})

test('a name or state that is none is refused', () => {
  const network = createNetwork({ clock: 'virtual' })
  assert.throws(() => network.setLink('none', false), { code: 'EINVAL', message: /no soft device "none"/ })
})
