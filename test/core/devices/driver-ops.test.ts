/*
 * A driver's own interfaces (R28, R30): opening them by name, their ioctl, write and mmap, the records that they post, and
 * their end.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  addParent,
  bufferMemory,
  type CoreObject,
  closeContext,
  closeDescriptor,
  type Driver,
  type DriverOps,
  findObject,
  invokeNow,
  opsIoctl,
  opsMap,
  opsWrite,
  postRecord,
  readEvents,
  stat,
  unregister,
} from '../../../src/core/index.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { CallError } from '../../../src/spec/errno.ts'
import { errnoOf, install, openTestDevice, type TestSetup, testDriver } from '../fixture.ts'

const { device: Device, driver_ops: Ops, pd: Pd } = Classes

const name = (text: string) => ({ name: new TextEncoder().encode(text) })

/**
 * An interface whose ioctl 1 takes the handle of a protection domain and uses that domain; `log` records its closes.
 */
const pdInterface = (log: string[]): DriverOps<{ pds: CoreObject[] }> => ({
  open: () => ({ pds: [] }),
  ioctl(call, request, argument) {
    if (request !== 1) throw new CallError('ENOTTY', `no ioctl ${request}`)
    const pd = findObject(call.context, Pd.name, Number(argument), 'test')
    addParent(call.fd, pd)
    return call.fd.state.interfaceState.pds.push(pd)
  },
  write({ fd }, bytes) {
    postRecord(fd, bytes)
    return bytes.length
  },
  mmap: (_call, _offset, length) => bufferMemory().allocate(length),
  close: ({ fd }) => log.push(`close ${fd.state.interfaceState.pds.length}`),
})

const setUp = (): TestSetup & { readonly closes: string[] } => {
  const closes: string[] = []
  const interfaces = {
    'test.userdma.2': pdInterface(closes),
    'test.userdma.1': {},
    test: pdInterface(closes),
  } as Record<string, DriverOps>
  const driver: Driver<{ log: string[] }> = { ...testDriver(), interfaces }
  return { ...openTestDevice({}, driver), closes }
}

const open = (b: TestSetup, text: string) => install(b, invokeNow(b.context, Ops, 'create', 0, name(text), b.caller))

test('interfaces are listed newest first, and opened by their versioned names (R28)', () => {
  const b = setUp()
  const { names } = invokeNow(b.context, Device, 'queryDriverOps', 0, {}, b.caller).out
  assert.equal(new TextDecoder().decode(names), 'test.userdma.2\0test.userdma.1\0test\0')
  const fd = open(b, 'test.userdma.1')
  const queried = invokeNow(b.context, Ops, 'query', fd.handle, {}, b.caller).out
  assert.equal(new TextDecoder().decode(queried.name), 'test.userdma.1')
})

test('an unknown name is ENOENT and the error lists the existing ones; without any interface it is EOPNOTSUPP', () => {
  const b = setUp()
  for (const unknown of ['test.userdma.3', '', 'toString', 'test.userdma.2\0'])
    assert.throws(
      () => open(b, unknown),
      ({ code, message }: CallError) =>
        code === 'ENOENT' && /it has test.userdma.2, test.userdma.1, test$/.test(message),
    )
  const none = openTestDevice()
  assert.equal(
    errnoOf(() => open(none, 'test.userdma.1')),
    'EOPNOTSUPP',
  )
  assert.equal(stat(b.core).descriptors + stat(none.core).descriptors, 0)
})

test('without a name the interface named like the driver is opened, which is the provider channel (R30)', () => {
  const b = setUp()
  const fd = install(b, invokeNow(b.context, Ops, 'create', 0, {}, b.caller))
  assert.equal(new TextDecoder().decode(invokeNow(b.context, Ops, 'query', fd.handle, {}, b.caller).out.name), 'test')
})

test('ioctl uses objects of the context, which are busy until the descriptor is closed', () => {
  const b = setUp()
  const fd = open(b, 'test.userdma.2')
  const pd = invokeNow(b.context, Pd, 'create', 0, {}, b.caller).object as number
  assert.equal(opsIoctl(fd, b.caller, 1, BigInt(pd)), 1)
  assert.equal(
    errnoOf(() => opsIoctl(fd, b.caller, 1, 77n)),
    'ENOENT',
  )
  assert.equal(
    errnoOf(() => opsIoctl(fd, b.caller, 2, 0n)),
    'ENOTTY',
  )
  assert.equal(
    errnoOf(() => invokeNow(b.context, Pd, 'destroy', pd, {}, b.caller)),
    'EBUSY',
  )
  closeDescriptor(b.core, fd.handle)
  assert.deepEqual(b.closes, ['close 1'])
  invokeNow(b.context, Pd, 'destroy', pd, {}, b.caller)
})

test('posted records are read in order, each as one event; a write beyond 1 MiB is refused with EMSGSIZE', () => {
  const b = setUp()
  const fd = open(b, 'test.userdma.2')
  assert.equal(
    errnoOf(() => readEvents(fd)),
    'EAGAIN',
  )
  assert.equal(opsWrite(fd, b.caller, 0n, 3), 3)
  assert.equal(opsWrite(fd, b.caller, 0n, 20), 20)
  assert.deepEqual(
    readEvents(fd, 10).map(({ bytes }) => bytes.length),
    [3, 20],
  )
  assert.equal(
    errnoOf(() => opsWrite(fd, b.caller, 0n, 2 ** 20 + 1)),
    'EMSGSIZE',
  )
})

test('mmap returns whole pages; an unaligned, negative or empty range is refused with EINVAL', () => {
  const b = setUp()
  const fd = open(b, 'test.userdma.2')
  assert.equal(opsMap(fd, b.caller, 4096, 100, true).length, 4096)
  for (const [offset, length] of [
    [1, 4096],
    [-4096, 4096],
    [0, 0],
    [2 ** 60, 1],
  ])
    assert.equal(
      errnoOf(() => opsMap(fd, b.caller, offset, length, false)),
      'EINVAL',
    )
})

test('a call that an interface lacks fails with the errno of a Linux file without it; so does a call on another class’s descriptor', () => {
  const b = setUp()
  const fd = open(b, 'test.userdma.1')
  const asyncFd = install(b, invokeNow(b.context, Classes.async_fd, 'create', 0, {}, b.caller))
  const answers = (target: typeof fd) => [
    errnoOf(() => opsIoctl(target, b.caller, 1, 0n)),
    errnoOf(() => opsWrite(target, b.caller, 0n, 1)),
    errnoOf(() => opsMap(target, b.caller, 0, 4096, false)),
  ]
  assert.deepEqual(answers(fd), ['ENOTTY', 'EINVAL', 'ENODEV'])
  assert.deepEqual(answers(asyncFd), ['ENOTTY', 'EINVAL', 'EINVAL'])
})

test('after the context is closed or the device removed, calls are EIO and the descriptor hangs up', () => {
  for (const end of [
    (b: TestSetup) => closeContext(b.context),
    (b: TestSetup) => unregister(b.device),
    (b: TestSetup) => invokeNow(b.context, Ops, 'destroy', [...b.caller.fds.keys()][0], {}, b.caller),
  ]) {
    const b = setUp()
    const fd = open(b, 'test.userdma.2')
    end(b)
    assert.deepEqual(b.closes, ['close 0'])
    for (const call of [
      () => opsIoctl(fd, b.caller, 1, 0n),
      () => opsWrite(fd, b.caller, 0n, 1),
      () => opsMap(fd, b.caller, 0, 4096, false),
      () => readEvents(fd),
    ])
      assert.equal(errnoOf(call), 'EIO')
  }
})
