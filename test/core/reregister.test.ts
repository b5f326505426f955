/*
 * Re-registration of memory (IBA 10.6.3) with mr.modify.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addressLo, bindWindow, driverClass, invoke, invokeNow, resolve } from '../../src/core/index.ts'
import { ExtendedDeviceAttributes } from '../../src/spec/classes/device/device.ts'
import { Classes } from '../../src/spec/classes.ts'
import { AccessFlags, MrKind, MwType } from '../../src/spec/enums.ts'
import { CallError } from '../../src/spec/errno.ts'
import { zeroRecord } from '../../src/spec/schema/schema.ts'
import { errnoOf, openTestDevice, testClasses, testDriver } from './fixture.ts'

const { pd: Pd, mr: Mr, mw: Mw, dm: Dm } = Classes
const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, MW_BIND, ON_DEMAND, ZERO_BASED, FLUSH_PERSISTENT } = AccessFlags.values

/** An arbitrary QP number: only windows are checked against it. */
const QP = 17
/** A bit that is no access flag. */
const UNKNOWN_BIT = 1 << 19

const setUp = (access: number = LOCAL_WRITE | REMOTE_READ, options: Parameters<typeof openTestDevice>[0] = {}) => {
  const setup = openTestDevice(options)
  const { context, caller, device } = setup
  // PDs 0 and 1
  invokeNow(context, Pd, 'create', 0, {}, caller)
  invokeNow(context, Pd, 'create', 0, {}, caller)
  const [first, second] = [new Uint8Array(8192), new Uint8Array(4096)].map(bytes => BigInt(caller.memory.add(bytes)))
  const mr = invokeNow(context, Mr, 'create', 0, { pd: 0, start: first, length: 8192n, iova: first, access }, caller)
  const { lkey } = mr.out as { lkey: number }
  type Change = Parameters<typeof invokeNow<typeof Mr, 'modify'>>[4]
  const modify = (args: Change) => invokeNow(context, Mr, 'modify', mr.object!, args, caller).out
  const pdId = (handle: number) => context.handles.slots[handle]!.id
  /**
   * The region's row in the memory table, for an access with its lkey by a queue pair of the PD; -1 if the access is
   * refused.
   */
  const rowFor = (start: bigint, length: number, rights: number, pd = 0): number =>
    resolve(device.memory, pdId(pd), lkey, Number(start >> 32n), Number(start & 0xffffffffn), length, rights, QP)
  const errno = (args: Change) => errnoOf(() => modify(args))
  return { ...setup, mr, lkey, first, second, modify, rowFor, errno }
}

test('a change of rights can change the rkey', () => {
  const { modify, rowFor, first, lkey } = setUp()
  assert.deepEqual({ ...modify({ access: LOCAL_WRITE }) }, { lkey, rkey: 0 })
  assert.equal(rowFor(first, 1, REMOTE_READ), -1)
  assert.deepEqual({ ...modify({ access: LOCAL_WRITE | REMOTE_WRITE }) }, { lkey, rkey: lkey })
  assert.ok(rowFor(first, 8192, REMOTE_WRITE) >= 0)
})

test('a new translation moves a region to other memory', () => {
  const { modify, rowFor, first, second, device } = setUp()
  modify({ translation: { start: second, length: 100n, iova: 0x5000n } })
  assert.equal(rowFor(first, 1, 0), -1)
  const row = rowFor(0x5000n, 100, REMOTE_READ)
  assert.ok(row >= 0)
  assert.equal(rowFor(0x5000n, 101, 0), -1)
  assert.equal(addressLo(device.memory, row, 0x5003), Number((second + 3n) & 0xffffffffn))
  assert.deepEqual(device.memory.spaceUses, [1], 'one region uses the caller’s address space, as before')
})

test('a region in a new protection domain keeps the new domain busy, and no longer the old domain', () => {
  const { modify, rowFor, first, context, caller } = setUp()
  modify({ pd: 1 })
  assert.equal(rowFor(first, 1, 0, 0), -1)
  assert.ok(rowFor(first, 1, 0, 1) >= 0)
  const destroy = (pd: number) => errnoOf(() => invokeNow(context, Pd, 'destroy', pd, {}, caller))
  assert.equal(destroy(1), 'EBUSY')
  assert.equal(destroy(0), 'ok')
})

test('a region that moves to other protection domains keeps its device memory in use', () => {
  const dmClass = driverClass(Dm, { create: () => ({}), destroy: () => ({}) })
  const otherClasses = testClasses.filter(({ class: { name } }) => name !== 'dm')
  const { context, caller } = openTestDevice({}, testDriver([...otherClasses, dmClass]))
  for (let pd = 0; pd < 3; pd++) invokeNow(context, Pd, 'create', 0, {}, caller)
  const dm = invokeNow(context, Dm, 'create', 0, { length: 4096n, alignment: 0 }, caller).object!
  const range = { start: 0n, length: 4096n, iova: 0n, access: LOCAL_WRITE }
  // Core itself has no device memory: the kind does not matter here.
  const args = { pd: 0, dm, kind: MrKind.values.NULL, ...range }
  const mr = invokeNow(context, Mr, 'create', 0, args, caller).object!
  for (const pd of [1, 2]) invokeNow(context, Mr, 'modify', mr, { pd }, caller)
  assert.equal(
    errnoOf(() => invokeNow(context, Dm, 'destroy', dm, {}, caller)),
    'EBUSY',
  )
  const destroyPd = (pd: number) => errnoOf(() => invokeNow(context, Pd, 'destroy', pd, {}, caller))
  assert.deepEqual([0, 1, 2].map(destroyPd), ['ok', 'ok', 'EBUSY'])
})

test('one call can change rights, translation and protection domain', () => {
  const { modify, rowFor, second } = setUp()
  const translation = { start: second, length: 4096n, iova: second }
  modify({ translation, pd: 1, access: REMOTE_READ | ZERO_BASED })
  assert.ok(rowFor(0n, 4096, REMOTE_READ, 1) >= 0)
  // Without ZERO_BASED the iova counts again.
  modify({ access: REMOTE_READ })
  assert.equal(rowFor(0n, 1, REMOTE_READ, 1), -1)
  assert.ok(rowFor(second, 4096, REMOTE_READ, 1) >= 0)
})

test('a refused call leaves the region unchanged', () => {
  const { errno, rowFor, first, second } = setUp()
  assert.equal(errno({}), 'EINVAL')
  assert.equal(errno({ access: REMOTE_WRITE }), 'EINVAL', 'without LOCAL_WRITE')
  assert.equal(errno({ access: UNKNOWN_BIT }), 'EINVAL')
  assert.equal(errno({ access: FLUSH_PERSISTENT }), 'EINVAL', 'memory of a process is not persistent')
  assert.equal(errno({ pd: 99 }), 'ENOENT')
  assert.equal(
    errno({ translation: { start: second, length: 4096n, iova: second + 8n } }),
    'EINVAL',
    'another page offset',
  )
  assert.equal(
    errno({ translation: { start: second, length: 4097n, iova: second }, access: 0 }),
    'EFAULT',
    'past the memory',
  )
  assert.equal(errno({ translation: { start: second, length: 0n, iova: second } }), 'EINVAL', 'no bytes')
  assert.ok(rowFor(first, 8192, LOCAL_WRITE | REMOTE_READ) >= 0)
})

const createWindow = ({ context, caller }: ReturnType<typeof setUp>) =>
  invokeNow(context, Mw, 'create', 0, { pd: 0, type: MwType.values.TYPE_1 }, caller)

/** Binds a window to the first 8 bytes of the region. */
const bindToRegion = (
  { context, device, lkey, first }: ReturnType<typeof setUp>,
  { out }: ReturnType<typeof createWindow>,
) => {
  const window = (out as { rkey: number }).rkey
  const range = { hi: Number(first >> 32n), lo: Number(first & 0xffffffffn), lengthHi: 0, lengthLo: 8 }
  const pd = context.handles.slots[0]!.id
  return bindWindow(device.memory, pd, QP, { window, key: 1, lkey, ...range, access: REMOTE_READ })
}

test('a region with a bound window cannot be changed', () => {
  const setup = setUp(LOCAL_WRITE | MW_BIND)
  const { errno, context, caller } = setup
  const mw = createWindow(setup)
  assert.ok(bindToRegion(setup, mw))
  assert.equal(errno({ access: LOCAL_WRITE }), 'EBUSY')
  invokeNow(context, Mw, 'destroy', mw.object!, {}, caller)
  assert.equal(errno({ access: LOCAL_WRITE }), 'ok')
})

test('unchanged pages are not checked again: the program that registered them may have exited', () => {
  const { caller, first, modify, errno, lkey } = setUp(REMOTE_READ)
  caller.memory.remove(Number(first))
  assert.deepEqual({ ...modify({ access: 0 }) }, { lkey, rkey: 0 })
  assert.deepEqual({ ...modify({ access: REMOTE_READ, pd: 1 }) }, { lkey, rkey: lkey })
  // A region that becomes writable is checked.
  assert.equal(errno({ access: LOCAL_WRITE }), 'EFAULT')
})

test('a range that reaches the last page of the address space is EINVAL, an unmapped one EFAULT', () => {
  const { errno, first } = setUp()
  const end = 2n ** 64n
  const errnoAt = (start: bigint, length: bigint, iova = start) => errno({ translation: { start, length, iova } })
  assert.deepEqual(
    [errnoAt(end - 8192n, 4096n), errnoAt(end - 8192n, 4097n), errnoAt(end - 4096n, 4096n), errnoAt(end - 1n, 1n)],
    ['EFAULT', 'EINVAL', 'EINVAL', 'EINVAL'],
  )
  // The iova may be in the last page, but its range must end before the end of the address space.
  assert.deepEqual([errnoAt(first, 4095n, end - 4096n), errnoAt(first, 4096n, end - 4096n)], ['ok', 'EINVAL'])
})

test('a window that is bound while the pages are checked refuses the change', async () => {
  const setup = setUp(LOCAL_WRITE | MW_BIND)
  const { context, caller, mr, second } = setup
  const mw = createWindow(setup)
  // The call completes asynchronously.
  caller.memory.prepareCheck = () => Promise.resolve()
  const translation = { start: second, length: 64n, iova: second }
  const modifying = invoke(context, Mr, 'modify', mr.object!, { translation }, caller)
  assert.ok(bindToRegion(setup, mw))
  await assert.rejects(async () => modifying, { code: 'EBUSY' })
})

/** A region at `second` on a device with on-demand paging; the caller's address space records the pinned ranges. */
const setUpWithPaging = (access: number) => {
  const registered: { start: number; length: number; unmap: () => void }[] = []
  let isFull = false
  const extended = { ...zeroRecord(ExtendedDeviceAttributes), odpGeneralCaps: 1n }
  const setup = setUp(LOCAL_WRITE | REMOTE_READ, { extended })
  const { memory } = setup.caller
  memory.register = (hi, lo, length, unmap) => {
    if (isFull) throw new CallError('ENOMEM', 'the limit of locked memory')
    const range = { start: hi * 2 ** 32 + lo, length, unmap }
    registered.push(range)
    return () => {
      const index = registered.indexOf(range)
      assert.ok(index >= 0, 'a registration ends once')
      registered.splice(index, 1)
    }
  }
  setup.modify({ translation: { start: setup.second, length: 4096n, iova: setup.second }, access })
  const ranges = () => registered.map(({ start, length }) => [BigInt(start), length])
  const destroy = () => invokeNow(setup.context, Mr, 'destroy', setup.mr.object!, {}, setup.caller)
  const setFull = (full: boolean): void => {
    isFull = full
  }
  return { ...setup, registered, ranges, destroy, setFull }
}

test('a region that ceases to be on demand is pinned in the caller’s address space', () => {
  const { modify, second, ranges, registered, lkey, device, rowFor, destroy } = setUpWithPaging(LOCAL_WRITE | ON_DEMAND)
  assert.deepEqual(ranges(), [])
  assert.deepEqual({ ...modify({ access: LOCAL_WRITE }) }, { lkey, rkey: 0 })
  assert.deepEqual(ranges(), [[second, 4096]])
  registered[0]!.unmap()
  const space = device.memory.spaces[device.memory.space[rowFor(second, 1, 0)]!]!
  const to = { address: 0, bytes: new Uint8Array(1), view: null as never }
  assert.notEqual(space.read(0, 0, to, 0, 1, 1, 1), 0, 'after the unmap every read is refused')
  destroy()
  assert.deepEqual(ranges(), [])
})

test('a region that gets no key is not pinned in the caller’s address space', () => {
  const { context, caller, device, second, ranges } = setUpWithPaging(LOCAL_WRITE | ON_DEMAND)
  // All keys are in use.
  device.memory.liveKeys = 2 ** 24 - 1
  const args = { pd: 0, start: second, length: 64n, iova: second, access: LOCAL_WRITE }
  assert.equal(
    errnoOf(() => invokeNow(context, Mr, 'create', 0, args, caller)),
    'ENOMEM',
  )
  assert.deepEqual(ranges(), [])
})

test('a region that becomes on demand is no longer pinned in the caller’s address space', () => {
  const change = setUpWithPaging(LOCAL_WRITE)
  change.modify({ access: LOCAL_WRITE | ON_DEMAND })
  assert.deepEqual(change.ranges(), [])
  change.destroy()
  const { second, ...move } = setUpWithPaging(LOCAL_WRITE)
  move.modify({ translation: { start: second, length: 64n, iova: second }, access: ON_DEMAND })
  assert.deepEqual(move.ranges(), [])
  move.destroy()
})

test('a region stays on demand if its pages are gone or cannot be locked', () => {
  const { errno, caller, second, ranges, setFull, rowFor } = setUpWithPaging(LOCAL_WRITE | ON_DEMAND)
  setFull(true)
  assert.equal(errno({ access: LOCAL_WRITE }), 'ENOMEM')
  setFull(false)
  caller.memory.remove(Number(second))
  assert.equal(errno({ access: LOCAL_WRITE }), 'EFAULT')
  assert.ok(rowFor(second, 1, LOCAL_WRITE) >= 0)
  assert.deepEqual(ranges(), [])
})

test('the memory learns that peers may write to it, once for each range', () => {
  const { caller, first, second, modify } = setUp(LOCAL_WRITE)
  const shared: (readonly [start: bigint, length: number])[] = []
  caller.memory.share = (hi, lo, length) => void shared.push([BigInt(hi * 2 ** 32 + lo), length])
  modify({ access: LOCAL_WRITE | REMOTE_READ })
  assert.deepEqual(shared, [])
  modify({ access: LOCAL_WRITE | REMOTE_WRITE })
  modify({ access: LOCAL_WRITE | REMOTE_WRITE | MW_BIND, pd: 1 })
  assert.deepEqual(shared, [[first, 8192]])
  modify({ translation: { start: second, length: 64n, iova: second } })
  assert.deepEqual(shared.slice(1), [[second, 64]])
})
