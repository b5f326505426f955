/*
 * Devices without verbs, private classes and drivers' descriptors in the library (R12, R14, R28–R30, R37).
 */
import assert from 'node:assert/strict'
import { before, describe, test } from 'node:test'
import { createCtxDevice } from '../../../../src/drivers/ctx/device.ts'
import { createNullDevice, Sink } from '../../../../src/drivers/null/device.ts'
import { hasNative } from '../../../../src/host/native.ts'
import { createNetwork, type Device, type DriverDescriptor, open } from '../../../../src/library/index.ts'
import { Classes } from '../../../../src/spec/classes.ts'
import {
  CTX_HEADER_BYTES,
  CtxAssign,
  CtxContext,
  CtxHeader,
  CtxInfo,
  CtxInterface,
  CtxIoctl,
  CtxRecord,
  CtxSend,
  CtxStatistics,
  CtxWord,
} from '../../../../src/spec/drivers/ctx.ts'
import { type Fields, type RecordOf, recordSize } from '../../../../src/spec/schema/schema.ts'
import { encodeRecords, readRecord, viewOf } from '../../../../src/uapi/scalar.ts'
import { isEmpty, startDaemon, suiteScope } from '../../../system/programs.ts'

const contextOptions = { eagerCount: 16, eagerBytes: 1024, expectedCount: 0, expectedBytes: 64, jobKey: 7 }

const decode = <F extends Fields>(fields: F, bytes: Uint8Array, at = 0): RecordOf<F> =>
  readRecord(viewOf(bytes), at, fields, 'record') as unknown as RecordOf<F>

/** The struct that an ioctl returns in its argument. */
const ioctlOutput = <F extends Fields>(ops: DriverDescriptor, request: number, fields: F): RecordOf<F> => {
  const bytes = new Uint8Array(recordSize(fields))
  assert.equal(ops.ioctl(request, bytes), 0)
  return decode(fields, bytes)
}

/** Consumes the oldest message of a context's eager queue. */
const takeMessage = (memory: Uint8Array, info: RecordOf<typeof CtxInfo>): string => {
  const words = new Int32Array(memory.buffer, memory.byteOffset, 3)
  const consumed = words[CtxWord.HEADER_CONSUMER]
  assert.notEqual(consumed, words[CtxWord.HEADER_PRODUCER], 'there is no message')
  const header = decode(CtxHeader, memory, info.headersAt + (consumed % info.headerCount) * CTX_HEADER_BYTES)
  const at = info.eagerAt + header.slot * info.eagerBytes
  words[CtxWord.HEADER_CONSUMER]++
  words[CtxWord.EAGER_CONSUMER]++
  return new TextDecoder().decode(memory.slice(at, at + header.length))
}

const testsOfCarrier = (openDevice: (name: string) => Promise<Device>): void => {
  test('an interface is opened by name, and its calls, memory and records work', async () => {
    const device = await openDevice('ctx0')
    assert.deepEqual(device.driverInterfaces(), Object.values(CtxInterface))
    assert.deepEqual([device.supports('rc_qp'), device.supports('ctx_context', 'send')], [false, true])
    {
      using ops = device.driverOps(CtxInterface.V2)
      assert.equal(ops.name, CtxInterface.V2)
      ops.ioctl(CtxIoctl.ASSIGN, encodeRecords(CtxAssign, [{ ...contextOptions, handle: 0 }]))
      const info = ioctlOutput(ops, CtxIoctl.INFO, CtxInfo)
      assert.equal(info.eagerCount, 16)
      const memory = ops.map(info.bytes)
      ops.ioctl(CtxIoctl.ARM)
      assert.equal(ops.poll(), undefined)

      // The sender is an object of the driver's private class.
      using sender = device.create(CtxContext, contextOptions)
      assert.equal(sender.createOutput.info.jobKey, 7)
      sender.send({ destination: info.number, tag: 1n, data: new TextEncoder().encode('hello') })
      for await (const record of ops) {
        assert.deepEqual(decode(CtxRecord, record), { number: info.number, producer: 1 })
        break
      }
      assert.equal(takeMessage(memory, info), 'hello')

      // The reply is a write(2) on the descriptor. USE attaches a second descriptor to the receiver.
      using receiver = device.create(CtxContext, contextOptions)
      using peerOps = device.driverOps(CtxInterface.V1)
      peerOps.ioctl(CtxIoctl.USE, Uint8Array.of(receiver.handle, 0, 0, 0))
      assert.throws(() => receiver.close(), { code: 'EBUSY', class: 'ctx_context' })
      receiver.arm()
      const sendHeader = { destination: receiver.query().info.number, flags: 0, slot: 0, offset: 0, tag: 3n }
      const message = [...encodeRecords(CtxSend, [sendHeader]), ...new TextEncoder().encode('back')]
      assert.equal(ops.write(Uint8Array.from(message)), message.length)
      await peerOps.wait()
      assert.equal(decode(CtxRecord, peerOps.poll() as Uint8Array).producer, 1)
      assert.equal(takeMessage(peerOps.map(receiver.createOutput.info.bytes), receiver.createOutput.info), 'back')
    }
    await device.close()
  })

  test('the first known name opens an interface, and no name opens the provider channel', async () => {
    const device = await openDevice('ctx0')
    const older = device.driverOps('ctx.userdma.9', 'ctx.userdma.8', CtxInterface.V1)
    assert.equal(older.name, CtxInterface.V1)
    const channel = device.driverOps()
    assert.equal(channel.name, CtxInterface.CHANNEL)
    assert.equal(ioctlOutput(channel, CtxIoctl.STATISTICS, CtxStatistics).assigned, 0)
    await device.close()
  })

  test('invalid calls of interfaces are refused', async () => {
    const device = await openDevice('ctx0')
    const ops = device.driverOps(CtxInterface.V1)
    const channel = device.driverOps()
    assert.throws(() => device.driverOps('ctx.userdma.9'), {
      code: 'ENOENT',
      class: 'driver_ops',
      method: 'create',
      reason: /it has ctx.userdma.2, ctx.userdma.1, ctx/,
    })
    const info = new Uint8Array(recordSize(CtxInfo))
    assert.throws(() => ops.ioctl(CtxIoctl.INFO, info), { code: 'ENODATA', method: 'ioctl' }, 'no context is assigned')
    const unknownRequest = 0xc0000001
    assert.throws(() => ops.ioctl(unknownRequest), { code: 'ENOTTY' })
    const badAddress = -4096
    assert.throws(() => ops.ioctl(CtxIoctl.ASSIGN, badAddress), { code: 'EFAULT', reason: /0xfffffffffffff000/ })
    assert.throws(() => channel.write(Uint8Array.of(1)), { code: 'EINVAL', method: 'write' })
    assert.throws(() => channel.map(4096), { code: 'ENODEV', call: 'driver_ops.map' })
    ops.close()
    assert.throws(() => ops.map(4096), { code: 'ERR_CLOSED', call: 'driver_ops.map' })
    assert.throws(() => device.cq(), { code: 'EOPNOTSUPP', class: 'cq', hint: /supports/ })
    await device.close()
  })

  test('the descriptor of a closed device reaches no descriptor of another device', async () => {
    // Devices of one daemon share a session, in which descriptors are named by their numbers.
    const [kept, closed] = [await openDevice('ctx0'), await openDevice('ctx0')]
    const stale = closed.driverOps()
    const statistics = new Uint8Array(recordSize(CtxStatistics))
    assert.equal(stale.ioctl(CtxIoctl.STATISTICS, statistics), 0)
    await closed.close()
    // On a daemon this descriptor gets the number of the stale one.
    const ops = kept.driverOps()
    assert.throws(() => stale.ioctl(CtxIoctl.STATISTICS, statistics), { code: 'ERR_CLOSED', call: 'driver_ops.ioctl' })
    assert.throws(() => stale.write(statistics), { code: 'ERR_CLOSED', call: 'driver_ops.write' })
    assert.throws(() => stale.map(4096), { code: 'ERR_CLOSED', call: 'driver_ops.map' })
    stale.close()
    assert.equal(ops.ioctl(CtxIoctl.STATISTICS, statistics), 0)
    await kept.close()
  })

  test('generic methods create and call objects of a private class, alone and in a chain', async () => {
    const device = await openDevice('null0')
    const pd = device.pd()
    const sink = device.create(Sink, { pd: pd.handle })
    sink.take({ data: new Uint8Array(100) })
    device.call(Sink, 'take', { data: new Uint8Array(11) }, sink)
    assert.equal(sink.query().taken, 111n)
    assert.throws(() => pd.close(), { code: 'EBUSY' })
    // This program knows the class only from the device's description.
    const described = device.interface().find(({ name }) => name === 'sink')
    assert.ok(described !== undefined)
    assert.deepEqual(device.call(described, 'query', {}, sink), { taken: 111n })
    const { sinks } = device.chain(chain => ({
      sinks: [1, 2].map(() => chain.create(Sink, { pd: pd.handle })),
    }))
    assert.deepEqual(new Set(device.handles(Sink)), new Set([sink, ...sinks].map(({ handle }) => handle)))
    for (const one of sinks) one.close()
    sink.close()
    pd.close()
    await device.close()
  })
}

describe('in this process', () => {
  const network = createNetwork()
  network.addDevice(core => createCtxDevice(core, 'ctx0'))
  const remove = network.addDevice(core => createNullDevice(core, 'null0'))
  testsOfCarrier(name => open({ network, device: name }))

  test('a device can be opened twice; each time it has its own handles', async () => {
    const soft = await open({ network })
    assert.equal(soft.pd().handle, 0)
    const secondHandle = await open({ network, device: soft.name })
    assert.equal(secondHandle.address, soft.address)
    assert.equal(secondHandle.pd().handle, 0)
    await secondHandle.close()
    assert.ok(soft.counters().transport)
    await soft.close()
  })

  test('counters are refused for other devices than soft devices', async () => {
    const device = await open({ network, device: 'ctx0' })
    assert.throws(() => device.counters(), { code: 'EOPNOTSUPP', hint: 'only soft devices have counters' })
    await device.close()
  })

  test('an open device can be removed, and its name cannot be opened afterwards', async () => {
    const removed = await open({ network, device: 'null0' })
    const events = (async () => {
      for await (const { type } of removed.events()) return type
      return undefined
    })()
    await Promise.resolve()
    remove()
    // The second call has no effect.
    remove()
    assert.equal(await events, 'DEVICE_FATAL')
    assert.throws(() => removed.pd(), { code: 'EIO' })
    await removed.close()
    await assert.rejects(open({ network, device: 'null0' }), { code: 'ENODEV', reason: /there are ctx0/ })
  })

  test('a second device with a name is refused', () => {
    assert.throws(() => network.addDevice(core => createCtxDevice(core, 'ctx0')), { code: 'EEXIST' })
  })
})

describe('on a daemon', { skip: !hasNative() && 'koffi is missing' }, () => {
  const scope = suiteScope()
  let socket = ''
  before(async () => {
    const daemon = await startDaemon(scope, { devices: ['ctx0', 'null0'] })
    socket = daemon.socket
    scope.after(async () => assert.ok(isEmpty(await daemon.settled(isEmpty))))
  })
  testsOfCarrier(name => open({ socket, device: name }))
  test('classes of the library that the device lacks are refused with a hint', async () => {
    const device = await open({ socket, device: 'null0' })
    assert.equal(device.address, '')
    for (const make of [() => device.cq(), () => device.eventQueue(), () => device.create(Classes.dm, {} as never)])
      assert.throws(make, { code: 'EOPNOTSUPP', hint: /supports/ })
    await device.close()
  })
})
