/*
 * Memory windows in core (IBA 10.6.7).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  addressHi,
  addressLo,
  closeContext,
  findKey,
  invokeNow,
  noMemory,
  resolve,
  stat,
} from '../../../src/core/index.ts'
import { nullMemory } from '../../../src/core/memory/address-space.ts'
import { addRegion, createMemoryTable, KeyKind, relocateRegion } from '../../../src/core/memory/region-table.ts'
import {
  addWindow,
  type Bind,
  bindWindow,
  Invalidated,
  invalidateWindow,
  removeRegion,
  removeWindow,
  unbindWindowsOf,
  unmapRegion,
} from '../../../src/core/memory/windows.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { AccessFlags, MwType } from '../../../src/spec/enums.ts'
import { errnoOf, openTestDevice } from '../fixture.ts'

const { pd: Pd, mr: Mr, mw: Mw } = Classes
const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC, MW_BIND, ZERO_BASED } = AccessFlags.values
const { FLUSH_GLOBAL, FLUSH_PERSISTENT, RELAXED_ORDERING } = AccessFlags.values
const { TYPE_1, TYPE_2 } = MwType.values
const { DONE, NOT_BOUND, OTHER_QP } = Invalidated
const REGION_ACCESS = LOCAL_WRITE | MW_BIND
const PD = 7
const QP = 17
const HI = 0x7f01
const LO = 0xffff_f000
const START = 0x3_ffff_ffc0n

/** The rows of a linked list, ascending. A link is the row plus 1. */
const listed = (first: number, next: Int32Array): number[] => {
  const rows: number[] = []
  for (let link = first; link !== 0; link = next[link - 1]) rows.push(link - 1)
  return rows.sort((a, b) => a - b)
}

/**
 * A window, and a region of 8192 bytes at HI:LO. The IOVA of the region crosses a 4 GiB boundary after 4096 bytes, its
 * memory at START after 64 bytes.
 */
const setUp = (type: number, access: number = REGION_ACCESS) => {
  const table = createMemoryTable(() => 0)
  const region = addRegion(table, PD, START, (BigInt(HI) << 32n) | BigInt(LO), 8192, access, noMemory)
  const window = addWindow(table, PD, type)
  const lkey = table.key[region]
  const request: Omit<Bind, 'window'> = {
    key: 0x55,
    lkey,
    hi: HI,
    lo: LO + 100,
    lengthHi: 0,
    lengthLo: 50,
    access: REMOTE_WRITE | REMOTE_READ,
  }
  const bind = (change: Partial<Bind> = {}, qp = QP, pd = PD): boolean =>
    bindWindow(table, pd, qp, { ...request, window: table.key[window], ...change })
  const isAccessible = (lo: number, length: number, rights = REMOTE_WRITE, qp = QP, pd = PD): boolean =>
    resolve(table, pd, table.key[window], HI, lo, length, rights, qp) === window
  return { table, region, window, lkey, bind, isAccessible }
}

test('a bound window grants exactly its range and rights, an unbound window nothing', () => {
  for (const type of [TYPE_1, TYPE_2]) {
    const { bind, isAccessible, table, window } = setUp(type)
    assert.equal(isAccessible(0, 0), false)
    assert.equal(bind(), true)
    assert.equal(table.key[window] & 0xff, 0x55)
    assert.equal(isAccessible(LO + 100, 50), true)
    assert.equal(isAccessible(LO + 100, 50, REMOTE_READ), true)
    assert.equal(isAccessible(LO + 99, 1), false)
    assert.equal(isAccessible(LO + 100, 51), false)
    assert.equal(isAccessible(LO + 100, 8, REMOTE_ATOMIC), false)
    assert.equal(isAccessible(LO + 100, 50, REMOTE_WRITE, QP, PD + 1), false)
    assert.equal(addressLo(table, window, LO + 110), 110 - 64)
    assert.equal(addressHi(table, window, HI, LO + 110), 4)
  }
})

test("a window's key is not valid as an lkey, whatever its rights", () => {
  const { bind, isAccessible } = setUp(TYPE_1)
  assert.equal(bind({ access: REMOTE_WRITE | LOCAL_WRITE }), true, 'LOCAL_WRITE is accepted')
  assert.equal(isAccessible(LO + 100, 50, LOCAL_WRITE), false)
  assert.equal(isAccessible(LO + 100, 50, 0), false)
})

test('a type 1 window serves all queue pairs of its domain, a type 2 window the queue pair that bound it', () => {
  const type1 = setUp(TYPE_1)
  type1.bind()
  assert.equal(type1.isAccessible(LO + 100, 50, REMOTE_WRITE, QP + 1), true)
  const type2 = setUp(TYPE_2)
  type2.bind()
  assert.equal(type2.isAccessible(LO + 100, 50, REMOTE_WRITE, QP), true)
  assert.equal(type2.isAccessible(LO + 100, 50, REMOTE_WRITE, QP + 1), false)
})

test('a bind of a type 1 window ends the previous binding, and a bind with length 0 unbinds the window', () => {
  const { bind, isAccessible, table, window, region } = setUp(TYPE_1)
  bind()
  const old = table.key[window]
  assert.equal(bind({ lo: LO + 4000, lengthLo: 8, key: 0x56 }), true)
  assert.equal(findKey(table, old), -1)
  assert.equal(isAccessible(LO + 100, 1), false)
  assert.equal(isAccessible(LO + 4000, 8), true)
  assert.equal(table.boundWindows[region], 1)
  assert.equal(bind({ window: old, lo: LO + 4000, lengthLo: 8, key: 0x58 }), true, 'a bind names the window by any key')
  assert.equal(bind({ window: old + 0x100 }), false, 'the key of no window')
  assert.equal(bind({ lengthLo: 0, key: 0x57, lkey: 0 }), true)
  assert.equal(isAccessible(LO + 4000, 0), false)
  assert.equal(table.boundWindows[region], 0)
})

test('a type 2 window cannot be bound twice (o10-37.2.30), nor with length 0 (o10-37.2.40)', () => {
  const { bind, isAccessible } = setUp(TYPE_2)
  assert.equal(bind({ lengthLo: 0 }), false)
  assert.equal(bind(), true)
  assert.equal(bind({ key: 0x66 }), false)
  assert.equal(isAccessible(LO + 100, 50), true, 'a refused bind changes nothing')
})

test('a bind with a wrong domain, region, range or right is refused (C10-72 to C10-75)', () => {
  for (const type of [TYPE_1, TYPE_2]) {
    const unbound = setUp(type)
    assert.equal(unbound.bind({}, QP, PD + 1), false, 'queue pair of another domain')
    assert.equal(unbound.bind({ lkey: unbound.lkey ^ 1 }), false)
    assert.equal(unbound.bind({ lkey: unbound.table.key[unbound.window] }), false, 'a window instead of a region')
    assert.equal(unbound.bind({ window: unbound.lkey }), false, 'a region instead of a window')
    assert.equal(unbound.bind({ lo: LO - 1 }), false)
    assert.equal(unbound.bind({ lengthLo: 8192 - 100 + 1 }), false)
    assert.equal(unbound.bind({ lengthHi: 1, lengthLo: 0 }), false)
    assert.equal(unbound.bind({ hi: HI + 1, lo: 0, lengthLo: 4097 }), false)
    assert.equal(unbound.bind({ access: RELAXED_ORDERING }), false, 'only rights of the peer')
    assert.equal(unbound.bind({ access: REMOTE_READ | FLUSH_PERSISTENT }), false, 'memory is not persistent')
    assert.equal(setUp(type, LOCAL_WRITE).bind(), false, 'C10-73: a region without MW_BIND')
    assert.equal(setUp(type, MW_BIND).bind(), false, 'C10-74: writing without local write')
    assert.equal(setUp(type, MW_BIND).bind({ access: REMOTE_ATOMIC }), false, 'C10-74: atomics without local write')
    assert.equal(setUp(type, MW_BIND).bind({ access: REMOTE_READ | FLUSH_GLOBAL }), true)
    assert.equal(unbound.bind({ hi: HI + 1, lo: 0, lengthLo: 4096 }), true, 'up to the end, beyond 4 GiB')
  }
  const { table, bind } = setUp(TYPE_2)
  const other = addRegion(table, PD + 1, 0n, 0n, 8192, REGION_ACCESS, noMemory)
  assert.equal(bind({ lkey: table.key[other], hi: 0, lo: 0 }), false, 'region of another domain')
  const foreign = addWindow(table, PD + 1, TYPE_2)
  assert.equal(bind({ window: table.key[foreign] }), false, 'window of another domain')
})

test('after the memory of a region is unmapped, accesses through its bound windows fault too', () => {
  const { table, bind, region, window } = setUp(TYPE_1)
  const second = addWindow(table, PD, TYPE_2)
  // The region of setUp is in noMemory from the start, where every access faults.
  relocateRegion(table, region, START, (BigInt(HI) << 32n) | BigInt(LO), 8192, nullMemory)
  bind()
  bind({ window: table.key[second] })
  const spaces = () => [region, window, second].map(row => table.spaces[table.space[row]!])
  assert.deepEqual(spaces(), [nullMemory, nullMemory, nullMemory])
  unmapRegion(table, region)
  assert.deepEqual(spaces(), [noMemory, noMemory, noMemory])
})

test('only a type 2 window may be zero-based (o10-36.2.2)', () => {
  assert.equal(setUp(TYPE_1).bind({ access: REMOTE_READ | ZERO_BASED }), false)
  const { bind, table, window } = setUp(TYPE_2)
  assert.equal(bind({ access: REMOTE_READ | ZERO_BASED }), true)
  const key = table.key[window]
  assert.equal(resolve(table, PD, key, 0, 0, 50, REMOTE_READ, QP), window)
  assert.equal(resolve(table, PD, key, 0, 1, 50, REMOTE_READ, QP), -1)
  assert.equal(addressLo(table, window, 3), 103 - 64)
  assert.equal(addressHi(table, window, 0, 3), 4)
})

test('only a type 2 window that is bound to this queue pair can be invalidated (o10-37.2.26)', () => {
  const type1 = setUp(TYPE_1)
  type1.bind()
  assert.equal(invalidateWindow(type1.table, PD, QP, type1.table.key[type1.window]), NOT_BOUND)
  assert.equal(invalidateWindow(type1.table, PD, QP, type1.lkey), NOT_BOUND, 'a region that was registered by a call')
  const { bind, isAccessible, table, window, region } = setUp(TYPE_2)
  assert.equal(invalidateWindow(table, PD, QP, table.key[window]), NOT_BOUND, 'an unbound window')
  bind()
  assert.equal(invalidateWindow(table, PD, QP + 1, table.key[window]), OTHER_QP)
  assert.equal(invalidateWindow(table, PD + 1, QP, table.key[window]), NOT_BOUND)
  assert.equal(invalidateWindow(table, PD, QP, table.key[window] ^ 1), NOT_BOUND)
  assert.equal(isAccessible(LO + 100, 50), true)
  assert.equal(invalidateWindow(table, PD, QP, table.key[window]), DONE)
  assert.equal(isAccessible(LO + 100, 50), false)
  assert.equal(table.boundWindows[region], 0)
  assert.equal(bind({ key: 0x77 }), true, 'free again')
})

test('a destroyed queue pair frees only the type 2 windows that it bound', () => {
  const { table, bind, isAccessible, window } = setUp(TYPE_2)
  bind()
  unbindWindowsOf(table, QP + 1)
  assert.equal(isAccessible(LO + 100, 50), true)
  unbindWindowsOf(table, QP)
  assert.equal(isAccessible(LO + 100, 50), false)
  assert.equal(bind({}, QP + 1), true)
  removeWindow(table, window)
  assert.deepEqual(table.spaceUses, [1], 'the region uses its space, the window no longer')
})

test('destroying a region ends the rights of the windows bound to it', () => {
  const { table, bind, isAccessible, region, window } = setUp(TYPE_1)
  const second = addWindow(table, PD, TYPE_2)
  bind()
  bind({ window: table.key[second] })
  assert.equal(table.boundWindows[region], 2)
  removeRegion(table, region)
  assert.equal(isAccessible(LO + 100, 50), false)
  assert.deepEqual(table.spaces, [undefined])
  removeWindow(table, second)
  removeWindow(table, window)
  assert.equal(table.liveKeys, 0)
})

test('mw.query returns the binding, and a region with a bound window cannot be deregistered', () => {
  const { context, caller, device } = openTestDevice()
  invokeNow(context, Pd, 'create', 0, {}, caller)
  const start = BigInt(caller.memory.add(new Uint8Array(8192)))
  const mr = invokeNow(
    context,
    Mr,
    'create',
    0,
    { pd: 0, start, length: 8192n, iova: start, access: REGION_ACCESS },
    caller,
  )
  const mw = invokeNow(context, Mw, 'create', 0, { pd: 0, type: TYPE_2 }, caller)
  const { rkey } = mw.out as { rkey: number }
  const counts = Object.values(stat(device.core).devices).find(({ regions }) => regions > 0)
  assert.deepEqual([counts?.regions, counts?.objects.mw], [1, 1])
  const pd = context.handles.slots[0]!.id
  const [hi, lo] = [Number(start >> 32n), Number(start & 0xffffffffn)]
  const { lkey } = mr.out as { lkey: number }
  const request = { window: rkey, key: rkey + 1, lkey, hi, lo, lengthHi: 0, lengthLo: 64, access: REMOTE_READ }
  assert.ok(bindWindow(device.memory, pd, 99, request))
  assert.deepEqual(
    { ...invokeNow(context, Mw, 'query', mw.object!, {}, caller).out },
    {
      rkey: ((rkey & ~0xff) | ((rkey + 1) & 0xff)) >>> 0,
      type: TYPE_2,
      iova: start,
      length: 64n,
      access: REMOTE_READ,
      qpNum: 99,
    },
  )
  assert.equal(
    errnoOf(() => invokeNow(context, Mr, 'destroy', mr.object!, {}, caller)),
    'EBUSY',
  )
  invokeNow(context, Mw, 'destroy', mw.object!, {}, caller)
  assert.equal(
    errnoOf(() => invokeNow(context, Mr, 'destroy', mr.object!, {}, caller)),
    'ok',
  )
  assert.equal(device.memory.liveKeys, 0)
})

test('closing a context destroys regions and the windows bound to them', () => {
  const { context, caller, device, core } = openTestDevice()
  invokeNow(context, Pd, 'create', 0, {}, caller)
  const start = BigInt(caller.memory.add(new Uint8Array(8192)))
  const mw = invokeNow(context, Mw, 'create', 0, { pd: 0, type: TYPE_1 }, caller)
  const mr = invokeNow(
    context,
    Mr,
    'create',
    0,
    { pd: 0, start, length: 8192n, iova: start, access: REGION_ACCESS },
    caller,
  )
  const window = (mw.out as { rkey: number }).rkey
  const { lkey } = mr.out as { lkey: number }
  const range = { hi: Number(start >> 32n), lo: Number(start & 0xffffffffn), lengthHi: 0, lengthLo: 64 }
  const pd = context.handles.slots[0]!.id
  assert.ok(bindWindow(device.memory, pd, 1, { window, key: 1, lkey, ...range, access: REMOTE_READ }))
  closeContext(context)
  assert.equal(core.faults, 0)
  assert.equal(device.memory.liveKeys, 0)
  assert.deepEqual(device.memory.spaces, [undefined])
})

test('random binds, invalidations and frees keep counts and spaces consistent', () => {
  const step = fc.record({
    action: fc.constantFrom('bind', 'bind', 'bind', 'invalidate', 'unbindQp', 'replaceRegion'),
    windowIndex: fc.nat(3),
    regionIndex: fc.nat(3),
    length: fc.nat(200),
    qp: fc.nat(2),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60, size: 'max' }), steps => {
      const table = createMemoryTable(() => 0)
      const regions = [0, 1, 2, 3].map(() => addRegion(table, PD, 0n, 0n, 100, REGION_ACCESS, noMemory))
      const windows = [TYPE_1, TYPE_2, TYPE_1, TYPE_2].map(type => addWindow(table, PD, type))
      for (const { action, windowIndex, regionIndex, length, qp } of steps) {
        const window = table.key[windows[windowIndex]]
        const lkey = table.key[regions[regionIndex]]
        const request = { window, key: length, lkey, hi: 0, lo: 0, lengthHi: 0, lengthLo: length, access: REMOTE_READ }
        if (action === 'bind') bindWindow(table, PD, qp, request)
        else if (action === 'invalidate') invalidateWindow(table, PD, qp, window)
        else if (action === 'unbindQp') unbindWindowsOf(table, qp)
        else {
          removeRegion(table, regions[regionIndex])
          regions[regionIndex] = addRegion(table, PD, 0n, 0n, 100, REGION_ACCESS, noMemory)
        }
        const bound = windows.filter(w => table.windowRegion[w] >= 0)
        const count = bound.length
        assert.equal(
          regions.reduce((sum, region) => sum + table.boundWindows[region], 0),
          count,
        )
        assert.deepEqual(table.spaceUses, [regions.length + count])
        for (const region of regions)
          assert.deepEqual(
            listed(table.firstOfRegion[region], table.nextOfRegion),
            bound.filter(w => table.windowRegion[w] === region),
          )
        for (const number of new Set(steps.map(step => step.qp)))
          assert.deepEqual(
            listed(table.firstOfQp.get(number) ?? 0, table.nextOfQp),
            bound.filter(w => table.kind[w] === KeyKind.WINDOW_2 && table.qp[w] === number),
          )
      }
    }),
  )
})

test('destroying a region or queue pair visits only its own windows', () => {
  const { table, region, window, bind } = setUp(TYPE_2)
  const others = 1000
  for (let i = 0; i < others; i++) {
    const other = addRegion(table, PD, 0n, 0n, 4096, REGION_ACCESS, noMemory)
    const otherWindow = addWindow(table, PD, TYPE_2)
    const range = { key: 1, hi: 0, lo: 0, lengthHi: 0, lengthLo: 8, access: REMOTE_WRITE }
    assert.ok(bindWindow(table, PD, 100 + i, { window: table.key[otherWindow], lkey: table.key[other], ...range }))
  }
  let accesses = 0
  const columns = ['key', 'kind', 'windowRegion', 'qp', 'space', 'firstOfRegion', 'nextOfRegion', 'nextOfQp'] as const
  for (const name of columns)
    table[name] = new Proxy(table[name], {
      get(target, property) {
        accesses++
        return Reflect.get(target, property, target)
      },
    }) as never
  const accessesOf = (body: () => void): number => {
    accesses = 0
    body()
    return accesses
  }
  const maxAccesses = 50
  assert.ok(bind())
  assert.ok(accessesOf(() => unmapRegion(table, region)) < maxAccesses)
  assert.ok(accessesOf(() => unbindWindowsOf(table, QP)) < maxAccesses)
  assert.equal(table.windowRegion[window], -1)
  assert.equal(table.boundWindows[region], 0)
  assert.ok(bind())
  assert.ok(accessesOf(() => removeRegion(table, region)) < maxAccesses)
  assert.equal(table.windowRegion[window], -1)
  assert.ok(accessesOf(() => unbindWindowsOf(table, QP)) < maxAccesses)
  assert.equal(table.firstOfQp.size, others)
})
