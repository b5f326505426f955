/*
 * Memory regions: registration, keys, and the check of accesses.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { explainKey } from '../../../src/core/explain.ts'
import { addressHi, addressLo, findKey, invokeNow, noMemory, resolve } from '../../../src/core/index.ts'
import { createLocalSpace } from '../../../src/core/memory/local-space.ts'
import { addRegion, createMemoryTable, findBuffer, relocateRegion } from '../../../src/core/memory/region-table.ts'
import { removeRegion } from '../../../src/core/memory/windows.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { AccessFlags } from '../../../src/spec/enums.ts'
import { errnoOf, openTestDevice } from '../fixture.ts'

const { pd: Pd, mr: Mr } = Classes
const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC, ON_DEMAND, ZERO_BASED } = AccessFlags.values
const { RELAXED_ORDERING } = AccessFlags.values
/** An arbitrary QP number: only windows are checked against it. */
const QP = 17
const ALL = LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC

/** A bit that is no access flag. */
const UNKNOWN_BIT = 1 << 19

const setUp = () => {
  const setup = openTestDevice()
  invokeNow(setup.context, Pd, 'create', 0, {}, setup.caller)
  const address = BigInt(setup.caller.memory.add(new Uint8Array(16384)))
  const register = (start: bigint, length: bigint, iova: bigint, access: number, pd = 0) =>
    invokeNow(setup.context, Mr, 'create', 0, { pd, start, length, iova, access }, setup.caller)
  const errno = (...args: Parameters<typeof register>) => errnoOf(() => register(...args))
  return { ...setup, address, register, errno }
}

test('registration accepts and refuses the same arguments as Linux (raw.out, every-call.txt in test/fixtures/abi)', () => {
  const { address, errno, register } = setUp()
  assert.equal(errno(address, 8192n, address, LOCAL_WRITE, 99), 'ENOENT')
  assert.equal(errno(address, 8192n, address, ALL), 'ok')
  assert.equal(errno(address, 8192n, 0x100000n + (address % 4096n), ALL), 'ok')
  assert.equal(errno(address, 8192n, address + 8n, ALL), 'EINVAL')
  assert.equal(errno(address, 8192n, address, REMOTE_WRITE), 'EINVAL')
  assert.equal(errno(address, 8192n, address, REMOTE_ATOMIC), 'EINVAL')
  assert.equal(errno(address, 8192n, address, UNKNOWN_BIT), 'EINVAL')
  assert.equal(errno(address, 8192n, address, 2 ** 31), 'EINVAL')
  assert.equal(errno(address, 8192n, address, LOCAL_WRITE | ON_DEMAND), 'EOPNOTSUPP')
  assert.equal(errno(0x10000n, 8192n, 0x10000n, LOCAL_WRITE), 'EFAULT')
  assert.equal(errno(address, 16385n, address, LOCAL_WRITE), 'EFAULT', 'one byte beyond the buffer')
  assert.equal(errno(address + 8n, 0n, address + 8n, LOCAL_WRITE), 'ok')
  assert.equal(errno(address, 0n, address, LOCAL_WRITE), 'EINVAL', 'no page')
  assert.equal(errno(address, 2n ** 64n - 1n, address, LOCAL_WRITE), 'EINVAL')
  const withOptionalFlag = register(address, 8192n, address, LOCAL_WRITE | RELAXED_ORDERING).out
  assert.equal(withOptionalFlag.rkey, 0)
  assert.notEqual(withOptionalFlag.lkey, 0)
})

test('the key of a removed region comes back late, or at once if the table reuses keys', () => {
  const { address, register, device, context, caller } = setUp()
  const again = (): readonly unknown[] => {
    const { object, out } = register(address, 8192n, address, ALL)
    invokeNow(context, Mr, 'destroy', object!, {}, caller)
    return [out.rkey, register(address, 8192n, address, ALL).out.rkey]
  }
  const [first, second] = again()
  assert.notEqual(second, first)
  device.memory.freedKeys = []
  const [newest, reused] = again()
  assert.equal(reused, newest)
})

test('lkey and rkey of a region may differ: each is for its requests alone, whatever the region becomes', () => {
  const { address, register, device, context, caller } = setUp()
  const table = device.memory
  table.separatesKeys = () => true
  const pd = invokeNow(context, Pd, 'create', 0, {}, caller).object!
  const { object, out } = register(address, 8192n, address, ALL, pd)
  const [lkey, rkey] = [Number(out.lkey), Number(out.rkey)]
  assert.notEqual(lkey, rkey)
  const [hi, lo] = [Number(address >> 32n), Number(address & 0xffff_ffffn)]
  const row = findKey(table, lkey)
  const allows = (key: number, access: number): boolean =>
    resolve(table, table.pd[row]!, key, hi, lo, 8, access, QP) >= 0
  const allowed = () =>
    [0, LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE].map(access => [allows(lkey, access), allows(rkey, access)])
  assert.deepEqual(allowed(), [
    [true, false],
    [true, false],
    [false, true],
    [false, true],
  ])
  const causeOf = (key: number, access: number): unknown =>
    explainKey(table, table.pd[row]!, key, hi, lo, 8, access, QP)?.id
  assert.deepEqual([causeOf(lkey, REMOTE_WRITE), causeOf(rkey, LOCAL_WRITE)], ['RKEY_UNKNOWN', 'LKEY_UNKNOWN'])
  const changed = invokeNow(context, Mr, 'modify', object!, { access: LOCAL_WRITE | REMOTE_READ }, caller).out
  assert.deepEqual(changed, { lkey, rkey })
  assert.deepEqual([allows(rkey, REMOTE_WRITE), allows(rkey, REMOTE_READ)], [false, true])
  const moved = address + 4096n
  invokeNow(context, Mr, 'modify', object!, { translation: { start: moved, length: 4096n, iova: moved } }, caller)
  assert.deepEqual([allows(lkey, 0), allows(rkey, REMOTE_READ)], [false, false])
  invokeNow(context, Mr, 'destroy', object!, {}, caller)
  assert.equal(causeOf(rkey, REMOTE_READ), 'RKEY_DEREGISTERED')
  assert.deepEqual([table.liveKeys, table.spaceUses.reduce((all, uses) => all + uses, 0)], [0, 0])
})

test('registration accepts ZERO_BASED, which Linux 6.12 refuses, and refuses an iova that wraps around', () => {
  const { address, errno } = setUp()
  assert.equal(errno(address, 8192n, address, LOCAL_WRITE | ZERO_BASED), 'ok')
  assert.equal(errno(address, 8192n, 2n ** 64n - 4096n, LOCAL_WRITE), 'EINVAL')
})

test('a range of 2^32 pages or more is refused before its pages are looked at, as on Linux', () => {
  const { address, errno } = setUp()
  assert.equal(errno(address, 2n ** 43n, address, LOCAL_WRITE), 'EFAULT')
  assert.equal(errno(address, 2n ** 60n, address, LOCAL_WRITE), 'EINVAL')
})

test('the rkey equals the lkey if the region has remote access, and is 0 otherwise', () => {
  const { address, register, context, caller } = setUp()
  const both = register(address + 8n, 100n, 8n, ALL)
  assert.equal(both.out.rkey, both.out.lkey)
  const answer = { lkey: both.out.lkey, rkey: both.out.rkey, length: 100n, iova: 8n, kind: 0 }
  assert.deepEqual({ ...invokeNow(context, Mr, 'query', both.object!, {}, caller).out }, answer)
  assert.equal(register(address, 100n, address, LOCAL_WRITE).out.rkey, 0)
})

test('a region keeps its protection domain busy, and the key of a destroyed region is invalid', () => {
  const { address, register, context, device, caller } = setUp()
  const { object, out } = register(address, 4096n, address, ALL)
  const pd = context.handles.slots[0]!.id
  const [hi, lo] = [Number(address >> 32n), Number(address & 0xffff_ffffn)]
  const find = (domain: number) => resolve(device.memory, domain, out.lkey, hi, lo, 4096, ALL, QP)
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'destroy', 0, {}, caller)),
    'EBUSY',
  )
  assert.ok(find(pd) >= 0)
  assert.equal(find(pd + 1), -1)
  invokeNow(context, Mr, 'destroy', object!, {}, caller)
  assert.equal(find(pd), -1)
  assert.equal(findKey(device.memory, out.lkey), -1)
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'destroy', 0, {}, caller)),
    'ok',
  )
  assert.deepEqual(device.memory.spaces, [undefined])
})

test('a registration asks the caller’s memory whether the pages permit the access', () => {
  const setup = setUp()
  const calls: unknown[] = []
  const memory = { ...noMemory, check: (...args: unknown[]) => calls.push(args) > 0 }
  const caller = { ...setup.caller, memory }
  const args = { pd: 0, start: 0xffff_1234_5000n, length: 10n, iova: 0x5000n }
  for (const access of [0, REMOTE_READ, LOCAL_WRITE])
    invokeNow(setup.context, Mr, 'create', 0, { ...args, access }, caller)
  assert.deepEqual(calls, [
    [0xffff, 0x12345000, 10, false],
    [0xffff, 0x12345000, 10, false],
    [0xffff, 0x12345000, 10, true],
  ])
})

test('resolve agrees with arithmetic in BigInt', () => {
  const u64 = fc.oneof(
    fc.bigInt(0n, 2n ** 64n - 1n),
    fc.bigInt(0n, 0x3000n),
    fc.bigInt(2n ** 64n - 0x3000n, 2n ** 64n - 1n),
  )
  const offset = fc.integer({ min: -3, max: 3 })
  fc.assert(
    fc.property(
      u64,
      u64,
      fc.nat(0x2000),
      fc.nat(0x2000),
      offset,
      fc.nat(15),
      fc.nat(15),
      (iova, anywhere, length, size, step, granted, requested) => {
        fc.pre(iova + BigInt(length) < 2n ** 64n)
        const table = createMemoryTable(() => 0)
        const start = 0xffff_fff0n
        const row = addRegion(table, 3, start, iova, length, granted, noMemory)
        const edges = [iova, iova + BigInt(length) - BigInt(size), anywhere].map(
          x => (x + BigInt(step)) & 0xffff_ffff_ffff_ffffn,
        )
        for (const address of edges) {
          const inside = address >= iova && address + BigInt(size) <= iova + BigInt(length)
          const [hi, lo] = [Number(address >> 32n), Number(address & 0xffffffffn)]
          const found = resolve(table, 3, table.key[row], hi, lo, size, requested, QP)
          assert.equal(found, inside && (granted & requested) === requested ? row : -1)
          if (!inside) continue
          const translated = (BigInt(addressHi(table, row, hi, lo)) << 32n) | BigInt(addressLo(table, row, lo))
          assert.equal(translated, start + address - iova)
        }
      },
    ),
    { numRuns: 500 },
  )
})

test('findBuffer, which caches regions, agrees with resolve', () => {
  const SIZE = 4096
  const pick = fc.nat(20)
  const range = fc.record({ at: fc.integer({ min: -2, max: SIZE }), length: fc.nat(SIZE + 2) })
  const rights = fc.nat(15)
  const step = fc.oneof(
    { weight: 2, arbitrary: fc.record({ do: fc.constant('add' as const), pick, range, rights }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('relocate' as const), pick, range, rights }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('remove' as const), pick, range, rights }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('detach' as const), pick, range, rights }) },
    { weight: 6, arbitrary: fc.record({ do: fc.constant('find' as const), pick, range, rights }) },
    { weight: 6, arbitrary: fc.record({ do: fc.constant('findInside' as const), pick, range, rights }) },
  )
  let timesFound = 0
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60, size: 'max' }), steps => {
      const table = createMemoryTable(() => 0)
      const space = createLocalSpace()
      const buffers = [0, 1].map(() => new Uint8Array(SIZE))
      const starts = buffers.map(buffer => space.add(buffer))
      const rows: number[] = []
      /** Keys of all regions ever registered. */
      const keys: number[] = []
      const [found, expected] = [new Float64Array(1), new Float64Array(1)]
      for (const { do: action, pick, range, rights } of steps) {
        const from = Math.max(range.at, 0)
        const length = Math.min(range.length, SIZE - from)
        const start = BigInt(starts[pick & 1] + from)
        if (action === 'add') {
          rows.push(addRegion(table, pick & 3, start, start, length, rights, space))
          keys.push(table.key[rows.at(-1)!])
        } else if (action === 'detach' && buffers[pick & 1].length > 0)
          structuredClone(buffers[pick & 1], { transfer: [buffers[pick & 1].buffer] })
        else if (rows.length === 0) continue
        else if (action === 'remove') removeRegion(table, rows.splice(pick % rows.length, 1)[0])
        else if (action === 'relocate') {
          const row = rows[pick % rows.length]
          relocateRegion(table, row, start, start, length, space)
          table.access[row] = rights
          table.pd[row] = pick & 3
        } else {
          let key = keys[pick % keys.length]
          let address = starts[pick & 1] + range.at
          let bytes = range.length
          let [pd, access] = [range.length & 3, rights]
          if (action === 'findInside') {
            const target = rows[pick % rows.length]
            const offset = from % (table.length[target] + 1)
            key = table.key[target]
            address = table.iovaHi[target] * 2 ** 32 + table.iovaLo[target] + offset
            bytes %= table.length[target] - offset + 1
            pd = table.pd[target]
            access &= table.access[target]
          }
          const [hi, lo] = [Math.floor(address / 2 ** 32), address >>> 0]
          const row = resolve(table, pd, key, hi, lo, bytes, access, QP)
          const buffer = row < 0 ? undefined : space.locate?.(hi, lo, bytes, expected)
          assert.equal(findBuffer(table, pd, key, hi, lo, bytes, access, found), buffer)
          if (buffer === undefined) continue
          assert.equal(found[0], expected[0])
          timesFound++
        }
      }
    }),
    { numRuns: 300 },
  )
  assert.ok(timesFound > 100, `found ${timesFound} times`)
})

test('a registration that fails for lack of memory changes nothing', () => {
  const table = createMemoryTable(() => 0)
  const add = (): number => addRegion(table, 3, 0n, 0n, 64, ALL, noMemory)
  const rows = table.key.length
  for (let i = 0; i < rows; i++) add()
  /** Cannot be copied into a longer array. */
  class Unextendable extends Float64Array {
    constructor(length: number) {
      if (length > rows) throw new RangeError('Array buffer allocation failed')
      super(length)
    }
  }
  const { length } = table
  table.length = new Unextendable(rows)
  assert.throws(add, RangeError)
  table.length = length
  const row = add()
  assert.deepEqual([row, table.rows, table.liveKeys], [rows, rows + 1, rows + 1])
  assert.equal(resolve(table, 3, table.key[row], 0, 0, 64, ALL, QP), row)
  assert.equal(table.spaces[table.space[row]], noMemory)
})

test('the buffer of a region that is destroyed or moved is not retained', () => {
  const table = createMemoryTable(() => 0)
  const space = createLocalSpace()
  const [one, two] = [0, 1].map(() => BigInt(space.add(new Uint8Array(64))))
  const row = addRegion(table, 1, one, one, 64, 0, space)
  const found = new Float64Array(1)
  const find = (at: bigint) =>
    findBuffer(table, 1, table.key[row], Number(at >> 32n), Number(at & 0xffff_ffffn), 64, 0, found)
  const retained = () => table.recent.filter(({ buffer }) => buffer.bytes.length > 0).length
  assert.ok(find(one) !== undefined && retained() === 1)
  relocateRegion(table, row, two, two, 64, space)
  assert.equal(retained(), 0)
  assert.ok(find(one) === undefined && find(two) !== undefined && retained() === 1)
  removeRegion(table, row)
  assert.equal(retained(), 0)
  assert.equal(find(two), undefined)
})

test('a freed key is not reused within 70,000 registrations', () => {
  const table = createMemoryTable(() => 0)
  const kept = [1, 2, 3].map(() => addRegion(table, 1, 0n, 0n, 1, 0, noMemory))
  const seen = new Set<number>()
  for (let i = 0; i < 70_000; i++) {
    const row = addRegion(table, 1, 0n, 0n, 1, 0, noMemory)
    const key = table.key[row]
    assert.ok(key !== 0 && !seen.has(key))
    seen.add(key)
    removeRegion(table, row)
    assert.equal(findKey(table, key), -1)
  }
  for (const row of kept) assert.equal(findKey(table, table.key[row]), row)
  assert.equal(table.liveKeys, 3)
  assert.ok(table.rows <= 4)
  // the page of the live regions and the page of the next key
  assert.equal(table.pages.filter(page => page !== undefined).length, 2)
})

test('after the last index a free index is reused with another key byte', () => {
  const table = createMemoryTable(() => 0)
  const live = addRegion(table, 1, 0n, 0n, 1, 0, noMemory)
  const old = addRegion(table, 1, 0n, 0n, 1, 0, noMemory)
  const oldKey = table.key[old]
  removeRegion(table, old)
  table.nextIndex = 2 ** 24 - 1
  const last = addRegion(table, 1, 0n, 0n, 1, 0, noMemory)
  assert.equal(table.key[last] >>> 8, 2 ** 24 - 1)
  removeRegion(table, last)
  const again = addRegion(table, 1, 0n, 0n, 1, 0, noMemory)
  assert.equal(table.key[again] >>> 8, oldKey >>> 8)
  assert.notEqual(table.key[again], oldKey)
  assert.equal(findKey(table, oldKey), -1)
  assert.equal(findKey(table, table.key[live]), live)
  assert.equal(table.pages.filter(page => page !== undefined).length, 1, 'the page of the last index is freed')
})

test('the table grows, and every key of many regions finds its own region', () => {
  const table = createMemoryTable(() => 0)
  const rows = Array.from({ length: 1000 }, (_, i) => addRegion(table, i, BigInt(i), 0n, i, 1, noMemory))
  for (const [i, row] of rows.entries()) {
    assert.equal(findKey(table, table.key[row]), row)
    assert.deepEqual([table.pd[row], table.startLo[row], table.length[row]], [i, i, i])
  }
  for (const row of rows) removeRegion(table, row)
  assert.equal(table.liveKeys, 0)
  assert.throws(() => removeRegion(table, rows[0]), /free already/)
})

test('the first key and the key bytes come from the random source', () => {
  const keysWith = (...numbers: number[]): number[] => {
    const table = createMemoryTable(() => numbers.shift() ?? 0)
    return [0, 1, 2].map(() => table.key[addRegion(table, 1, 0n, 0n, 1, 0, noMemory)])
  }
  const indices = (keys: readonly number[]): number[] => keys.map(key => key >>> 8)
  const bytes = (keys: readonly number[]): number[] => keys.map(key => key & 0xff)
  assert.deepEqual(indices(keysWith(0)), [1, 2, 3])
  assert.deepEqual(indices(keysWith(0x1234)), [0x1235, 0x1236, 0x1237])
  assert.notDeepEqual(bytes(keysWith(0, 1, 1)), bytes(keysWith(0, 2, 1)))
  assert.notDeepEqual(bytes(keysWith(0, 1, 1)), bytes(keysWith(0, 1, 2)))
})
