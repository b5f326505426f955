/*
 * Queries that core answers.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  arm,
  completed,
  type FdObject,
  findGid,
  getGid,
  invokeNow,
  openContext,
  raiseObjectEvent,
  readEvents,
  setGid,
  systemDevice,
} from '../../src/core/index.ts'
import { DeviceAttributes } from '../../src/spec/classes/device/device.ts'
import { Classes } from '../../src/spec/classes.ts'
import { AsyncEventType, GidType, PortState } from '../../src/spec/enums.ts'
import { zeroRecord } from '../../src/spec/schema/schema.ts'
import { errnoOf, install, openTestDevice } from './fixture.ts'

const { pd: Pd, cq: Cq, device: Device, port: Port, system: System } = Classes
const { comp_channel: CompChannel, async_fd: AsyncFd, event_queue: EventQueue } = Classes
const { ROCE_V1, ROCE_V2 } = GidType.values
const gid = (last: number) => new Uint8Array(16).fill(0xfe, 0, 1).fill(last, 15)

test('queryGidEntry fails with ENODATA for an empty entry, with EINVAL for an index beyond the table', () => {
  const { device, context, caller } = openTestDevice()
  const [{ gids }] = device.ports
  setGid(gids, 1, { gid: gid(1), type: ROCE_V2, ifindex: 3 })
  const query = (index: number) => invokeNow(context, Port, 'queryGidEntry', 1, { index }, caller).out.entry
  assert.deepEqual(query(1), { gid: gid(1), index: 1, port: 1, type: ROCE_V2, ifindex: 3 })
  assert.equal(
    errnoOf(() => query(0)),
    'ENODATA',
  )
  assert.equal(
    errnoOf(() => query(8)),
    'EINVAL',
  )
  setGid(gids, 1, undefined)
  assert.equal(
    errnoOf(() => query(1)),
    'ENODATA',
  )
})

test('queries return copies of GIDs: a caller that writes to a copy does not change the table', () => {
  const { device, context, caller } = openTestDevice()
  const [{ gids }] = device.ports
  setGid(gids, 1, { gid: gid(1), type: ROCE_V2, ifindex: 3 })
  invokeNow(context, Port, 'queryGidEntry', 1, { index: 1 }, caller).out.entry.gid.fill(0)
  invokeNow(context, Device, 'queryGidTable', 0, {}, caller).out.entries[0].gid.fill(0)
  assert.equal(findGid(gids, gid(1)), 1)
})

test('Buffers of a driver are copied: the GID of setGid, and the GUIDs in the answers', () => {
  const guid = () => Buffer.of(1, 2, 3, 4, 5, 6, 7, 8)
  const attributes = { ...zeroRecord(DeviceAttributes), physPortCnt: 1, nodeGuid: guid(), sysImageGuid: guid() }
  const { core, device, context, caller } = openTestDevice({ attributes })
  const passed = Buffer.from(gid(1))
  setGid(device.ports[0].gids, 1, { gid: passed, type: ROCE_V2, ifindex: 3 })
  passed.fill(0)
  assert.equal(findGid(device.ports[0].gids, gid(1)), 1)
  const { out } = invokeNow(context, Device, 'query', 0, {}, caller)
  out.attributes.nodeGuid.fill(0)
  out.attributes.sysImageGuid.fill(0)
  const system = openContext(systemDevice(core))
  invokeNow(system, System, 'query', 0, {}, caller).out.devices[0].nodeGuid.fill(0)
  assert.deepEqual([attributes.nodeGuid, attributes.sysImageGuid], [guid(), guid()])
})

test('setGid refuses an index beyond the table, and a GID that has not 16 bytes', () => {
  const [{ gids }] = openTestDevice().device.ports
  assert.equal(
    errnoOf(() => setGid(gids, 8, undefined)),
    'EINVAL',
  )
  assert.throws(() => setGid(gids, 0, { gid: new Uint8Array(4), type: ROCE_V2, ifindex: 0 }), /16 bytes, not 4/)
})

test('a GID is found by its bytes, RoCE v1 only if there is no other, and by its type if one is named', () => {
  const { device } = openTestDevice()
  const [{ gids }] = device.ports
  const bytes = gid(1)
  setGid(gids, 2, { gid: bytes, type: ROCE_V1, ifindex: 0 })
  setGid(gids, 5, { gid: bytes, type: ROCE_V2, ifindex: 0 })
  bytes[0] = 0
  const found = () => [findGid(gids, gid(1)), findGid(gids, gid(1), ROCE_V1), findGid(gids, gid(2))]
  assert.deepEqual(found(), [5, 2, -1])
  assert.equal(getGid(gids, 5).type, ROCE_V2)
  setGid(gids, 5, undefined)
  assert.deepEqual(found(), [2, 2, -1])
})

test('queryGidTable returns the filled entries, and fails if there are more than `max`', () => {
  const { device, context, caller } = openTestDevice()
  setGid(device.ports[0].gids, 0, { gid: gid(1), type: ROCE_V2, ifindex: 1 })
  setGid(device.ports[0].gids, 4, { gid: gid(2), type: ROCE_V2, ifindex: 1 })
  const table = (args: { max?: number }) => invokeNow(context, Device, 'queryGidTable', 0, args, caller).out.entries
  assert.deepEqual(
    table({}).map(({ index, port }) => [index, port]),
    [
      [0, 1],
      [4, 1],
    ],
  )
  assert.equal(table({ max: 2 }).length, 2)
  assert.equal(
    errnoOf(() => table({ max: 1 })),
    'EINVAL',
  )
})

test('queryHandles returns at most `max` handles of the classes, newest object first', () => {
  const { device, context, caller } = openTestDevice()
  const handles = (ids: number[], max?: number) =>
    invokeNow(
      context,
      Device,
      'queryHandles',
      0,
      { classes: ids.map(id => ({ id })), ...(max === undefined ? {} : { max }) },
      caller,
    ).out.handles.map(({ handle }) => handle)
  for (let i = 0; i < 3; i++) invokeNow(context, Pd, 'create', 0, {}, caller)
  invokeNow(context, Cq, 'create', 0, { cqe: 1, userHandle: 0n, compVector: 0 }, caller)
  invokeNow(context, Pd, 'destroy', 0, {}, caller)
  invokeNow(context, Pd, 'create', 0, {}, caller)
  // The newest PD has the freed handle 0; the CQ has handle 3.
  assert.deepEqual(handles([Pd.id]), [0, 2, 1])
  assert.deepEqual(handles([Pd.id, Cq.id]), [0, 3, 2, 1])
  assert.deepEqual(handles([Pd.id], 2), [0, 2])
  assert.deepEqual(handles([]), [])
  invokeNow(openContext(device, { isOpened: true }), Pd, 'create', 0, {}, caller)
  assert.deepEqual(handles([Pd.id]), [0, 2, 1])
})

test("a query returns a copy of the driver's description", () => {
  const { device, context, caller } = openTestDevice()
  const { attributes, extended } = invokeNow(context, Device, 'query', 0, {}, caller).out
  assert.deepEqual([attributes, extended], [device.attributes, device.extended])
  attributes.maxQp = 99
  assert.equal(device.attributes.maxQp, 0)
  attributes.nodeGuid.fill(1)
  attributes.sysImageGuid.fill(1)
  assert.deepEqual([device.attributes.nodeGuid, device.attributes.sysImageGuid], [new Uint8Array(8), new Uint8Array(8)])
  device.ports[0].attributes.state = PortState.values.ACTIVE
  assert.equal(invokeNow(context, Port, 'query', 1, {}, caller).out.attributes.state, PortState.values.ACTIVE)
})

test('a query of an event descriptor returns its sources and its number of unread events', () => {
  const setup = openTestDevice()
  const { context, caller } = setup
  const fd = (cls: typeof CompChannel | typeof AsyncFd | typeof EventQueue): FdObject =>
    install(setup, invokeNow(context, cls as typeof AsyncFd, 'create', 0, {}, caller))
  const [first, second, channel, otherChannel, queue] = [AsyncFd, AsyncFd, CompChannel, CompChannel, EventQueue].map(fd)
  const cq = (channelFd: FdObject) => {
    const args = { cqe: 4, userHandle: 7n, compVector: 0, channel: channelFd.handle }
    return context.handles.slots[invokeNow(context, Cq, 'create', 0, args, caller).object!]!
  }
  const [firstCq, secondCq] = [cq(channel), cq(channel)]
  const query = <C extends typeof CompChannel | typeof AsyncFd | typeof EventQueue>(cls: C, fdObject: FdObject) =>
    ({ ...invokeNow(context, cls as typeof EventQueue, 'query', fdObject.handle, {}, caller).out }) as object
  /** Arms the CQ for any completion, and reports one. */
  const complete = (armed: typeof firstCq) => {
    arm(armed, false)
    completed(armed.events!, false)
  }
  for (const source of [firstCq, firstCq, secondCq]) complete(source)
  raiseObjectEvent(secondCq, AsyncEventType.values.CQ_ERR)
  const cqs = [{ handle: firstCq.handle }, { handle: secondCq.handle }]
  assert.deepEqual(query(CompChannel, channel), { cqs, unread: 3 })
  assert.deepEqual(query(CompChannel, otherChannel), { cqs: [], unread: 0 })
  assert.deepEqual(query(AsyncFd, first), { unread: 1, isDefault: 1 })
  assert.deepEqual(query(AsyncFd, second), { unread: 0, isDefault: 0 })
  readEvents(channel, 2)
  invokeNow(context, EventQueue, 'attach', queue.handle, { cookie: 9n, cq: secondCq.handle }, caller)
  complete(secondCq)
  const attached = [{ cookie: 9n, object: secondCq.handle, class: Cq.id }]
  assert.deepEqual(query(EventQueue, queue), { attached, unread: 1 })
  assert.deepEqual(query(CompChannel, channel), { cqs, unread: 1 })
})
