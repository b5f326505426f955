/*
 * Reasons for refused keys and binds.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { explainBind, explainKey } from '../../src/core/explain.ts'
import { noMemory, resolve } from '../../src/core/index.ts'
import { addRegion, createMemoryTable } from '../../src/core/memory/region-table.ts'
import { addWindow, type Bind, bindWindow, removeRegion, removeWindow } from '../../src/core/memory/windows.ts'
import { type CauseName, causeText } from '../../src/spec/check/causes.ts'
import { AccessFlags, MwType } from '../../src/spec/enums.ts'

const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, MW_BIND, ZERO_BASED } = AccessFlags.values
const { TYPE_1, TYPE_2 } = MwType.values
const [PD, OTHER_PD, QP] = [7, 8, 17]
const HI = 0x7f01
const REGION_START = 0x7f01_0000_1000n

/** A region of 4096 bytes at REGION_START that a peer may read, and windows of both types. */
const setUp = () => {
  const table = createMemoryTable(() => 0)
  const region = addRegion(table, PD, 0x1000n, REGION_START, 4096, LOCAL_WRITE | REMOTE_READ | MW_BIND, noMemory)
  const key = table.key[region]
  const [window1, window2] = [addWindow(table, PD, TYPE_1), addWindow(table, PD, TYPE_2)]
  const explain = (requestedKey: number, access: number, lo = 0x1000, length = 8, pd = PD) =>
    explainKey(table, pd, requestedKey, HI, lo, length, access, QP)
  return { table, region, key, window1, window2, explain }
}
const hex = (key: number): string => `0x${key.toString(16)}`

test('each refusal of a key has its reason', () => {
  const { table, region, key, window1, window2, explain } = setUp()
  const assertCause = (id: CauseName, text: string, ...args: Parameters<typeof explain>): void => {
    const cause = explain(...args)
    assert.deepEqual([cause?.id, cause && causeText(cause)], [id, text])
  }
  const k = hex(key)
  assertCause('RKEY_OTHER_PD', `rkey ${k} belongs to another protection domain`, key, REMOTE_READ, 0x1000, 8, OTHER_PD)
  assertCause('LKEY_OTHER_PD', `lkey ${k} belongs to another protection domain`, key, 0, 0x1000, 8, OTHER_PD)
  assertCause('RKEY_NO_RIGHT', `rkey ${k} has no REMOTE_WRITE`, key, REMOTE_WRITE)
  const range = '[0x7f0100001ff8, 0x7f0100002008) is outside [0x7f0100001000, 0x7f0100002000)'
  assertCause('RKEY_RANGE', `rkey ${k}: ${range}`, key, REMOTE_READ, 0x1ff8, 16)
  assertCause('LKEY_RANGE', `lkey ${k}: ${range}`, key, LOCAL_WRITE, 0x1ff8, 16)
  const [k1, k2] = [table.key[window1], table.key[window2]]
  assertCause('WINDOW_UNBOUND', `rkey ${hex(k1)} is of a memory window that is not bound`, k1, REMOTE_READ)
  assertCause('LKEY_WINDOW', `lkey ${hex(k1)} is of a memory window, which only peers can use`, k1, 0)
  const bind = { window: k2, key: 1, lkey: key, hi: HI, lo: 0x1000, lengthHi: 0, lengthLo: 8, access: REMOTE_READ }
  assert.ok(bindWindow(table, PD, QP + 1, bind))
  const bound = table.key[window2]
  assertCause(
    'WINDOW_OTHER_QP',
    `rkey ${hex(bound)} is of a memory window that is bound to QP 0x12`,
    bound,
    REMOTE_READ,
  )
  assertCause(
    'RKEY_OLD',
    `rkey ${hex(k2)} is stale: the key of this memory window is now ${hex(bound)}`,
    k2,
    REMOTE_READ,
  )
  removeWindow(table, window2)
  assertCause('WINDOW_DEALLOCATED', `rkey ${hex(bound)} is of a memory window that was deallocated`, bound, REMOTE_READ)
  assertCause('LKEY_WINDOW', `lkey ${hex(bound)} is of a memory window, which only peers can use`, bound, 0)
  const unknown = 'is unknown: it was never registered, or was deregistered long ago'
  assertCause('LKEY_UNKNOWN', `lkey 0x5 ${unknown}`, 5, 0)
  assertCause('RKEY_UNKNOWN', `rkey 0x5 ${unknown}`, 5, REMOTE_READ)
  assertCause('RKEY_UNKNOWN', `rkey 0x0 ${unknown}`, 0, REMOTE_READ)
  removeRegion(table, region)
  const description = 'was deregistered (it was [0x7f0100001000, 0x7f0100002000))'
  assertCause('RKEY_DEREGISTERED', `rkey ${k} ${description}`, key, REMOTE_READ)
  assertCause('LKEY_DEREGISTERED', `lkey ${k} ${description}`, key, 0)
  const local = addRegion(table, PD, REGION_START, REGION_START, 4096, LOCAL_WRITE, noMemory)
  assertCause(
    'RKEY_NONE',
    'rkey 0 is no key: the region with address 0x7f0100001000 was registered without REMOTE_READ',
    0,
    REMOTE_READ,
  )
  const readable = addRegion(table, PD, REGION_START, REGION_START, 4096, REMOTE_READ, noMemory)
  assertCause('RKEY_UNKNOWN', `rkey 0x0 ${unknown}`, 0, REMOTE_READ)
  for (const row of [local, readable]) removeRegion(table, row)
  const readOnly = addRegion(table, PD, 0n, REGION_START, 4096, 0, noMemory)
  assertCause('LKEY_NO_RIGHT', `lkey ${hex(table.key[readOnly])} has no LOCAL_WRITE`, table.key[readOnly], LOCAL_WRITE)
})

test('the last 1024 removed keys are known', () => {
  const { table, region, key, explain } = setUp()
  removeRegion(table, region)
  const next = () => removeRegion(table, addRegion(table, PD, 0n, REGION_START, 4096, REMOTE_READ, noMemory))
  for (let i = 0; i < 1023; i++) next()
  assert.equal(explain(key, REMOTE_READ)?.id, 'RKEY_DEREGISTERED')
  next()
  assert.equal(explain(key, REMOTE_READ)?.id, 'RKEY_UNKNOWN')
})

test('each refusal of a bind has its reason', () => {
  const { table, key, window1, window2 } = setUp()
  const readOnly = addRegion(table, PD, 0n, REGION_START, 4096, REMOTE_READ | MW_BIND, noMemory)
  const unbindable = addRegion(table, PD, 0n, REGION_START, 4096, 0, noMemory)
  const request: Bind = {
    window: table.key[window2],
    key: 1,
    lkey: key,
    hi: HI,
    lo: 0x1000,
    lengthHi: 0,
    lengthLo: 8,
    access: REMOTE_READ,
  }
  const assertCause = (id: CauseName, text: string, change: Partial<Bind>): void => {
    const bind = { ...request, ...change }
    assert.equal(bindWindow(table, PD, QP, bind), false, id)
    const cause = explainBind(table, PD, bind)
    assert.deepEqual([cause?.id, cause && causeText(cause)], [id, text])
  }
  assertCause('BIND_WINDOW', `the protection domain has no memory window ${hex(key)}`, { window: key })
  assertCause('BIND_RIGHTS', 'a window of this type cannot grant ZERO_BASED', {
    window: table.key[window1],
    access: REMOTE_READ | ZERO_BASED,
  })
  assertCause('BIND_LENGTH', 'a type 2 window cannot be bound to 0 bytes', { lengthLo: 0 })
  assertCause('BIND_REGION', 'the protection domain has no region with lkey 0x5', { lkey: 5 })
  const [readOnlyKey, unbindableKey] = [table.key[readOnly], table.key[unbindable]]
  assertCause('BIND_NO_RIGHT', `region ${hex(unbindableKey)} has no MW_BIND`, { lkey: unbindableKey })
  assertCause('BIND_NO_RIGHT', `region ${hex(readOnlyKey)} has no LOCAL_WRITE`, {
    lkey: readOnlyKey,
    access: REMOTE_WRITE,
  })
  const range = '[0x7f0100001ffc, 0x7f0100002004)'
  assertCause('BIND_RANGE', `${range} is outside region ${hex(key)}, [0x7f0100001000, 0x7f0100002000)`, { lo: 0x1ffc })
  assert.ok(bindWindow(table, PD, QP, request))
  const bound = table.key[window2]
  assertCause('BIND_BOUND', `window ${hex(bound)} is bound already; invalidate it first`, { window: bound })
})

test('every refused access has a reason, and an accepted access has none', () => {
  const { table, key, window1, window2 } = setUp()
  const bind = { window: table.key[window2], key: 9, lkey: key, hi: HI, lo: 0x1100, lengthHi: 0, lengthLo: 64 }
  bindWindow(table, PD, QP, { ...bind, access: REMOTE_READ })
  const keys = [key, table.key[window1], table.key[window2], bind.window, 0, 77]
  fc.assert(
    fc.property(
      fc.constantFrom(...keys),
      fc.constantFrom(PD, OTHER_PD),
      fc.constantFrom(QP, QP + 1),
      fc.constantFrom(0, LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE),
      fc.constantFrom(HI - 1, HI, HI + 1),
      fc.integer({ min: 0xff0, max: 0x2010 }),
      fc.integer({ min: 0, max: 5000 }),
      (requestedKey, pd, qp, access, hi, lo, length) => {
        const refused = resolve(table, pd, requestedKey, hi, lo, length, access, qp) < 0
        assert.equal(explainKey(table, pd, requestedKey, hi, lo, length, access, qp) !== undefined, refused)
      },
    ),
  )
})
