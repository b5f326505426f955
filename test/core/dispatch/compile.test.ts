/*
 * Tables of methods, compiled from core's classes and a driver's classes (R5, R19, R20, R22).
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { driverClass, withMethods, withoutOptions } from '../../../src/core/devices/driver.ts'
import { compile, createPool, releaseTable } from '../../../src/core/dispatch/compile.ts'
import { withHooks } from '../../../src/core/dispatch/hooks.ts'
import { findEntry, tableSlots } from '../../../src/core/dispatch/lookup.ts'
import type { Driver, DriverClass } from '../../../src/core/driver-contract.ts'
import { because, the } from '../../../src/spec/reason.ts'
import {
  Block,
  CREATE,
  DESTROY,
  method,
  objectClass,
  optional,
  QUERY,
  ref,
  u32,
} from '../../../src/spec/schema/schema.ts'

const Box = objectClass('box', 4, {
  methods: {
    create: method(CREATE, { in: { size: u32(1) }, out: { size: u32(2) }, driverAttributes: true }),
    query: method(QUERY, { in: {}, out: { size: u32(1) } }),
    destroy: method(DESTROY, { in: {}, out: {} }),
    shake: method(Block.DRIVER_FAST + 2, { in: { box: ref(1, 'box') }, out: {} }),
  },
})
const Cover = objectClass('cover', 9, { methods: { create: method(CREATE, { in: { box: ref(1, 'box') }, out: {} }) } })
const Secret = objectClass('secret', 0x8003, { methods: { create: method(CREATE, { in: {}, out: {} }) } })

const boxCore = driverClass(Box, {
  create: (_call, _object, { size }) => ({ size }),
  query: () => ({ size: 1 }),
  destroy: () => ({}),
})
const coverCore = driverClass(Cover, { create: () => ({}) })
const core = new Map<string, DriverClass>([
  ['box', boxCore],
  ['cover', coverCore],
])
const driver = (...classes: DriverClass[]): Driver => ({ name: 'd', id: 1, classes })
const build = (...classes: DriverClass[]) => compile(createPool(), core, driver(...classes))

test('a class that a driver lists without methods has core’s methods, an unlisted class is absent (R19)', () => {
  const table = build(driverClass(Box))
  assert.equal(findEntry(table, Box.id, CREATE)?.handler, boxCore.handlers.create)
  assert.equal(findEntry(table, Box.id, QUERY)?.handler, boxCore.handlers.query)
  assert.equal(findEntry(table, Cover.id, CREATE), undefined)
  assert.equal(findEntry(table, 77, CREATE), undefined)
  assert.equal(findEntry(table, 0xffff, 255), undefined)
})

test('a driver can replace or remove core’s methods', () => {
  const create = () => ({ size: 7 })
  const table = build(driverClass(Box, { create, query: null }))
  const entry = findEntry(table, Box.id, CREATE)!
  assert.equal(entry.handler, create)
  assert.equal(entry.core, boxCore.handlers.create)
  assert.equal(findEntry(table, Box.id, QUERY), undefined)
  assert.equal(findEntry(table, Box.id, Box.methods.shake.call), undefined)
  assert.deepEqual(Object.keys(table.byName.get('box')!.class.methods), ['create', 'destroy'])
})

test('a driver can add attributes to a common method', () => {
  const table = build(
    driverClass(Box, { create: () => ({ size: 1, hint: 2 }) }, { create: { out: { hint: u32(0x8000) } } }),
  )
  const { method: merged, class: cls } = findEntry(table, Box.id, CREATE)!
  assert.deepEqual(Object.keys(merged.out), ['size', 'hint'])
  assert.equal(cls.methods.create, merged)
  assert.deepEqual(Object.keys(Box.methods.create.out), ['size'])
})

test('private classes have a table of their own (R12, R22)', () => {
  const create = () => ({})
  const table = build(driverClass(Box), driverClass(Secret, { create }))
  assert.equal(findEntry(table, 0x8003, CREATE)?.handler, create)
  assert.equal(findEntry(table, 3, CREATE), undefined)
  assert.equal(table.common.length, Box.id + 1)
  assert.equal(table.private.length, 4)
})

test('a driver can add methods to a common class', () => {
  const open = () => ({})
  const extra = { open: method(Block.DRIVER_FAST + 5, { in: {}, out: {} }) }
  const table = build(withMethods(driverClass(Box), extra, { open }))
  assert.equal(findEntry(table, Box.id, Block.DRIVER_FAST + 5)?.handler, open)
  assert.equal(findEntry(table, Box.id, CREATE)?.handler, boxCore.handlers.create)
})

test('a driver can add experimental methods, but no methods below DRIVER_FAST or in reserved blocks (R5)', () => {
  const open = () => ({})
  const buildWithMethod = (call: number) =>
    build(withMethods(driverClass(Box), { open: method(call, { in: {}, out: {} }) }, { open }))
  const { blocks } = buildWithMethod(Block.EXPERIMENTAL + 1).byName.get('box')!
  const experimental = blocks[Block.EXPERIMENTAL / 32]
  assert.equal(experimental?.[1]?.handler, open)
  assert.equal(experimental?.length, 2)
  for (const call of [DESTROY + 2, Block.MANAGEMENT, Block.DRIVER_FAST - 1])
    assert.throws(
      () => buildWithMethod(call),
      /driver d: box\.open has call number \d+; a driver's own methods start at 64/,
    )
  assert.throws(() => buildWithMethod(Block.RESERVED), /box\.open: call number 128 is not in 0\.\.127; .*reserved/)
})

test('an optional argument that a driver does not support is absent, and refused with the reason', () => {
  const Pot = objectClass('pot', 0x8001, {
    methods: { create: method(CREATE, { in: { size: u32(1), cover: optional(u32(2)) }, out: {} }) },
  })
  const create = () => ({})
  const pool = createPool()
  const table = (unsupported?: Record<string, string>) => {
    const potClass = driverClass(Pot, { create })
    return compile(pool, core, driver(unsupported === undefined ? potClass : withoutOptions(potClass, unsupported)))
  }
  const { method: without } = findEntry(table({ cover: 'no covers' }), Pot.id, CREATE)!
  assert.deepEqual(Object.keys(without.in), ['size'])
  assert.deepEqual(without.refused, {
    cover: { id: 2, code: 'EOPNOTSUPP', why: because`${the.attribute('cover')}: ${'no covers'}` },
  })
  assert.deepEqual(Object.keys(findEntry(table(), Pot.id, CREATE)!.method.in), ['size', 'cover'])
  assert.throws(() => table({ size: 'any reason' }), /driver d: pot\.create: attribute size is mandatory/)
})

test('a block ends at its highest method, and an unused class takes one slot (R5, R20)', () => {
  const table = build(driverClass(Box, { shake: () => ({}) }))
  const { blocks } = table.byName.get('box')!
  assert.deepEqual(
    blocks.map(block => block?.length),
    [DESTROY + 1, undefined, 3, undefined, undefined, undefined, undefined, undefined],
  )
  assert.equal(tableSlots(table), Box.id + 1 + blocks.length + (DESTROY + 1) + 3)
})

test('equal tables are shared until the last user releases them (R20)', () => {
  const pool = createPool()
  const shake = () => ({})
  const first = compile(pool, core, driver(driverClass(Box), driverClass(Cover)))
  const second = compile(pool, core, driver(driverClass(Cover), driverClass(Box)))
  const third = compile(pool, core, driver(driverClass(Box, { shake }), driverClass(Cover)))
  assert.equal(second, first)
  assert.notEqual(third, first)
  assert.equal(third.byName.get('cover'), first.byName.get('cover'))
  assert.notEqual(third.byName.get('box'), first.byName.get('box'))
  assert.deepEqual([pool.devices.size, pool.classes.size], [2, 3])
  releaseTable(pool, first)
  assert.deepEqual([pool.devices.size, pool.classes.size], [2, 3])
  releaseTable(pool, second)
  releaseTable(pool, third)
  assert.deepEqual([pool.devices.size, pool.classes.size], [0, 0])
})

test('devices share the tables of a driver’s own classes (R20)', () => {
  const pool = createPool()
  const create = () => ({})
  const [first, second] = [0, 1].map(() => compile(pool, core, driver(driverClass(Secret, { create }))))
  assert.equal(second, first)
  const withBox = compile(pool, core, driver(driverClass(Secret, { create }), driverClass(Box)))
  assert.equal(withBox.byName.get('secret'), first!.byName.get('secret'))
  assert.deepEqual([pool.devices.size, pool.classes.size], [2, 2])
})

test('an invalid driver table is refused with a message', () => {
  const Other = objectClass('other', 12, { methods: {} })
  const Moved = objectClass('box', 5, { methods: {} })
  assert.throws(() => build(driverClass(Other)), /no common class other.*0x8000, not 12/)
  assert.throws(() => build(driverClass(Moved)), /class box has id 5, the common class of that name has 4/)
  assert.throws(() => build(driverClass(Box), driverClass(Box)), /listed twice/)
  const lowId = { create: { out: { hint: u32(7) } } }
  assert.throws(() => build({ ...driverClass(Box), additions: lowId }), /box.create: .*hint has id 7/)
  const undeclared = { query: { out: { hint: u32(0x8000) } } }
  assert.throws(() => build({ ...driverClass(Box), additions: undeclared }), /box.query: .*no attributes of a driver/)
  assert.throws(() => build({ ...driverClass(Box), handlers: { toString: () => ({}) } }), /has no method toString/)
  const duplicate = { create: { out: { size: u32(0x8000) } } }
  assert.throws(() => build({ ...driverClass(Box), additions: duplicate }), /size exists in the common method/)
  assert.throws(() => build({ ...driverClass(Box), handlers: { fly: () => ({}) } }), /class box has no method fly/)
  const Lost = objectClass('lost', 0x8000, {
    methods: { create: method(CREATE, { in: { x: ref(1, 'nil') }, out: {} }) },
  })
  assert.throws(() => build(driverClass(Lost, { create: () => ({}) })), /lost.create.*no class nil/)
})

test('hooks change only the classes and methods that they name (R24)', () => {
  const table = build(driverClass(Box), driverClass(Cover))
  assert.equal(withHooks(table, []), table)
  const hooked = withHooks(table, [{ class: 'box', method: 'query', pre() {} }])
  assert.equal(hooked.byName.get('cover'), table.byName.get('cover'))
  assert.equal(findEntry(hooked, Box.id, CREATE), findEntry(table, Box.id, CREATE))
  assert.notEqual(findEntry(hooked, Box.id, QUERY)!.run, findEntry(table, Box.id, QUERY)!.run)
  for (const entry of [CREATE, QUERY].map(call => findEntry(table, Box.id, call)!))
    assert.equal(entry.run, entry.handler)
})
