/*
 * Chains (R16) in the library: one call creates many objects that refer to each other, all or none.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { RdmaError } from '../../../src/verbs/index.ts'
import { closeAll, eachCarrier, line, resourcesOn } from '../connections/endpoints.ts'

eachCarrier(openTwo => {
  test('one chain creates a PD, a CQ, a region, an SRQ and queue pairs, which work', async () => {
    const [one, two] = await openTwo()
    const buffer = new Uint8Array(64)
    const made = one.chain(chain => {
      const pd = chain.pd()
      const cq = chain.cq({ entries: 100 })
      const qps = Array.from({ length: 50 }, () => chain.rcQp(pd, { sendCq: cq }))
      const attributes = chain.call(RcQp, 'query', {}, qps[7])
      return { pd, cq, qps, attributes, mr: chain.register(pd, buffer), nested: { more: [chain.srq(pd)] }, count: 50 }
    })
    assert.equal(made.qps.length, 50)
    assert.equal(made.count, 50)
    assert.equal(made.attributes.state, 0)
    assert.equal(new Set(made.qps.map(({ qpn }) => qpn)).size, 50)
    assert.ok(made.nested.more[0].maxWr > 0)
    const b = resourcesOn(two)
    const to = b.pd.rcQp({ sendCq: b.cq })
    made.qps[49].connect(to.endpoint)
    to.connect(made.qps[49].endpoint)
    to.receive(b.mr.slice(), 3)
    buffer[0] = 99
    made.qps[49].send(made.mr.slice(0, 1), { id: 8 })
    assert.equal(await line(b.cq), '3 RECV')
    assert.equal(await line(made.cq), '8 SEND')
    assert.equal(b.buffer[0], 99)
    for (const qp of made.qps) qp.close()
    made.mr.close()
    made.nested.more[0].close()
    made.pd.close()
    await closeAll({ device: one }, b)
  })

  test('a failed chain leaves no objects, and its error names the refused call', async () => {
    const [one, two] = await openTwo()
    const pd = one.pd()
    const buffer = new Uint8Array(8)
    const error = (() => {
      try {
        one.chain(chain => [
          chain.register(pd, buffer),
          chain.cq(),
          chain.rcQp(pd, { sendCq: chain.cq(), maxSendWr: 1 << 30 }),
        ])
      } catch (refusal) {
        return refusal
      }
    })()
    assert.ok(error instanceof RdmaError)
    const { code, call, class: cls, method, attribute } = error
    assert.deepEqual([code, call, cls, method, attribute], ['EINVAL', 'rc_qp.create', 'rc_qp', 'create', 'maxSendWr'])
    assert.match(error.message, /entry 3 of a chain/)
    // Entries that an asynchronous function adds after an await would not be in the chain.
    assert.throws(
      () => one.chain(async chain => chain.cq()),
      (error: unknown) =>
        error instanceof RdmaError && /^interface\.chain: the function returns a promise/.test(error.message),
    )
    pd.close()
    assert.deepEqual(
      one.chain(() => []),
      [],
    )
    await closeAll({ device: one }, { device: two })
  })

  test('one call creates many address handles, or none of them', async () => {
    const [one, two] = await openTwo()
    const pd = one.pd()
    const to = Array.from({ length: 10_000 }, (_, i) => ({ gid: `10.0.${i >> 8}.${i & 255}` }))
    const made = pd.addressHandles(to)
    assert.equal(new Set(made.map(({ number }) => number)).size, 10_000)
    assert.deepEqual([...made[9999].query().address.dgid.slice(12)], [10, 0, 39, 15])
    for (const ah of made) ah.close()
    assert.throws(() => pd.addressHandles([...to.slice(0, 5000), { gid: 'nowhere' }]), RdmaError)
    pd.close()
    await closeAll({ device: one }, { device: two })
  })
})
