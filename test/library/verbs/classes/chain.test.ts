/*
 * Chains (R16) in the library.
 */
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { RdmaError } from '../../../../src/library/index.ts'
import { CompChannel } from '../../../../src/spec/classes/events/comp_channel.ts'
import { RcQp } from '../../../../src/spec/classes/qp/rc_qp.ts'
import { Classes } from '../../../../src/spec/classes.ts'
import { closeAll, completionText, eachCarrier, resourcesOn } from '../endpoints.ts'

eachCarrier(openTwo => {
  test('one chain creates working queue pairs with a PD, a CQ, a region and an SRQ', async () => {
    const [one, two] = await openTwo()
    const buffer = new Uint8Array(64)
    const created = one.chain(chain => {
      const pd = chain.pd()
      const cq = chain.cq({ entries: 100 })
      const qps = Array.from({ length: 50 }, () => chain.rcQp(pd, { sendCq: cq }))
      const attributes = chain.call(RcQp, 'query', {}, qps[7])
      return { pd, cq, qps, attributes, mr: chain.register(pd, buffer), nested: { srqs: [chain.srq(pd)] }, count: 50 }
    })
    assert.equal(created.qps.length, 50)
    assert.equal(created.count, 50)
    assert.equal(created.attributes.state, 0)
    assert.equal(new Set(created.qps.map(({ qpn }) => qpn)).size, 50)
    assert.ok(created.nested.srqs[0].maxWr > 0)
    const b = resourcesOn(two)
    const peer = b.pd.rcQp({ sendCq: b.cq })
    created.qps[49].connect(peer.endpoint)
    peer.connect(created.qps[49].endpoint)
    peer.receive(b.mr.slice(), 3)
    buffer[0] = 99
    created.qps[49].send(created.mr.slice(0, 1), { id: 8 })
    assert.equal(await completionText(b.cq), '3 RECV')
    assert.equal(await completionText(created.cq), '8 SEND')
    assert.equal(b.buffer[0], 99)
    for (const qp of created.qps) qp.close()
    created.mr.close()
    created.nested.srqs[0].close()
    created.pd.close()
    await closeAll({ device: one }, b)
  })

  test('a chain creates queue pairs of several types, and SRQs', async () => {
    const [one, two] = await openTwo()
    const xrcd = one.xrcd()
    const { pd, cq, objects } = one.chain(chain => {
      const [pd, cq] = [chain.pd(), chain.cq()]
      const srq = chain.srq(pd)
      const objects = [
        chain.rcQp(pd, { sendCq: cq, srq }),
        chain.ucQp(pd, { sendCq: cq }),
        chain.udQp(pd, { sendCq: cq }),
        chain.xrcInitiator(pd, { sendCq: cq }),
        srq,
        chain.xrcSrq(pd, { xrcd, cq }),
      ]
      return { pd, cq, objects }
    })
    assert.deepEqual(
      objects.map(object => inspect(object).split(' ')[0]),
      [
        ...['RcQueuePair', 'UcQueuePair', 'UdQueuePair', 'XrcInitiator'],
        ...['SharedReceiveQueue', 'XrcSharedReceiveQueue'],
      ],
    )
    assert.throws(
      () => one.chain(chain => chain.smiQp(pd, { sendCq: cq })),
      { code: 'EOPNOTSUPP' },
      'the soft device has no queue pair 0',
    )
    await closeAll({ device: one }, { device: two })
  })

  test('a planned object is refused after its chain, also in a chain with other entries', async () => {
    const [one, two] = await openTwo()
    const pd = one.pd()
    const planned: { readonly handle: number }[] = []
    one.chain(chain => planned.push(chain.cq()))
    assert.throws(() =>
      one.chain(chain => {
        planned.push(chain.cq())
        throw new Error('not created')
      }),
    )
    for (const sendCq of planned) {
      assert.throws(
        () => one.chain(chain => [chain.cq(), chain.rcQp(pd, { sendCq })]),
        /^RdmaError: rc_qp\.create: sendCq is a planned object of another chain, or of a chain that has ended \(EINVAL\)/,
      )
      const args = { pd: pd.handle, sendCq: sendCq.handle, recvCq: sendCq.handle }
      const cap = { maxSendWr: 1, maxRecvWr: 1, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 }
      assert.throws(() => one.chain(chain => [chain.cq(), chain.create(RcQp, { ...args, cap })]), { code: 'EINVAL' })
    }
    await closeAll({ device: one }, { device: two })
  })

  test('a planned object is refused in a nested chain, and stays usable in its own chain', async () => {
    const [one, two] = await openTwo()
    const outer = one.chain(chain => {
      const pd = chain.pd()
      const useIn = (device: typeof one) => device.chain(nested => [nested.pd(), nested.srq(pd)])
      for (const device of [one, two])
        assert.throws(() => useIn(device), /^RdmaError: srq\.create: pd is a planned object of another chain/)
      one.chain(nested => nested.pd()).close()
      return { pd, srq: chain.srq(pd) }
    })
    assert.throws(() => outer.pd.close(), { code: 'EBUSY' })
    outer.srq.close()
    outer.pd.close()
    await closeAll({ device: one }, { device: two })
  })

  test('a failed chain leaves no objects, and its error names the refused entry; an asynchronous function is refused', async () => {
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
    // The chain would lack entries that an asynchronous function adds after an await.
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

  test('a chain that returns a value with a cycle leaves no objects', async () => {
    const [one, two] = await openTwo()
    const { pd, mr, cq } = Classes
    // The library looks for planned objects in the value, to put objects in their places.
    const cyclic: Record<string, unknown> = {}
    const create = () =>
      one.chain(chain => {
        const domain = chain.pd()
        chain.call(cq, 'create', { cqe: 4, compVector: 0, userHandle: 0n })
        chain.register(domain, new Uint8Array(8))
        cyclic.itself = cyclic
        return cyclic
      })
    assert.throws(create, RangeError)
    assert.deepEqual(one.handles(pd, mr, cq), [])
    await closeAll({ device: one }, { device: two })
  })

  test('a descriptor that a chain has created is closed with its object', async () => {
    const [one, two] = await openTwo()
    // Only a daemon passes a descriptor.
    const countDescriptors = (): number => readdirSync('/proc/self/fd').length
    const before = countDescriptors()
    const [channel] = one.chain(chain => [chain.create(CompChannel)])
    channel!.close()
    assert.equal(countDescriptors(), before)
    await closeAll({ device: one }, { device: two })
  })

  test('a list of many address handles is created completely or not at all', async () => {
    const [one, two] = await openTwo()
    const pd = one.pd()
    const destinations = Array.from({ length: 10_000 }, (_, i) => ({ gid: `10.0.${i >> 8}.${i & 255}` }))
    const created = pd.addressHandles(destinations)
    assert.equal(new Set(created.map(({ number }) => number)).size, 10_000)
    assert.deepEqual([...created[9999].query().address.dgid.slice(12)], [10, 0, 39, 15])
    for (const ah of created) ah.close()
    // The device has no IPv6 GID.
    const refused = [...destinations.slice(0, 5000), { gid: 'fd00::1' }]
    assert.throws(() => pd.addressHandles(refused), { code: 'EINVAL', message: /entry 5000: / })
    assert.deepEqual(one.handles(Classes.ah), [])
    pd.close()
    await closeAll({ device: one }, { device: two })
  })
})
