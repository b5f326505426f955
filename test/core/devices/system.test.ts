/*
 * The system-wide device (R13, R18), which lists the devices and reports added and removed devices.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readEvents } from '../../../src/core/events/events.ts'
import {
  closeContext,
  closeDescriptor,
  createCore,
  driverClass,
  findDescriptor,
  invokeNow,
  openContext,
  register,
  stat,
  systemDevice,
  unregister,
} from '../../../src/core/index.ts'
import type { Context, FdObject } from '../../../src/core/model.ts'
import { DeviceAttributes } from '../../../src/spec/classes/device/device.ts'
import { UVERBS_ABI } from '../../../src/spec/classes/device/system.ts'
import { Classes, classes } from '../../../src/spec/classes.ts'
import { AsyncEventType, NodeType } from '../../../src/spec/enums.ts'
import { zeroRecord } from '../../../src/spec/schema/schema.ts'
import { declare } from '../../../src/uapi/object/description.ts'
import { describeDevice, errnoOf, testCaller, testClasses, testDriver } from '../fixture.ts'

const { DEVICE_ADDED, DEVICE_REMOVED } = AsyncEventType.values
const caller = testCaller()
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes).replace(/\0+$/, '')

const openAsyncFd = (context: Context): FdObject => {
  const { descriptors } = invokeNow(context, Classes.async_fd, 'create', 0, {}, caller)
  return findDescriptor(context.device.core, descriptors![0].object)
}

/** The index of the device and the type of each event of an async fd. */
const readIndexes = (fd: FdObject): [index: number, type: number][] =>
  readEvents(fd, 10).map(({ bytes, type }) => [Number(new DataView(bytes.buffer).getBigUint64(0, true)), type])

const setUp = () => {
  const core = createCore()
  const device = systemDevice(core)
  const context = openContext(device)
  const query = () => invokeNow(context, Classes.system, 'query', 0, {}, caller).out
  return { core, device, context, query, names: () => query().devices.map(({ name }) => text(name)) }
}

test('the system-wide device has only the global classes, and needs no device.open', () => {
  const { core, context, names } = setUp()
  assert.deepEqual(names(), [])
  const described = declare(invokeNow(context, Classes.interface, 'query', 0, {}, caller).out)
  assert.deepEqual(
    described.map(({ name }) => name),
    classes.filter(cls => cls.global).map(({ name }) => name),
  )
  assert.ok(described.some(({ name }) => name === 'system'))
  assert.equal(
    errnoOf(() => invokeNow(context, Classes.pd, 'create', 0, {}, caller)),
    'EOPNOTSUPP',
  )
  assert.equal(
    errnoOf(() => invokeNow(context, Classes.device, 'open', 0, {}, caller)),
    'EOPNOTSUPP',
  )
  assert.equal(core.devices.size, 0)
  assert.equal(systemDevice(core), context.device)
})

test('system.query returns each device with its driver, versions and classes', () => {
  const { core, query } = setUp()
  const nodeGuid = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)
  const attributes = { ...zeroRecord(DeviceAttributes), nodeGuid, physPortCnt: 1 }
  register(core, describeDevice('a', { ...testDriver(), abi: 3, nodeType: NodeType.values.RNIC }, { attributes }))
  register(core, describeDevice('b', testDriver([driverClass(Classes.pd), driverClass(Classes.interface)])))
  const { devices, classes: classesOfDevices } = query()
  const { RNIC, CA } = NodeType.values
  const { id: driverId } = testDriver()
  assert.deepEqual(
    devices.map(row => ({ ...row, name: text(row.name), driver: text(row.driver) })),
    [
      {
        name: 'a',
        driver: 'test',
        index: 0,
        driverId,
        nodeType: RNIC,
        ports: 1,
        nodeGuid,
        uverbsAbi: UVERBS_ABI,
        driverAbi: 3,
      },
      {
        name: 'b',
        driver: 'test',
        index: 1,
        driverId,
        nodeType: CA,
        ports: 0,
        nodeGuid: new Uint8Array(8),
        uverbsAbi: UVERBS_ABI,
        driverAbi: 1,
      },
    ],
  )
  assert.deepEqual(
    classesOfDevices.filter(({ index }) => index === 1).map(row => row.class),
    [Classes.interface.id, Classes.pd.id],
  )
  assert.equal(classesOfDevices.filter(({ index }) => index === 0).length, testClasses.length)
})

test('a new device gets the lowest free index', () => {
  const { core, query, names } = setUp()
  const [a, b, c] = ['a', 'b', 'c'].map(name => register(core, describeDevice(name)))
  assert.deepEqual([a.index, b.index, c.index], [0, 1, 2])
  unregister(b)
  assert.deepEqual(names(), ['a', 'c'])
  assert.equal(register(core, describeDevice('d')).index, 1)
  assert.deepEqual(
    query().devices.map(({ name, index }) => [text(name), index]),
    [
      ['a', 0],
      ['d', 1],
      ['c', 2],
    ],
  )
})

test('the index of a removed device is free again once DEVICE_REMOVED was raised', () => {
  const { core, context } = setUp()
  const fd = openAsyncFd(context)
  // A removal is a job, which ends with DEVICE_REMOVED.
  const deferredJobs: Iterator<unknown>[] = []
  const { runJob } = core
  Object.assign(core, { runJob: (job: Iterator<unknown>) => deferredJobs.push(job) })
  unregister(register(core, describeDevice('a')))
  const b = register(core, describeDevice('b'))
  for (const job of deferredJobs) runJob(job)
  const c = register(core, describeDevice('c'))
  assert.deepEqual([b.index, c.index], [1, 0])
  assert.deepEqual(readIndexes(fd), [
    [0, DEVICE_ADDED],
    [1, DEVICE_ADDED],
    [0, DEVICE_REMOVED],
    [0, DEVICE_ADDED],
  ])
})

test('every open async fd of the system-wide device gets each added and removed device in order', () => {
  const { core, device, context } = setUp()
  const otherContext = openContext(device)
  const [fd, otherFd] = [context, otherContext].map(openAsyncFd)
  const a = register(core, describeDevice('a'))
  const b = register(core, describeDevice('b'))
  assert.deepEqual(readIndexes(fd), [
    [0, DEVICE_ADDED],
    [1, DEVICE_ADDED],
  ])
  closeContext(context)
  unregister(b)
  unregister(a)
  assert.deepEqual(readIndexes(otherFd), [
    [0, DEVICE_ADDED],
    [1, DEVICE_ADDED],
    [1, DEVICE_REMOVED],
    [0, DEVICE_REMOVED],
  ])
  assert.equal(
    errnoOf(() => readIndexes(fd)),
    'EIO',
  )
  assert.equal(stat(core).contexts, 1)
  closeDescriptor(core, otherFd.id)
  closeContext(otherContext)
  const remaining = stat(core)
  assert.deepEqual([remaining.contexts, remaining.descriptors, remaining.objects], [0, 0, 0])
})

test('an event queue with the system-wide device attached gets the index of each added and removed device', () => {
  const { core, context } = setUp()
  const created = invokeNow(context, Classes.event_queue, 'create', 0, {}, caller)
  const queue = created.descriptors![0].object
  invokeNow(context, Classes.event_queue, 'attach', queue, { cookie: 9n, device: 1 }, caller)
  const [, b] = ['a', 'b'].map(name => register(core, describeDevice(name)))
  unregister(b)
  const { events } = invokeNow(context, Classes.event_queue, 'getEvents', queue, { max: 10 }, caller).out
  assert.deepEqual(
    events.map(({ cookie, object, type }) => [cookie, object, type]),
    [
      [9n, 0, DEVICE_ADDED],
      [9n, 1, DEVICE_ADDED],
      [9n, 1, DEVICE_REMOVED],
    ],
  )
})

test('a core without listeners keeps no state for the system-wide device', () => {
  const core = createCore()
  unregister(register(core, describeDevice('a')))
  assert.equal(core.system, undefined)
  assert.equal(stat(core).tables.devices, 0)
})
