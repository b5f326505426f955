/*
 * A device's description of itself (R13, R47).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type DriverClass, driverClass, invokeNow, register } from '../../src/core/index.ts'
import { Classes } from '../../src/spec/classes.ts'
import { CREATE, method, type ObjectClass, objectClass, u32 } from '../../src/spec/schema/schema.ts'
import { declare } from '../../src/uapi/object/description.ts'
import { withoutRoles } from '../spec/schema/schema-reader.ts'
import { describeDevice, openTestDevice, testClasses, testDriver } from './fixture.ts'

const descriptionOf = (driverClasses: readonly DriverClass[]): ObjectClass[] => {
  const { context, caller } = openTestDevice({}, testDriver(driverClasses))
  return declare(invokeNow(context, Classes.interface, 'query', 0, {}, caller).out)
}

test('a device describes all its classes, in order of their IDs', () => {
  const classes = descriptionOf(testClasses)
  assert.deepEqual(
    classes.map(cls => cls.name),
    testClasses.map(({ class: { name } }) => name).sort((a, b) => Classes[a as 'pd'].id - Classes[b as 'pd'].id),
  )
  assert.deepEqual(
    classes.filter(cls => cls.name === 'pd'),
    withoutRoles([Classes.pd]),
  )
})

test('a caller that changes the description it got does not change the next one', () => {
  const { context, caller } = openTestDevice()
  const query = () => invokeNow(context, Classes.interface, 'query', 0, {}, caller).out
  const first = query()
  const before = structuredClone(first)
  first.names.fill(0)
  first.classes[0].name = 99
  first.methods.length = 0
  assert.deepEqual(query(), before)
})

test('a description has the methods that a driver adds and extends, but not the methods that a driver removes', () => {
  const ctx = objectClass('ctx', 0x8000, { methods: { create: method(CREATE, { in: {}, out: {} }) } })
  const additions = { create: { in: { colour: u32(0x8000) } } }
  const classes = descriptionOf([
    ...testClasses.filter(({ class: { name } }) => !['mr', 'pd'].includes(name)),
    driverClass(Classes.pd, { create: () => ({}), destroy: null }, additions),
    driverClass(ctx, { create: () => ({}) }),
  ])
  const found = (name: string) => classes.find(cls => cls.name === name)
  assert.equal(found('mr'), undefined)
  assert.deepEqual(Object.keys(found('pd')!.methods), ['create', 'createAhs', 'destroyAhs', 'advise'])
  assert.deepEqual(found('pd')!.methods.create.in, additions.create.in)
  assert.deepEqual([found('ctx')], withoutRoles([ctx]))
})

test('an attribute for objects of a class that the device lacks is not described, and refused with the reason', () => {
  const driverClasses = testClasses.filter(({ class: { name } }) => !['srq', 'wq', 'async_fd'].includes(name))
  const classes = descriptionOf(driverClasses)
  const methods = (name: string) => classes.find(cls => cls.name === name)!.methods
  assert.deepEqual(
    Object.keys(methods('rc_qp').create.in).filter(name => ['srq', 'asyncFd'].includes(name)),
    [],
  )
  assert.deepEqual([methods('event_queue').attach.in.wq, methods('device').open.out.asyncFd], [undefined, undefined])
  assert.ok(methods('event_queue').attach.in.rc_qp)
  const { core, context, caller } = openTestDevice({}, testDriver(driverClasses))
  const queue = { cqe: 1, userHandle: 0n, compVector: 0 }
  assert.throws(() => invokeNow(context, Classes.cq, 'create', 0, { ...queue, asyncFd: 1 }, caller), {
    code: 'EOPNOTSUPP',
    message: 'cq.create: attribute asyncFd: this device has no class async_fd',
  })
  // a device with all classes shares the table of pd, which does not refer to an omitted class
  const complete = register(core, describeDevice('test1'))
  const tables = [context.device, complete].map(({ sharedTable }) => sharedTable.byName)
  assert.ok(tables[1].get('cq')?.class.methods.create.in.asyncFd)
  assert.equal(tables[0].get('pd'), tables[1].get('pd'))
})
