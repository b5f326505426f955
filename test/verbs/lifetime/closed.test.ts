/*
 * A closed object refuses all calls: its handle may now belong to another object. A second close and a close on a
 * removed device have no effect.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Classes } from '../../../src/spec/classes.ts'
import { createNetwork, type Device, open, RdmaError } from '../../../src/verbs/index.ts'
import { eachCarrier, endpointOn } from '../connections/endpoints.ts'

type Use = () => unknown

/** Objects of every kind that the library has on a soft device, and the calls on each. */
const kinds = (device: Device) => {
  const { pd, cq, qp } = endpointOn(device)
  const xrcd = device.xrcd()
  const peer = qp.endpoint
  return {
    pd: () => {
      const one = device.pd()
      return { one, uses: { srq: () => one.srq(), rcQp: () => one.rcQp({ sendCq: cq }) } }
    },
    cq: () => {
      const one = device.cq()
      const uses = { query: () => one.query(), arm: () => one.arm(), resize: () => one.resize(4) }
      return { one, uses: { ...uses, moderate: () => one.moderate({ completions: 9 }) } }
    },
    srq: () => {
      const one = pd.srq()
      const uses = { query: () => one.query(), limit: () => one.setLimit(3), resize: () => one.resize(4) }
      return { one, uses: { ...uses, receive: () => one.receive() } }
    },
    mr: () => {
      const one = pd.register(new Uint8Array(8))
      const uses = { query: () => one.query(), slice: () => one.slice(0, 4), remote: () => one.remote() }
      return { one, uses: { ...uses, access: () => one.reregister({ access: { remoteRead: true } }) } }
    },
    nullRegion: () => {
      const one = pd.nullRegion(8)
      return { one, uses: { query: () => one.query(), slice: () => one.slice(0, 4), remote: () => one.remote() } }
    },
    wholeRegion: () => {
      const one = pd.wholeRegion()
      const buffer = new Uint8Array(8)
      return { one, uses: { slice: () => one.slice(buffer, 0, 4), remote: () => one.remote(buffer) } }
    },
    mw: () => {
      const one = pd.window()
      return { one, uses: { query: () => one.query() } }
    },
    ah: () => {
      const one = pd.addressHandle(peer)
      return { one, uses: { query: () => one.query(), modify: () => one.modify(peer) } }
    },
    manyAhs: () => {
      const [one] = pd.addressHandles([peer])
      const { handle } = one
      return { one: { handle, close: () => pd.closeAddressHandles([one]) }, uses: { query: () => one.query() } }
    },
    rcQp: () => {
      const one = pd.rcQp({ sendCq: cq })
      const uses = { query: () => one.query(), state: () => one.state, connect: () => one.connect(peer) }
      return { one, uses: { ...uses, send: () => one.send(new Uint8Array(1)), reset: () => one.modify({ state: 0 }) } }
    },
    udQp: () => {
      const one = pd.udQp({ sendCq: cq })
      return { one, uses: { activate: () => one.activate(), attach: () => one.attach('224.0.0.1') } }
    },
    target: () => {
      const one = xrcd.target()
      return { one, uses: { state: () => one.state } }
    },
    eventQueue: () => {
      const one = device.eventQueue()
      return { one, uses: { attach: () => one.attach(cq), attached: () => one.attached() } }
    },
    any: () => {
      const one = device.create(Classes.srq, { pd: pd.handle, maxWr: 1, maxSge: 1, limit: 0 })
      return { one, uses: { query: () => one.query(), modify: () => one.modify({ limit: 1 }) } }
    },
  }
}

eachCarrier(openTwo => {
  test('a closed object refuses all calls, although a new object has its handle', async () => {
    const [device, other] = await openTwo()
    for (const [name, make] of Object.entries(kinds(device))) {
      const { one, uses } = make()
      const { handle } = one
      one.close()
      const next = make().one
      if (name !== 'eventQueue') assert.equal(next.handle, handle, `${name}: the handle is used again`)
      for (const [use, body] of Object.entries<Use>(uses))
        assert.throws(
          body,
          (error: unknown) =>
            error instanceof RdmaError && error.code === 'EINVAL' && /is closed|closed or of/.test(error.reason),
          `${name}.${use}`,
        )
      if (name !== 'manyAhs') one.close()
      next.close()
    }
    await device.close()
    await other.close()
  })

  test('iteration over a queue’s completions ends when the queue is closed', async () => {
    const [device, other] = await openTwo()
    const cq = device.cq()
    const walk = (async () => {
      let seen = 0
      for await (const _ of cq) seen++
      return seen
    })()
    await new Promise(setImmediate)
    cq.close()
    const newer = device.cq()
    assert.equal(await walk, 0)
    for await (const _ of cq) assert.fail('a completion of no request')
    await assert.rejects(cq.wait(), { code: 'EINVAL', reason: 'the object is closed' })
    newer.close()
    await device.close()
    await other.close()
  })

  test('all objects of a removed device can still be closed', async () => {
    const [device, other] = await openTwo()
    const made = Object.values(kinds(device)).map(make => make().one)
    await device.close()
    for (const one of made.reverse()) one.close()
    await other.close()
  })
})

eachCarrier(openTwo => {
  test('a closed device completes no more requests and does not access its rings', async () => {
    const [device, other] = await openTwo()
    const a = endpointOn(device)
    const b = endpointOn(other)
    a.qp.connect(b.qp.endpoint)
    b.qp.connect(a.qp.endpoint)
    for (let id = 1; id <= 3; id++) a.qp.write(new Uint8Array(8), b.mr.remote(0, 8), { id })
    await a.cq.wait()
    assert.ok(a.cq.poll() && a.cq.completion.id === 1)
    const walk = (async () => {
      let seen = 0
      for await (const _ of a.cq) seen++
      return seen
    })()
    await device.close()
    // Everything before the close arrives, nothing after it.
    await assert.rejects(walk, { code: 'EIO' })
    for (let i = 0; i < 300; i++)
      try {
        assert.ok(!a.cq.poll(), `completion ${a.cq.completion.id} of no request`)
      } catch (error) {
        assert.ok(error instanceof RdmaError && error.code === 'EIO', String(error))
      }
    assert.deepEqual([a.qp.pending], [0])
    await other.close()
  })
})

eachCarrier(openTwo => {
  test('the queues of a closed device are empty: their rings are not read, and the last completion is not consumed', async () => {
    const [device, other] = await openTwo()
    const a = endpointOn(device)
    const b = endpointOn(other)
    a.qp.connect(b.qp.endpoint)
    b.qp.connect(a.qp.endpoint)
    const counting = device.cq({ kind: 'counting' })
    const counted = a.pd.rcQp({ sendCq: counting })
    const target = b.pd.rcQp({ sendCq: b.cq })
    counted.connect(target.endpoint)
    target.connect(counted.endpoint)
    const srq = a.pd.srq()
    srq.receive()
    for (let id = 1; id <= 3; id++) a.qp.write(new Uint8Array(8), b.mr.remote(0, 8), { id })
    await counted.write(new Uint8Array(8), b.mr.remote(0, 8))
    while (counting.count === 0) await counting.wait()
    await a.cq.wait()
    assert.ok(a.cq.poll())
    await device.close()
    let found = 0
    try {
      for (let i = 0; i < 300; i++) found += a.cq.poll() ? 1 : 0
    } catch (error) {
      assert.ok(error instanceof RdmaError && error.code === 'EIO', String(error))
    }
    assert.deepEqual([found, a.cq.completion.id, srq.pending, counting.count], [0, 0, 0, 1])
    await other.close()
  })
})

test('on a removed device, closing objects does not hide the program’s own error', async () => {
  const network = createNetwork()
  const owner = await open({ network, name: 'gone0' })
  const user = await open({ network, device: 'gone0' })
  const work = async () => {
    using pd = user.pd()
    using cq = user.cq()
    using _qp = pd.rcQp({ sendCq: cq })
    await owner.close()
    throw new Error('the program’s own')
  }
  await assert.rejects(work(), /^Error: the program’s own$/)
  await user.close()
})
