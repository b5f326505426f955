/*
 * Driver ctx: messages between contexts, through descriptors and through the class `ctx_context`.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  closeContext,
  closeDescriptor,
  createCore,
  type FdObject,
  invokeNow,
  openContext,
  opsIoctl,
  opsMap,
  readEvents,
  stat,
  unregister,
} from '../../../src/core/index.ts'
import { createCtxDevice } from '../../../src/drivers/ctx/device.ts'
import { Classes } from '../../../src/spec/classes.ts'
import {
  CtxAssign,
  CtxContext,
  CtxExpect,
  CtxInterface,
  CtxIoctl,
  CtxKind,
  CtxLimits,
  CtxRecord,
  CtxStatistics,
  CtxWord,
} from '../../../src/spec/drivers/ctx.ts'
import { CallError } from '../../../src/spec/errno.ts'
import { declare } from '../../../src/uapi/object/description.ts'
import { encodeRecords } from '../../../src/uapi/scalar.ts'
import { errnoOf } from '../../core/fixture.ts'
import { decode, flatCaller, openClient, receive, setWord } from './client.ts'

/** Inputs of `create` and of ASSIGN. */
const CREATE_INPUTS = { eagerCount: 4, eagerBytes: 64, expectedCount: 2, expectedBytes: 4096, jobKey: 7 }
const assignment = (overrides: Partial<typeof CREATE_INPUTS> = {}) =>
  encodeRecords(CtxAssign, [{ ...CREATE_INPUTS, ...overrides, handle: 0 }])
const { EAGER, EXPECTED } = CtxKind.values
const u32 = (value: number) => new Uint8Array(new Uint32Array([value]).buffer)
/** The number of a context that is not assigned. */
const NO_CONTEXT = 99
/** Size of CtxSend, the header of write(2). */
const SEND_HEADER_BYTES = 24
const bytes = (length: number, seed = 1) => Uint8Array.from({ length }, (_, i) => i * seed + seed)

/** A device and two clients, each with a context of the newest interface. */
const pair = (overrides: Partial<typeof CREATE_INPUTS> = {}) => {
  const core = createCore()
  const device = createCtxDevice(core, 'ctx0')
  const client = () => {
    const opened = openClient(core, 'ctx0', CtxInterface.V2)
    const { handle } = decode(CtxAssign, opened.ioctl(CtxIoctl.ASSIGN, assignment(overrides)))
    return { ...opened, handle, mapped: opened.map() }
  }
  return { core, device, a: client(), b: client() }
}

test('eager messages move between two contexts, in order, through shared memory (R29)', () => {
  const { a, b } = pair()
  assert.equal(receive(b.mapped), undefined)
  assert.equal(a.send(b.mapped.info.number, 5n, bytes(64)), SEND_HEADER_BYTES + 64)
  a.send(b.mapped.info.number, 6n, bytes(3, 9))
  const first = receive(b.mapped)
  assert.deepEqual([first?.kind, first?.source, first?.tag, first?.slot], [EAGER, a.mapped.info.number, 5n, 0])
  assert.deepEqual(first?.data, bytes(64))
  assert.deepEqual(receive(b.mapped)?.data, bytes(3, 9))
  assert.equal(receive(b.mapped), undefined)
  b.send(a.mapped.info.number, 1n, bytes(10))
  assert.deepEqual(receive(a.mapped)?.data, bytes(10))
})

test('an expected message arrives in fragments in the announced buffer, with one header', () => {
  const { core, a, b } = pair()
  const whole = bytes(4000, 3)
  const { number } = b.mapped.info
  const expect = () => b.ioctl(CtxIoctl.EXPECT, encodeRecords(CtxExpect, [{ slot: 1, length: 4000 }]))
  expect()
  assert.equal(errnoOf(expect), 'EBUSY')
  a.send(number, 8n, whole.subarray(1000), { slot: 1, offset: 1000 })
  assert.equal(receive(b.mapped), undefined)
  a.send(number, 8n, whole.subarray(0, 1000), { slot: 1, offset: 0 })
  const message = receive(b.mapped)
  assert.deepEqual([message?.kind, message?.slot, message?.length], [EXPECTED, 1, 4000])
  assert.deepEqual(message?.data, whole)
  const channel = openClient(core, 'ctx0', CtxInterface.CHANNEL)
  const { messages, bytes: sent } = decode(CtxStatistics, channel.ioctl(CtxIoctl.STATISTICS))
  assert.deepEqual([messages, sent], [1n, 4000n])
})

test('a fragment is refused outside an announced buffer', () => {
  const { a, b } = pair()
  const send = (slot: number, offset: number, length: number) =>
    errnoOf(() => a.send(b.mapped.info.number, 8n, bytes(length), { slot, offset }))
  b.ioctl(CtxIoctl.EXPECT, encodeRecords(CtxExpect, [{ slot: 1, length: 4000 }]))
  assert.equal(send(0, 0, 1), 'EINVAL', 'the slot is not announced')
  assert.equal(send(CREATE_INPUTS.expectedCount, 0, 1), 'EINVAL', 'there is no such slot')
  assert.equal(send(1, 3950, 51), 'EINVAL', 'the fragment is longer than the rest of the buffer')
  assert.equal(send(1, 0, 4000), 'ok')
  assert.equal(send(1, 0, 1), 'EINVAL', 'the message of the announcement is complete')
})

test('the last fragment gets EAGAIN while the header queue is full', () => {
  const { a, b } = pair()
  const whole = bytes(4000, 3)
  const send = (offset: number, end: number) =>
    errnoOf(() => a.send(b.mapped.info.number, 9n, whole.subarray(offset, end), { slot: 1, offset }))
  b.ioctl(CtxIoctl.EXPECT, encodeRecords(CtxExpect, [{ slot: 1, length: 4000 }]))
  assert.equal(send(0, 1000), 'ok')
  assert.equal(receive(b.mapped), undefined)
  // more headers consumed than produced: the queue counts as full
  setWord(b.mapped, CtxWord.HEADER_CONSUMER, 100)
  assert.equal(send(1000, 4000), 'EAGAIN')
  setWord(b.mapped, CtxWord.HEADER_CONSUMER, 0)
  assert.equal(send(1000, 4000), 'ok')
  assert.deepEqual(receive(b.mapped)?.data, whole)
})

test('a send fails if the queue is full, receiving is disabled, the jobKey differs, or the message is too long', () => {
  const { core, a, b } = pair()
  const { number } = b.mapped.info
  const send = (length = 1) => errnoOf(() => a.send(number, 0n, bytes(length)))
  for (let i = 0; i < CREATE_INPUTS.eagerCount; i++) assert.equal(send(), 'ok')
  assert.equal(send(), 'EAGAIN')
  receive(b.mapped)
  assert.equal(send(), 'ok')
  receive(b.mapped)
  assert.equal(send(CREATE_INPUTS.eagerBytes + 1), 'EMSGSIZE')
  const setReceiving = (isEnabled: boolean) => b.ioctl(CtxIoctl.RECEIVE, u32(Number(isEnabled)))
  setReceiving(false)
  assert.equal(send(), 'EAGAIN')
  setReceiving(true)
  assert.equal(send(), 'ok')
  const otherJob = openClient(core, 'ctx0', CtxInterface.V2)
  otherJob.ioctl(CtxIoctl.ASSIGN, assignment({ jobKey: CREATE_INPUTS.jobKey + 1 }))
  for (const to of [number, NO_CONTEXT])
    assert.equal(
      errnoOf(() => otherJob.send(to, 0n, bytes(1))),
      'ENXIO',
    )
})

test('an armed context is notified of the next message once, or immediately if a message waits', () => {
  const { a, b } = pair()
  const { number } = b.mapped.info
  a.send(number, 0n, bytes(1))
  assert.equal(errnoOf(b.readNotification), 'EAGAIN')
  b.ioctl(CtxIoctl.ARM)
  assert.deepEqual(b.readNotification(), { number, producer: 1 })
  receive(b.mapped)
  b.ioctl(CtxIoctl.ARM)
  assert.equal(errnoOf(b.readNotification), 'EAGAIN')
  a.send(number, 0n, bytes(1))
  a.send(number, 0n, bytes(1))
  assert.deepEqual(b.readNotification(), { number, producer: 2 })
  assert.equal(errnoOf(b.readNotification), 'EAGAIN')
})

test('reset empties the queues and forgets announcements', () => {
  const { a, b } = pair()
  const { number } = b.mapped.info
  b.ioctl(CtxIoctl.EXPECT, encodeRecords(CtxExpect, [{ slot: 0, length: 1 }]))
  for (let i = 0; i < CREATE_INPUTS.eagerCount; i++) a.send(number, 0n, bytes(1))
  b.ioctl(CtxIoctl.RESET)
  assert.equal(receive(b.mapped), undefined)
  assert.equal(
    errnoOf(() => a.send(number, 0n, bytes(1), { slot: 0, offset: 0 })),
    'EINVAL',
  )
  a.send(number, 3n, bytes(2))
  assert.equal(receive(b.mapped)?.tag, 3n)
})

test('a context whose ASSIGN cannot be answered is destroyed', () => {
  const core = createCore()
  createCtxDevice(core, 'ctx0')
  const client = openClient(core, 'ctx0', CtxInterface.V2)
  const { caller } = client
  const copyOut = () => {
    throw new CallError('EFAULT', 'no memory')
  }
  caller.bytes.set(assignment())
  assert.equal(
    errnoOf(() => opsIoctl(client.fd, { ...caller, copyOut }, CtxIoctl.ASSIGN, 0n)),
    'EFAULT',
  )
  const channel = openClient(core, 'ctx0', CtxInterface.CHANNEL)
  assert.equal(decode(CtxStatistics, channel.ioctl(CtxIoctl.STATISTICS)).assigned, 0)
})

test('mmap of a context is refused at other offsets than 0', () => {
  const { a } = pair()
  assert.equal(
    errnoOf(() => opsMap(a.fd, a.caller, 4096, 4096, true)),
    'EINVAL',
  )
})

test('the older interface has eager messages, but no expected messages', () => {
  const { core, b } = pair()
  assert.equal(
    errnoOf(() => openClient(core, 'ctx0', 'ctx.userdma.3')),
    'ENOENT',
  )
  const old = openClient(core, 'ctx0', CtxInterface.V1)
  old.ioctl(CtxIoctl.ASSIGN, assignment())
  assert.equal(
    errnoOf(() => old.ioctl(CtxIoctl.EXPECT, new Uint8Array(8))),
    'ENOTTY',
  )
  assert.equal(
    errnoOf(() => old.send(b.mapped.info.number, 0n, bytes(1), { slot: 0, offset: 0 })),
    'EINVAL',
  )
  assert.equal(old.send(b.mapped.info.number, 0n, bytes(1)), SEND_HEADER_BYTES + 1)
})

test('descriptor and private class access the same object (R28)', () => {
  const { core, a, b } = pair()
  const { info } = invokeNow(a.context, CtxContext, 'query', a.handle, {}, a.caller).out
  assert.deepEqual(info, a.mapped.info)
  const destroy = (handle: number) => errnoOf(() => invokeNow(a.context, CtxContext, 'destroy', handle, {}, a.caller))
  assert.equal(destroy(a.handle), 'EBUSY')
  closeDescriptor(core, a.fd.handle)
  assert.equal(destroy(a.handle), 'ENOENT')

  // a context created through the class exists longer than the descriptor that uses it
  const created = invokeNow(b.context, CtxContext, 'create', 0, CREATE_INPUTS, b.caller).object as number
  const name = { name: new TextEncoder().encode(CtxInterface.V1) }
  const fd = invokeNow(b.context, Classes.driver_ops, 'create', 0, name, b.caller).descriptors?.[0].object as number
  const use = (handle: number) => {
    b.caller.bytes.set(u32(handle))
    return errnoOf(() => opsIoctl(core.descriptors.get(fd) as FdObject, b.caller, CtxIoctl.USE, 0n))
  }
  assert.equal(use(b.handle), 'EBUSY')
  assert.equal(use(4711), 'ENOENT', 'no such object')
  assert.equal(use(created), 'ok')
  assert.equal(use(created), 'EBUSY')
  closeDescriptor(core, fd)
  assert.equal(
    errnoOf(() => invokeNow(b.context, CtxContext, 'destroy', created, {}, b.caller)),
    'ok',
  )
})

test('a client that uses only the class is notified on the descriptor that it passed to create', () => {
  const core = createCore()
  const context = openContext(createCtxDevice(core, 'ctx0'), { isOpened: true })
  const caller = flatCaller()
  const makeOps = () =>
    invokeNow(context, Classes.driver_ops, 'create', 0, {}, caller).descriptors?.[0].object as number
  const [ops, otherOps] = [makeOps(), makeOps()]
  const to = invokeNow(context, CtxContext, 'create', 0, { ...CREATE_INPUTS, ops }, caller)
  invokeNow(context, CtxContext, 'create', 0, { ...CREATE_INPUTS, ops: otherOps }, caller)
  const from = invokeNow(context, CtxContext, 'create', 0, CREATE_INPUTS, caller)
  invokeNow(context, CtxContext, 'arm', to.object as number, {}, caller)
  assert.equal(
    errnoOf(() => invokeNow(context, CtxContext, 'arm', from.object as number, {}, caller)),
    'EINVAL',
  )
  const message = { destination: to.out.info.number, tag: 1n, data: bytes(5) }
  invokeNow(context, CtxContext, 'send', from.object as number, message, caller)
  const notifications = (handle: number) =>
    readEvents(core.descriptors.get(handle) as FdObject).map(event => decode(CtxRecord, event.bytes))
  assert.deepEqual(notifications(ops), [{ number: to.out.info.number, producer: 1 }])
  assert.equal(
    errnoOf(() => notifications(otherOps)),
    'EAGAIN',
  )
})

test('a context whose descriptor was closed refuses to be armed, and takes another descriptor', () => {
  const core = createCore()
  const context = openContext(createCtxDevice(core, 'ctx0'), { isOpened: true })
  const caller = flatCaller()
  const invokeOn = (object: number, method: 'arm' | 'destroy') =>
    errnoOf(() => invokeNow(context, CtxContext, method, object, {}, caller))
  const createOps = (): FdObject => {
    const name = { name: new TextEncoder().encode(CtxInterface.V2) }
    const { descriptors } = invokeNow(context, Classes.driver_ops, 'create', 0, name, caller)
    return core.descriptors.get(descriptors?.[0].object as number) as FdObject
  }
  const create = (ops?: FdObject): number =>
    invokeNow(context, CtxContext, 'create', 0, ops ? { ...CREATE_INPUTS, ops: ops.handle } : CREATE_INPUTS, caller)
      .object as number
  const use = (fd: FdObject, object: number) => {
    caller.bytes.set(u32(object))
    return errnoOf(() => opsIoctl(fd, caller, CtxIoctl.USE, 0n))
  }
  const [first, second] = [createOps(), createOps()]
  // As `ops` of one context and by USE of the other, `first` serves both.
  const [created, used] = [create(first), create()]
  assert.equal(use(first, used), 'ok')
  assert.deepEqual([invokeOn(created, 'arm'), invokeOn(used, 'arm')], ['ok', 'ok'])
  closeDescriptor(core, first.handle)
  assert.deepEqual([invokeOn(created, 'arm'), invokeOn(used, 'arm')], ['EINVAL', 'EINVAL'])
  assert.equal(use(second, used), 'ok')
  // Ends the last use of `first`.
  assert.equal(invokeOn(created, 'destroy'), 'ok')
  assert.equal(core.descriptors.has(first.handle), false)
  assert.equal(invokeOn(used, 'arm'), 'ok')
  closeDescriptor(core, second.handle)
  assert.equal(invokeOn(used, 'destroy'), 'ok')
})

test('the provider channel has only statistics (R30)', () => {
  const { core, a, b } = pair()
  a.send(b.mapped.info.number, 0n, bytes(10))
  assert.equal(
    errnoOf(() => a.send(NO_CONTEXT, 0n, bytes(1))),
    'ENXIO',
  )
  const channel = openClient(core, 'ctx0', CtxInterface.CHANNEL)
  const { assigned, messages, bytes: moved, refused } = decode(CtxStatistics, channel.ioctl(CtxIoctl.STATISTICS))
  assert.deepEqual([assigned, messages, moved, refused], [2, 1n, 10n, 1n])
  assert.equal(
    errnoOf(() => channel.ioctl(CtxIoctl.INFO)),
    'ENOTTY',
  )
  assert.equal(errnoOf(channel.map), 'ENODEV')
})

test('create refuses an eagerCount that is not a power of two, and one context more than the device has', () => {
  const { a, b } = pair()
  const create = (eagerCount: number) => {
    const inputs = { ...CREATE_INPUTS, eagerCount, expectedCount: 0 }
    return errnoOf(() => invokeNow(a.context, CtxContext, 'create', 0, inputs, a.caller))
  }
  assert.equal(create(3), 'EINVAL')
  // pair() has created two contexts
  for (let assigned = 2; assigned < CtxLimits.contexts; assigned++) assert.equal(create(1), 'ok')
  assert.equal(create(1), 'ENOMEM')
  closeContext(b.context)
  assert.equal(create(1), 'ok')
})

test('the removal of the device destroys its objects and descriptors', () => {
  const { core, device, a } = pair()
  unregister(device)
  assert.deepEqual([stat(core).objects, stat(core).descriptors, core.faults], [0, 0, 0])
  assert.equal(
    errnoOf(() => a.send(0, 0n, bytes(1))),
    'EIO',
  )
})

test('a ctx device reports what it supports: its own class and interfaces, no verbs (R13, R29)', () => {
  const { a } = pair()
  const found = declare(invokeNow(a.context, Classes.interface, 'query', 0, {}, a.caller).out)
  assert.deepEqual(
    found.map(cls => cls.name),
    ['interface', 'device', 'async_fd', 'driver_ops', 'ctx_context'],
  )
})

test('a queue whose client has published an impossible consumer count is full', () => {
  for (const word of [CtxWord.HEADER_CONSUMER, CtxWord.EAGER_CONSUMER]) {
    const { a, b } = pair()
    const send = () => errnoOf(() => a.send(b.mapped.info.number, 0n, bytes(1)))
    assert.equal(send(), 'ok')
    // one message was produced
    for (const consumed of [2, -100, 0x7fff_ffff]) {
      setWord(b.mapped, word, consumed)
      assert.equal(send(), 'EAGAIN', `${consumed}`)
    }
    setWord(b.mapped, word, 1)
    assert.equal(send(), 'ok')
  }
})

test('a client that corrupts its queue words harms only itself', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ word: fc.constantFrom(...Object.values(CtxWord)), value: fc.integer(), sends: fc.nat(6) }), {
        maxLength: 20,
        size: 'max',
      }),
      writes => {
        const { a, b } = pair()
        for (const { word, value, sends } of writes) {
          setWord(b.mapped, word, value)
          for (let i = 0; i < sends; i++)
            assert.match(
              errnoOf(() => a.send(b.mapped.info.number, 0n, bytes(64))),
              /^(ok|EAGAIN)$/,
            )
        }
        b.send(a.mapped.info.number, 2n, bytes(7))
        assert.deepEqual(receive(a.mapped)?.data, bytes(7))
        for (const word of Object.values(CtxWord)) setWord(b.mapped, word, 0)
        b.ioctl(CtxIoctl.RESET)
        a.send(b.mapped.info.number, 4n, bytes(9))
        assert.deepEqual(receive(b.mapped)?.data, bytes(9))
      },
    ),
    { numRuns: 30 },
  )
})
