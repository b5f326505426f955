/*
 * The declarations of all classes: consistency, frozen numbers, inferred types.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { Sink } from '../../src/drivers/null/device.ts'
import {
  AttributeFlag,
  CallNumber,
  ClassId,
  CommonAttribute,
  isQueuePairClass,
  isSrqClass,
  MessageFlag,
  OpCtrl,
  SRQ_CLASSES,
} from '../../src/spec/classes/ids.ts'
import { QP_CLASSES } from '../../src/spec/classes/qp/qp.ts'
import { Classes, classes } from '../../src/spec/classes.ts'
import { CtxContext } from '../../src/spec/drivers/ctx.ts'
import { RxeAttributes, RxeLayouts } from '../../src/spec/drivers/rxe.ts'
import { calledClasses, roleOf } from '../../src/spec/methods.ts'
import {
  type Attributes,
  at,
  Block,
  CHAIN,
  checkClasses,
  type In,
  list,
  method,
  type Out,
  objectClass,
  optional,
  record,
  recordSize,
  ref,
  u32,
} from '../../src/spec/schema/schema.ts'
import { fixture } from '../paths.ts'

/** Every number of the object dialect, as lines. A changed line breaks existing programs. */
const numbers = (): string => {
  const lines = [
    `attribute flags ${JSON.stringify(AttributeFlag)}`,
    `message flags ${JSON.stringify(MessageFlag)}`,
    `op_ctrl ${JSON.stringify(OpCtrl)}`,
    `common attributes ${JSON.stringify(CommonAttribute)}`,
  ]
  const attributes = (direction: string, set: (typeof classes)[number]['methods'][string]['in']): void => {
    for (const [name, { id, type, optional: isOptional }] of Object.entries(set)) {
      lines.push(`    ${direction} ${id} ${name}: ${type.kind}${isOptional ? ' optional' : ''}`)
      if (type.kind === 'record' || type.kind === 'list')
        for (const [field, { offset, type: kind }] of Object.entries(type.fields))
          lines.push(`      ${offset} ${field}: ${kind.kind}`)
    }
  }
  for (const cls of classes) {
    lines.push(`class ${cls.id} ${cls.name} (${cls.identity})`)
    for (const [name, m] of Object.entries(cls.methods)) {
      lines.push(`  call ${m.call} ${name}`)
      attributes('in', m.in)
      attributes('out', m.out)
    }
  }
  for (const [cls, methods] of Object.entries(RxeAttributes))
    for (const [name, { out }] of Object.entries(methods)) {
      lines.push(`rxe ${cls}.${name}`)
      attributes('out', out)
    }
  return `${lines.join('\n')}\n`
}

/**
 * The first line of `before` that is missing in `after`, or has another order; undefined if `after` only adds lines.
 */
const lostLine = (before: string, after: string): string | undefined => {
  const lines = after.split('\n')
  let at = 0
  return before.split('\n').find(line => {
    const found = lines.indexOf(line, at)
    if (found >= 0) at = found + 1
    return found < 0
  })
}

test('ids, call numbers and layouts of the object dialect are frozen; `npm run docs` accepts additions', () => {
  const path = fixture('spec', 'frozen.txt')
  const now = numbers()
  assert.equal(lostLine(readFileSync(path, 'utf8'), now), undefined, 'a frozen number or layout has changed')
  if (process.env.UPDATE_GOLDEN) writeFileSync(path, now)
  assert.ok(now === readFileSync(path, 'utf8'), '`npm run docs` adds what is new to test/fixtures/spec/frozen.txt')
})

test('an added line is no loss of a frozen line, a line at another place is one', () => {
  assert.equal(lostLine('a\nb\nc', 'a\nb\nnew\nc'), undefined)
  assert.equal(lostLine('a\nb\nc', 'a\nc\nb'), 'c')
})

test('ClassId has exactly the ids of the classes, and CallNumber the numbers of the calls', () => {
  assert.deepEqual(Object.fromEntries(classes.map(cls => [cls.name, cls.id])), { ...ClassId })
  for (const [name, cls] of Object.entries(Classes)) assert.equal(cls.name, name)
  for (const [name, calls] of Object.entries(CallNumber))
    for (const [methodName, call] of Object.entries(calls))
      assert.equal(classes.find(cls => cls.name === name)?.methods[methodName]?.call, call, `${name}.${methodName}`)
})

test('each method has a role', () => {
  for (const { name: className, methods } of [...calledClasses, CtxContext, Sink])
    for (const [name, { role }] of Object.entries(methods)) {
      const where = `${className}.${name}`
      assert.notEqual(role, undefined, where)
      assert.equal(role === 'asks', /^query/.test(name), where)
      assert.equal(role === 'waits', /^getEvents?$/.test(name), where)
      assert.equal(role === 'destroys', /^destroy/.test(name), where)
      assert.equal(role === 'modifies', name === 'modify', where)
      if (calledClasses.some(cls => cls.name === className)) assert.equal(roleOf(where), role)
    }
  assert.equal(roleOf('of_a_driver.destroy'), 'destroys')
  assert.equal(roleOf('of_a_driver.spin'), undefined)
})

test('the classes of queue pairs and shared receive queues are known by their names', () => {
  const names = (has: (name: string) => boolean): string[] => Object.keys(ClassId).filter(has)
  assert.deepEqual(names(isQueuePairClass).sort(), [...QP_CLASSES].sort())
  assert.deepEqual(names(isSrqClass), [...SRQ_CLASSES])
  for (const name of SRQ_CLASSES) assert.ok('maxWr' in Classes[name].methods.create.in, name)
})

test('rxe adds attributes with ids from 0x8000 to methods that allow driver attributes', () => {
  for (const [name, methods] of Object.entries(RxeAttributes))
    for (const [methodName, { out }] of Object.entries(methods)) {
      const found = classes.find(cls => cls.name === name)?.methods[methodName]
      assert.ok(found?.driverAttributes, `${name}.${methodName}`)
      for (const { id } of Object.values(out as Attributes)) assert.ok(id >= 0x8000)
    }
})

test('rxe has a Linux layout of its attributes for each method except createAhs, which Linux lacks', () => {
  for (const [name, methods] of Object.entries(RxeAttributes))
    for (const methodName of Object.keys(methods))
      assert.equal(RxeLayouts[`${name}.${methodName}`] !== undefined, methodName !== 'createAhs')
})

test('records have the sizes of Linux’s structs', () => {
  const size = (type: { kind: string }): number =>
    recordSize((type as unknown as { fields: Parameters<typeof recordSize>[0] }).fields)
  assert.equal(size(Classes.device.methods.query.out.attributes.type), 172)
  assert.equal(size(Classes.device.methods.query.out.extended.type), 116)
  assert.equal(size(Classes.port.methods.query.out.attributes.type), 48)
  assert.equal(size(Classes.port.methods.queryGidEntry.out.entry.type), 32)
  assert.equal(size(Classes.rc_qp.methods.create.in.cap.type), 20)
})

test('a mistake in a declaration is reported with its path', () => {
  const checkingCreate = (create: ReturnType<typeof method>) => (): void =>
    checkClasses([objectClass('a', 1, { methods: { create } })])
  assert.throws(
    checkingCreate(method(0, { in: { x: u32(1), y: u32(1) }, out: {} })),
    /a\.create: in attribute y: id 1 is that of x/,
  )
  assert.throws(
    checkingCreate(method(0, { in: { x: ref(1, 'b') }, out: {} })),
    /a\.create: in attribute x: there is no class b/,
  )
  for (const call of [-1, 2.5, Block.RESERVED, 256])
    assert.throws(
      checkingCreate(method(call, { in: {}, out: {} })),
      /a\.create: call number \S+ is not in 0\.\.127; .*reserved/,
    )
  assert.throws(checkingCreate(method(CHAIN + 1, { in: {}, out: {} })), /a\.create: call number 6 is in block COMMON/)
  // The highest valid call number.
  checkingCreate(method(Block.RESERVED - 1, { in: {}, out: {} }))()
  const overlap = record(1, { x: at(0, u32(0)), y: at(2, u32(0)) })
  assert.throws(
    checkingCreate(method(0, { in: { r: overlap }, out: {} })),
    /attribute r\.y: offset 2 overlaps the field before it/,
  )
  const a = objectClass('a', 1, { methods: {} })
  assert.throws(() => checkClasses([a, { ...a, name: 'b' }]), /class b: id 1 is that of a/)
})

// The compiler checks the types below.

interface Target {
  readonly target: true
}
type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
/** Expands intersections, so that Equal compares the properties. */
type Flat<T> = { [K in keyof T]: T[K] }
const same = <A, B>(_: Equal<Flat<A>, Flat<B>>): void => {}

test('types of arguments and results are inferred from the declaration', () => {
  const { methods: mr } = Classes.mr
  same<
    In<typeof mr.create, Target>,
    {
      pd: Target
      start: bigint
      length: bigint
      iova: bigint
      access: number
      kind?: number
      file?: number
      dm?: Target
      dmah?: Target
    }
  >(true)
  same<Out<typeof mr.create>, { lkey: number; rkey: number }>(true)
  const { methods: cq } = Classes.cq
  same<
    In<typeof cq.create, Target>,
    {
      cqe: number
      userHandle: bigint
      channel?: Target
      compVector: number
      flags?: number
      asyncFd?: Target
      kind?: number
    }
  >(true)
  // Outside a handler references are numbers.
  same<In<typeof cq.create>['channel'], number | undefined>(true)
  const { methods: qp } = Classes.rc_qp
  same<In<typeof qp.modify>['rqPsn'], number | undefined>(true)
  same<NonNullable<In<typeof qp.modify>['address']>['dgid'], Uint8Array>(true)
  const { methods: device } = Classes.device
  same<Out<typeof device.queryGidTable>['entries'][number]['ifindex'], number>(true)
  const _class = objectClass('a', 1, {
    methods: { m: method(0, { in: { l: optional(list(1, { x: at(0, u32(0)) }, 4)) }, out: {} }) },
  })
  same<In<typeof _class.methods.m>, { l?: { x: number }[] }>(true)
})
