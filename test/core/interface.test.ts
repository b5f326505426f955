/*
 * R13 and R47: a device tells what it supports, and what it tells is what its calls answer to.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type DriverClass, driverClass, invokeNow } from '../../src/core/index.ts'
import { Classes } from '../../src/spec/classes.ts'
import { declare } from '../../src/spec/description.ts'
import { CREATE, method, type ObjectClass, objectClass, u32 } from '../../src/spec/schema.ts'
import { bench, testDriver, testLines } from './fixture.ts'

const told = (lines: readonly DriverClass[]): ObjectClass[] => {
  const { context, caller } = bench({}, testDriver(lines))
  return declare(invokeNow(context, Classes.interface, 'query', 0, {}, caller).out)
}

test('a device tells all classes of its table, in order of their ids', () => {
  const classes = told(testLines)
  assert.deepEqual(
    classes.map(cls => cls.name),
    testLines.map(line => line.class.name).sort((a, b) => Classes[a as 'pd'].id - Classes[b as 'pd'].id),
  )
  assert.deepEqual(
    classes.find(cls => cls.name === 'pd'),
    Classes.pd,
  )
})

test('what a driver lacks, removes, adds to a method and has of its own is told as it is', () => {
  const ctx = objectClass('ctx', 0x8000, { methods: { create: method(CREATE, { in: {}, out: {} }) } })
  const own = { create: { in: { colour: u32(0x8000) } } }
  const classes = told([
    ...testLines.filter(line => !['mr', 'pd'].includes(line.class.name)),
    driverClass(Classes.pd, { create: () => ({}), destroy: null }, own),
    driverClass(ctx, { create: () => ({}) }),
  ])
  const found = (name: string) => classes.find(cls => cls.name === name)
  assert.equal(found('mr'), undefined)
  assert.deepEqual(Object.keys(found('pd')!.methods), ['create', 'createAhs', 'destroyAhs'])
  assert.deepEqual(found('pd')!.methods.create.in, own.create.in)
  assert.deepEqual(found('ctx'), ctx)
})
