/*
 * Batches of address handles (R25) with a driver whose calls are asynchronous.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addHook, type Device, driverClass, invoke, invokeNow } from '../../src/core/index.ts'
import { QpAddress } from '../../src/spec/classes/qp/qp.ts'
import { Classes } from '../../src/spec/classes.ts'
import { CallError } from '../../src/spec/errno.ts'
import { zeroRecord } from '../../src/spec/schema/schema.ts'
import { openTestDevice, testClasses, testDriver } from './fixture.ts'

const { pd: Pd, ah: Ah } = Classes

test('a hook that refuses a destroy of a batch does not hide the outcome of the destroys that run', async () => {
  const refusing = driverClass(Ah, {
    create: () => ({}),
    destroy: async (_call, { handle }) => {
      await undefined
      throw new CallError('EBUSY', `the driver refuses ${handle}`)
    },
  })
  const { device, context, caller } = openTestDevice(
    {},
    testDriver(testClasses.map(cls => (cls.class === Ah ? refusing : cls))),
  )
  addHook(device as Device, {
    class: 'ah',
    method: 'destroy',
    pre(_call, { handle }) {
      // The protection domain has handle 0, the address handles have 1, 2 and 3.
      if (handle === 3) throw new CallError('EPERM', 'the hook refuses 3')
    },
  })
  const { object: pd = -1 } = invokeNow(context, Pd, 'create', 0, {}, caller)
  const addresses = Array.from({ length: 3 }, () => zeroRecord(QpAddress))
  const { handles } = invokeNow(context, Pd, 'createAhs', pd, { addresses }, caller).out
  // an unhandled rejection would fail the test
  await assert.rejects(async () => invoke(context, Pd, 'destroyAhs', pd, { handles }, caller), /the driver refuses 1/)
  assert.equal(context.handles.count, 4, 'nothing was destroyed')
  assert.throws(
    () => invokeNow(context, Pd, 'destroyAhs', pd, { handles: [{ handle: 3 }] }, caller),
    /the hook refuses 3/,
  )
})
