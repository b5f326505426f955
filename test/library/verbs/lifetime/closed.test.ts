/*
 * A closed object refuses all calls, because its handle may belong to another object. A second close has no effect.
 * Waits for completions end with a signal, or when the queue is closed.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createNetwork, type Device, open, RdmaError } from '../../../../src/library/index.ts'
import { Classes } from '../../../../src/spec/classes.ts'
import { eachCarrier, endpointOn } from '../endpoints.ts'

eachCarrier(openTwo => {
  test('a number that is no handle is refused, and names no other object', async () => {
    const [device, other] = await openTwo()
    using pd = device.pd()
    // As u32, in a message to a daemon, the numbers below would be 0 or 1: the handles of `pd` and `second`.
    assert.equal(pd.handle, 0)
    const second = device.pd()
    for (const handle of [Number.NaN, Number.POSITIVE_INFINITY, 1.5, 2 ** 32, 2 ** 32 + 1, 1 - 2 ** 32]) {
      for (const object of [handle, { handle }])
        assert.throws(() => device.call(Classes.pd, 'destroy', {}, object), { code: 'EINVAL', call: 'pd.destroy' })
      await assert.rejects(device.callAsync(Classes.pd, 'destroy', {}, handle), { code: 'EINVAL' })
    }
    assert.throws(() => device.chain(chain => chain.register({ handle: Number.NaN }, new Uint8Array(8))), {
      code: 'EINVAL',
      reason: /^pd has the handle NaN, which is no object's/,
    })
    second.close()
    assert.throws(() => device.call(Classes.pd, 'destroy', {}, second), {
      code: 'ERR_CLOSED',
      reason: 'object is closed',
    })
    // Not 1: the handle of a closed object is CLOSED.
    assert.throws(() => device.call(Classes.pd, 'destroy', {}, second.handle), { reason: 'the object is closed' })
    await other.close()
  })
})

type Use = () => unknown

/** For each kind of object, a function that creates an object. `uses` are calls on the object. */
const kinds = (device: Device) => {
  const { pd, cq, qp } = endpointOn(device)
  const xrcd = device.xrcd()
  const peer = qp.endpoint
  return {
    pd: () => {
      const object = device.pd()
      return { object, uses: { srq: () => object.srq(), rcQp: () => object.rcQp({ sendCq: cq }) } }
    },
    cq: () => {
      const object = device.cq()
      const uses = { query: () => object.query(), arm: () => object.arm(), resize: () => object.resize(4) }
      return { object, uses: { ...uses, moderate: () => object.moderate({ completions: 9 }) } }
    },
    srq: () => {
      const object = pd.srq()
      const uses = { query: () => object.query(), limit: () => object.setLimit(3), resize: () => object.resize(4) }
      return { object, uses: { ...uses, receive: () => object.receive() } }
    },
    mr: () => {
      const object = pd.register(new Uint8Array(8))
      const uses = { query: () => object.query(), slice: () => object.slice(0, 4), remote: () => object.remote() }
      return { object, uses: { ...uses, access: () => object.reregister({ access: { remoteRead: true } }) } }
    },
    nullRegion: () => {
      const object = pd.nullRegion(8)
      return {
        object,
        uses: { query: () => object.query(), slice: () => object.slice(0, 4), remote: () => object.remote() },
      }
    },
    wholeRegion: () => {
      const object = pd.wholeRegion()
      const buffer = new Uint8Array(8)
      return { object, uses: { slice: () => object.slice(buffer, 0, 4), remote: () => object.remote(buffer) } }
    },
    mw: () => {
      const object = pd.window()
      return { object, uses: { query: () => object.query() } }
    },
    ah: () => {
      const object = pd.addressHandle(peer)
      return { object, uses: { query: () => object.query(), modify: () => object.modify(peer) } }
    },
    manyAhs: () => {
      const [object] = pd.addressHandles([peer])
      const { handle } = object
      return {
        object: { handle, close: () => pd.closeAddressHandles([object]) },
        uses: { query: () => object.query() },
      }
    },
    rcQp: () => {
      const object = pd.rcQp({ sendCq: cq })
      const uses = { query: () => object.query(), state: () => object.state, connect: () => object.connect(peer) }
      return {
        object,
        uses: { ...uses, send: () => object.send(new Uint8Array(1)), reset: () => object.modify({ state: 'RESET' }) },
      }
    },
    udQp: () => {
      const object = pd.udQp({ sendCq: cq })
      return { object, uses: { activate: () => object.activate(), attach: () => object.attach('224.0.0.1') } }
    },
    target: () => {
      const object = xrcd.target()
      return { object, uses: { state: () => object.state } }
    },
    eventQueue: () => {
      const object = device.eventQueue()
      return { object, uses: { attach: () => object.attach(cq), attached: () => object.attached() } }
    },
    any: () => {
      const object = device.create(Classes.srq, { pd: pd.handle, maxWr: 1, maxSge: 1, limit: 0 })
      return { object, uses: { query: () => object.query(), modify: () => object.modify({ limit: 1 }) } }
    },
  }
}

eachCarrier(openTwo => {
  test('a closed object refuses all calls, although a new object has its handle', async () => {
    const [device, otherDevice] = await openTwo()
    for (const [name, make] of Object.entries(kinds(device))) {
      const { object, uses } = make()
      const { handle } = object
      object.close()
      const successor = make().object
      // A daemon notices the close of an event queue's descriptor later.
      if (name !== 'eventQueue') assert.equal(successor.handle, handle, `${name}: the handle is used again`)
      for (const [use, body] of Object.entries<Use>(uses))
        assert.throws(
          body,
          (error: unknown) =>
            error instanceof RdmaError && error.code === 'ERR_CLOSED' && /is closed/.test(error.reason),
          `${name}.${use}`,
        )
      // `closeAddressHandles` refuses closed handles.
      if (name !== 'manyAhs') object.close()
      successor.close()
    }
    await device.close()
    await otherDevice.close()
  })

  test('a signal ends a wait and an iteration, also while the last polled completion occupies its slot', async () => {
    const [one, two] = await openTwo()
    const [a, b] = [endpointOn(one), endpointOn(two)]
    a.qp.connect(b.qp.endpoint)
    b.qp.connect(a.qp.endpoint)
    a.qp.write(Uint8Array.of(1), b.mr.remote(0, 1))
    while (!a.cq.poll()) await a.cq.wait()
    const controller = new AbortController()
    const { signal } = controller
    const iteration = async () => {
      for await (const _ of a.cq.completions({ signal })) assert.fail('yielded')
    }
    // A wait may end by the event of the completion before.
    const endlessWaits = async () => {
      for (;;) await a.cq.wait({ signal })
    }
    const waits = [endlessWaits(), iteration()].map(wait => assert.rejects(wait, /enough/))
    await new Promise(setImmediate)
    controller.abort(new Error('enough'))
    await Promise.all(waits)
    await assert.rejects(a.cq.wait({ signal }), /enough/)
    a.qp.write(Uint8Array.of(2), b.mr.remote(0, 1))
    while (!a.cq.poll()) await a.cq.wait()
    await one.close()
    await two.close()
  })

  test('iteration over a queue’s completions ends when the queue is closed', async () => {
    const [device, otherDevice] = await openTwo()
    const cq = device.cq()
    const iteration = (async () => {
      let yielded = 0
      for await (const _ of cq) yielded++
      return yielded
    })()
    await new Promise(setImmediate)
    cq.close()
    const newer = device.cq()
    assert.equal(await iteration, 0)
    for await (const _ of cq) assert.fail('a completion of no request')
    await assert.rejects(cq.wait(), { code: 'ERR_CLOSED', reason: 'the object is closed' })
    newer.close()
    await device.close()
    await otherDevice.close()
  })

  test('a wait and an iteration end when the queue is closed in the turn that starts them', async () => {
    const [device, otherDevice] = await openTwo()
    const cq = device.cq()
    const wait = cq.wait()
    const next = cq.completions().next()
    cq.close()
    await wait
    assert.equal((await next).done, true)
    await device.close()
    await otherDevice.close()
  })

  test('all objects of a closed device can still be closed', async () => {
    const [device, otherDevice] = await openTwo()
    const objects = Object.values(kinds(device)).map(make => make().object)
    await device.close()
    for (const object of objects.reverse()) object.close()
    await otherDevice.close()
  })
})

eachCarrier(openTwo => {
  test('a closed device completes no requests, and an iteration over completions ends with ERR_CLOSED', async () => {
    const [device, otherDevice] = await openTwo()
    const a = endpointOn(device)
    const b = endpointOn(otherDevice)
    a.qp.connect(b.qp.endpoint)
    b.qp.connect(a.qp.endpoint)
    for (let id = 1; id <= 3; id++) a.qp.write(new Uint8Array(8), b.mr.remote(0, 8), { id })
    await a.cq.wait()
    assert.ok(a.cq.poll() && a.cq.completion.id === 1)
    const iteration = (async () => {
      for await (const _ of a.cq);
    })()
    const ended = assert.rejects(iteration, { code: 'ERR_CLOSED' })
    await device.close()
    await ended
    assert.throws(() => a.cq.poll(), { code: 'ERR_CLOSED', message: /cq\.poll: the device is closed/ })
    assert.equal(a.qp.pending, 0)
    await otherDevice.close()
  })
})

eachCarrier(openTwo => {
  test('on a closed device queues are empty, the last completion has id 0, a counting queue keeps its count', async () => {
    const [device, otherDevice] = await openTwo()
    const a = endpointOn(device)
    const b = endpointOn(otherDevice)
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
    counted.write(new Uint8Array(8), b.mr.remote(0, 8))
    while (counting.count === 0) await counting.wait()
    await a.cq.wait()
    assert.ok(a.cq.poll())
    await device.close()
    for (const cq of [a.cq, counting]) assert.throws(() => cq.poll(), { code: 'ERR_CLOSED' })
    assert.deepEqual([a.cq.completion.id, srq.pending, counting.count], [0, 0, 1])
    await otherDevice.close()
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
  assert.throws(() => user.counters(), { code: 'EIO' })
  await user.close()
})
