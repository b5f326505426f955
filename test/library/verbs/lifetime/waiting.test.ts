/*
 * Calls of the library to a driver with asynchronous handlers: `callAsync`, `createAsync`, and refused synchronous
 * calls.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addHook, type Device as CoreDevice, driverClass, register } from '../../../../src/core/index.ts'
import { createNetwork, open } from '../../../../src/library/index.ts'
import {
  Block,
  CallError,
  Classes,
  CREATE,
  callError,
  DESTROY,
  DeviceAttributes,
  ExtendedDeviceAttributes,
  method,
  objectClass,
  ref,
  the,
  u32,
  zeroRecord,
} from '../../../../src/spec/index.ts'

const Slow = objectClass('slow', 0x8000, {
  methods: {
    create: method(CREATE, { in: { pd: ref(1, 'pd') }, out: { number: u32(2) } }),
    add: method(Block.DRIVER_FAST + 0, { in: { value: u32(1) }, out: { sum: u32(2) } }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
/** A class of synchronous handlers. */
const Quick = objectClass('quick', 0x8001, {
  methods: { create: method(CREATE, { in: {}, out: {} }), destroy: method(DESTROY, { in: {}, out: {} }) },
})
const { interface: Interface, device: DeviceClass, async_fd: AsyncFd, pd: Pd } = Classes

/** A device with objects of class `slow`: each call waits until the test resumes it with success or an error. */
const openSlow = async () => {
  const pending: ((error?: CallError) => void)[] = []
  let liveObjects = 0
  const resumed = () =>
    new Promise<void>((resolve, reject) => {
      pending.push(error => (error === undefined ? resolve() : reject(error)))
    })
  const slow = driverClass<typeof Slow, { sum: number }>(Slow, {
    async create(_call, object) {
      await resumed()
      object.state = { sum: 0 }
      return { number: ++liveObjects }
    },
    async add(_call, { state }, args) {
      await resumed()
      state.sum += args.value
      return { sum: state.sum }
    },
    async destroy(call) {
      if (call.why === 'call') await resumed()
      liveObjects--
      return {}
    },
  })
  const quick = driverClass(Quick, { create: () => ({}), destroy: () => ({}) })
  const network = createNetwork()
  let coreDevice: CoreDevice | undefined
  network.addDevice(core => {
    coreDevice = register(core, {
      name: 'slow0',
      driver: {
        name: 'slow',
        id: 0,
        classes: [...[Interface, DeviceClass, AsyncFd, Pd].map(cls => driverClass(cls)), slow, quick],
      },
      state: undefined,
      attributes: { ...zeroRecord(DeviceAttributes), maxPd: 8 },
      extended: zeroRecord(ExtendedDeviceAttributes),
      ports: [],
      numCompVectors: 0,
      limits: { pd: 8 },
    })
    return coreDevice
  })
  const device = await open({ network, device: 'slow0' })
  return {
    device,
    coreDevice: coreDevice as unknown as CoreDevice,
    pd: device.pd(),
    liveObjects: () => liveObjects,
    /** Resumes all waiting calls, and runs the continuations. */
    async resume(error?: CallError) {
      for (const answer of pending.splice(0)) answer(error)
      await new Promise(setImmediate)
    },
  }
}

/** Resumes all waiting calls, and returns the answer of `call`. */
const resumeAndAwait = async <T>(fixture: Awaited<ReturnType<typeof openSlow>>, call: Promise<T>): Promise<T> => {
  await fixture.resume()
  return call
}
const asynchronousError = { code: 'EOPNOTSUPP', reason: /is asynchronous/, hint: /await device\.callAsync/ }

test('an awaited call has the arguments that the program passed, whatever becomes of its record', async () => {
  const fixture = await openSlow()
  const { device, pd } = fixture
  const object = await resumeAndAwait(fixture, device.createAsync(Slow, { pd: pd.handle }))
  const args = { value: 4 }
  const adding = device.callAsync(Slow, 'add', args, object)
  args.value = 100
  assert.deepEqual(await resumeAndAwait(fixture, adding), { sum: 4 })
  await device.close()
})

test('an awaited call returns the driver’s answer or refusal', async () => {
  const fixture = await openSlow()
  const { device, pd, liveObjects } = fixture
  {
    const making = device.createAsync(Slow, { pd: pd.handle })
    await using object = await resumeAndAwait(fixture, making)
    assert.equal(object.createOutput.number, 1)
    assert.deepEqual(await resumeAndAwait(fixture, device.callAsync(Slow, 'add', { value: 4 }, object)), { sum: 4 })
    assert.throws(() => pd.close(), { code: 'EBUSY' })
    const refused = device.callAsync(Slow, 'add', { value: 4 }, object)
    await Promise.all([
      assert.rejects(refused, { name: 'RdmaError', code: 'EAGAIN', call: 'slow.add', reason: 'not now' }),
      fixture.resume(callError.EAGAIN`${the.method('slow.add')}: not now`),
    ])
    assert.equal(liveObjects(), 1)
    // Resumes the destroy call at the end of the block.
    setImmediate(() => void fixture.resume())
  }
  assert.equal(liveObjects(), 0)
  await assert.rejects(device.callAsync(Slow, 'add', { value: 1 }, 77), { code: 'ENOENT' })
  await assert.rejects(device.callAsync(Slow, 'add', { value: 'x' as never }, 0), { code: 'EINVAL' })
  await assert.rejects(device.createAsync(Slow, { pd: pd.handle }, { patience: 1 } as never), { code: 'EINVAL' })
  assert.equal((await device.callAsync(DeviceClass, 'query', {})).attributes.maxPd, 8)
  pd.close()
  await device.close()
})

test('a synchronous call is refused, and an object that the driver creates later is destroyed', async () => {
  const fixture = await openSlow()
  const { device, coreDevice, pd, liveObjects } = fixture
  assert.throws(() => device.create(Slow, { pd: pd.handle }), { ...asynchronousError, call: 'slow.create' })
  assert.throws(() => device.call(Slow, 'create', { pd: pd.handle }), asynchronousError)
  await fixture.resume()
  assert.deepEqual([liveObjects(), coreDevice.counts.slow], [0, 0])
  assert.throws(() => device.create(Slow, { pd: pd.handle }), asynchronousError)
  await fixture.resume(new CallError('EAGAIN', 'the result is discarded'))
  const object = await resumeAndAwait(fixture, device.createAsync(Slow, { pd: pd.handle }))
  assert.throws(() => object.add({ value: 1 }), asynchronousError)
  await fixture.resume()
  await Promise.all([object[Symbol.asyncDispose](), fixture.resume()])
  await object[Symbol.asyncDispose]()
  object.close()
  assert.equal(liveObjects(), 0)
  pd.close()
  await device.close()
})

test('two concurrent closes of an object destroy it once', async () => {
  const fixture = await openSlow()
  const { device, pd, liveObjects } = fixture
  const object = await resumeAndAwait(fixture, device.createAsync(Slow, { pd: pd.handle }))
  await Promise.all([object[Symbol.asyncDispose](), object[Symbol.asyncDispose](), fixture.resume()])
  assert.equal(liveObjects(), 0)
  pd.close()
  await device.close()
})

test('while an asynchronous close waits, nothing uses the handle, which may be another object’s', async () => {
  const fixture = await openSlow()
  const { device, pd, liveObjects } = fixture
  const object = await resumeAndAwait(fixture, device.createAsync(Slow, { pd: pd.handle }))
  const { handle } = object
  const failing = Promise.resolve(object[Symbol.asyncDispose]())
  object.close()
  assert.throws(() => object.add({ value: 1 }), { code: 'ERR_CLOSED', reason: 'the object is closed' })
  assert.throws(() => device.call(Slow, 'add', { value: 1 }, object), { code: 'ERR_CLOSED', reason: /is closed/ })
  await Promise.all([
    assert.rejects(failing, { code: 'EAGAIN' }),
    fixture.resume(callError.EAGAIN`${the.method('slow.destroy')}: not now`),
  ])
  assert.equal(object.handle, handle, 'after a failed close the object is open')
  await Promise.all([object[Symbol.asyncDispose](), fixture.resume()])
  assert.equal(liveObjects(), 0)

  // A synchronous destroy is over when `[Symbol.asyncDispose]` returns its promise, and the handle is free.
  const quick = device.create(Quick, {})
  const { handle: quickHandle } = quick
  const closing = quick[Symbol.asyncDispose]()
  const next = device.create(Quick, {})
  assert.equal(next.handle, quickHandle)
  quick.close()
  await closing
  assert.equal(fixture.coreDevice.counts.quick, 1)
  next.close()
  pd.close()
  await device.close()
})

test('a synchronous close of an object with an asynchronous destroy closes it, although it is refused', async () => {
  const fixture = await openSlow()
  const { device, pd, liveObjects } = fixture
  const object = await resumeAndAwait(fixture, device.createAsync(Slow, { pd: pd.handle }))
  const { handle } = object
  assert.throws(() => object.close(), asynchronousError)
  await fixture.resume()
  assert.equal(liveObjects(), 0)
  // The new object has the handle of the destroyed one.
  const next = await resumeAndAwait(fixture, device.createAsync(Slow, { pd: pd.handle }))
  assert.equal(next.handle, handle)
  object.close()
  await Promise.all([object[Symbol.asyncDispose](), fixture.resume()])
  assert.equal(liveObjects(), 1)
  await Promise.all([next[Symbol.asyncDispose](), fixture.resume()])
  pd.close()
  await device.close()
})

test('a chain that would wait is refused, and leaves no objects', async () => {
  const fixture = await openSlow()
  const { device, coreDevice, liveObjects } = fixture
  const before = { ...coreDevice.counts }
  const chained = (): unknown =>
    device.chain(chain => {
      const pd = chain.pd()
      return chain.create(Slow, { pd: pd.handle })
    })
  // A hook on `interface.chain` makes the library encode the chain.
  for (const hasHook of [false, true]) {
    const stop = hasHook ? addHook(coreDevice, { class: 'interface', method: 'chain', pre() {} }) : () => {}
    assert.throws(chained, asynchronousError)
    await fixture.resume()
    assert.deepEqual([liveObjects(), { ...coreDevice.counts }], [0, { ...before, slow: 0 }], `with a hook: ${hasHook}`)
    stop()
  }
  await device.close()
})

test('a signal ends the wait, and an object that is created later is destroyed', async () => {
  const fixture = await openSlow()
  const { device, coreDevice, pd, liveObjects } = fixture
  const controller = new AbortController()
  const { signal } = controller
  const making = device.createAsync(Slow, { pd: pd.handle }, { signal })
  const calling = device.callAsync(DeviceClass, 'query', {}, 0, { signal })
  assert.ok((await calling).attributes)
  controller.abort(new Error('enough'))
  await assert.rejects(making, /enough/)
  await assert.rejects(device.createAsync(Slow, { pd: pd.handle }, { signal }), /enough/)
  await fixture.resume()
  assert.deepEqual([liveObjects(), coreDevice.counts.slow], [0, 0])
  const early = new AbortController()
  const removeHook = addHook(coreDevice, { class: 'slow', pre: () => early.abort(new Error('during the call')) })
  await assert.rejects(device.createAsync(Slow, { pd: pd.handle }, { signal: early.signal }), /during the call/)
  removeHook()
  await fixture.resume()
  assert.deepEqual([liveObjects(), coreDevice.counts.slow], [0, 0])
  const second = new AbortController()
  const object = await resumeAndAwait(fixture, device.createAsync(Slow, { pd: pd.handle }, { signal: second.signal }))
  second.abort()
  await fixture.resume()
  assert.equal(liveObjects(), 1, 'answered calls keep their results')
  const adding = device.callAsync(Slow, 'add', { value: 1 }, object)
  await Promise.all([assert.rejects(adding, { code: 'EIO' }), device.close(), fixture.resume()])
  assert.equal(liveObjects(), 0)
})
