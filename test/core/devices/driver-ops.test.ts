/*
 * A driver's own interfaces (R28, R30).
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

/** ioctl 1 takes the handle of a protection domain and keeps the domain busy; write posts the bytes as a record. */
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
  mmap: (_call, _offset, length) => bufferMemory().allocate(Math.min(length, 8192)),
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

const open = (setup: TestSetup, text: string) =>
  install(setup, invokeNow(setup.context, Ops, 'create', 0, name(text), setup.caller))

test('interfaces are listed in the driver’s order, and opened by name (R28)', () => {
  const setup = setUp()
  const { names } = invokeNow(setup.context, Device, 'queryDriverOps', 0, {}, setup.caller).out
  assert.equal(new TextDecoder().decode(names), 'test.userdma.2\0test.userdma.1\0test\0')
  const fd = open(setup, 'test.userdma.1')
  const queried = invokeNow(setup.context, Ops, 'query', fd.handle, {}, setup.caller).out
  assert.equal(new TextDecoder().decode(queried.name), 'test.userdma.1')
})

test('an unknown name is refused with ENOENT, or with EOPNOTSUPP if the driver has no interface', () => {
  const setup = setUp()
  for (const unknown of ['test.userdma.3', '', 'toString', 'test.userdma.2\0'])
    assert.throws(
      () => open(setup, unknown),
      ({ code, message }: CallError) =>
        code === 'ENOENT' && /it has test.userdma.2, test.userdma.1, test$/.test(message),
    )
  const none = openTestDevice()
  assert.equal(
    errnoOf(() => open(none, 'test.userdma.1')),
    'EOPNOTSUPP',
  )
  assert.equal(stat(setup.core).descriptors + stat(none.core).descriptors, 0)
})

test('without a name the provider channel is opened: the interface with the driver’s name (R30)', () => {
  const setup = setUp()
  const fd = install(setup, invokeNow(setup.context, Ops, 'create', 0, {}, setup.caller))
  assert.equal(
    new TextDecoder().decode(invokeNow(setup.context, Ops, 'query', fd.handle, {}, setup.caller).out.name),
    'test',
  )
})

test('an object that an ioctl uses is busy until the descriptor is closed', () => {
  const setup = setUp()
  const fd = open(setup, 'test.userdma.2')
  const pd = invokeNow(setup.context, Pd, 'create', 0, {}, setup.caller).object as number
  assert.equal(opsIoctl(fd, setup.caller, 1, BigInt(pd)), 1)
  assert.equal(
    errnoOf(() => opsIoctl(fd, setup.caller, 1, 77n)),
    'ENOENT',
  )
  assert.equal(
    errnoOf(() => opsIoctl(fd, setup.caller, 2, 0n)),
    'ENOTTY',
  )
  assert.equal(
    errnoOf(() => invokeNow(setup.context, Pd, 'destroy', pd, {}, setup.caller)),
    'EBUSY',
  )
  closeDescriptor(setup.core, fd.handle)
  assert.deepEqual(setup.closes, ['close 1'])
  invokeNow(setup.context, Pd, 'destroy', pd, {}, setup.caller)
})

test('posted records are read in order, and a write of more than 1 MiB is refused with EMSGSIZE', () => {
  const setup = setUp()
  const fd = open(setup, 'test.userdma.2')
  assert.equal(
    errnoOf(() => readEvents(fd)),
    'EAGAIN',
  )
  assert.equal(opsWrite(fd, setup.caller, 0n, 3), 3)
  assert.equal(opsWrite(fd, setup.caller, 0n, 20), 20)
  // A Buffer: its `slice` does not copy.
  const bytes = Buffer.of(7)
  postRecord(fd, bytes)
  bytes.fill(0)
  assert.deepEqual(
    readEvents(fd, 10).map(event => [event.bytes.length, event.bytes[0]]),
    [
      [3, 0],
      [20, 0],
      [1, 7],
    ],
  )
  assert.throws(() => opsWrite(fd, setup.caller, 0n, 0), /a record has 1 to/)
  assert.equal(
    errnoOf(() => opsWrite(fd, setup.caller, 0n, 2 ** 20 + 1)),
    'EMSGSIZE',
  )
  // core accepts the write, and then the interface refuses so long a record
  assert.throws(() => opsWrite(fd, setup.caller, 0n, 2 ** 20), /a record has 1 to/)
})

test('mmap returns whole pages; an unaligned, negative, empty or huge range is refused with EINVAL', () => {
  const setup = setUp()
  const fd = open(setup, 'test.userdma.2')
  assert.equal(opsMap(fd, setup.caller, 4096, 100, true).length, 4096)
  for (const [offset, length] of [
    [1, 4096],
    [-4096, 4096],
    [0, 0],
    [0, 8193],
    [2 ** 60, 1],
  ])
    assert.equal(
      errnoOf(() => opsMap(fd, setup.caller, offset, length, false)),
      'EINVAL',
    )
})

test('ioctl, write and mmap fail on a descriptor that lacks them', () => {
  const setup = setUp()
  const fd = open(setup, 'test.userdma.1')
  const asyncFd = install(setup, invokeNow(setup.context, Classes.async_fd, 'create', 0, {}, setup.caller))
  const answers = (target: typeof fd) => [
    errnoOf(() => opsIoctl(target, setup.caller, 1, 0n)),
    errnoOf(() => opsWrite(target, setup.caller, 0n, 1)),
    errnoOf(() => opsMap(target, setup.caller, 0, 4096, false)),
  ]
  assert.deepEqual(answers(fd), ['ENOTTY', 'EINVAL', 'ENODEV'])
  assert.deepEqual(answers(asyncFd), ['ENOTTY', 'EINVAL', 'EINVAL'])
})

test('after the context is closed, the device removed or the object destroyed, every call fails with EIO', () => {
  for (const end of [
    (setup: TestSetup) => closeContext(setup.context),
    (setup: TestSetup) => unregister(setup.device),
    (setup: TestSetup) => invokeNow(setup.context, Ops, 'destroy', [...setup.caller.fds.keys()][0], {}, setup.caller),
  ]) {
    const setup = setUp()
    const fd = open(setup, 'test.userdma.2')
    end(setup)
    assert.deepEqual(setup.closes, ['close 0'])
    for (const call of [
      () => opsIoctl(fd, setup.caller, 1, 0n),
      () => opsWrite(fd, setup.caller, 0n, 1),
      () => opsMap(fd, setup.caller, 0, 4096, false),
      () => readEvents(fd),
    ])
      assert.equal(errnoOf(call), 'EIO')
  }
})
