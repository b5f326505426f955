/*
 * Driver null, the example of docs/how-to/drivers.md.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { createCore, invokeNow, openContext, unregister } from '../../../src/core/index.ts'
import { createNullDevice, Sink } from '../../../src/drivers/null/device.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { declare } from '../../../src/uapi/object/description.ts'
import { errnoOf, testCaller } from '../../core/fixture.ts'
import { repoRoot } from '../../paths.ts'

const { pd: Pd, rc_qp: RcQp, interface: Interface } = Classes

test('the driver has at most 70 lines', () => {
  const source = readFileSync(join(repoRoot, 'src/drivers/null/device.ts'), 'utf8')
  assert.ok(source.split('\n').length - 1 <= 70)
})

test('a sink counts bytes, refuses empty data, and keeps its protection domain in use', () => {
  const core = createCore()
  const device = createNullDevice(core, 'null0')
  const context = openContext(device, { isOpened: true })
  const caller = testCaller()
  const pd = invokeNow(context, Pd, 'create', 0, {}, caller).object as number
  const sink = invokeNow(context, Sink, 'create', 0, { pd }, caller).object as number
  invokeNow(context, Sink, 'take', sink, { data: new Uint8Array(5) }, caller)
  invokeNow(context, Sink, 'take', sink, { data: new Uint8Array(7) }, caller)
  assert.equal(invokeNow(context, Sink, 'query', sink, {}, caller).out.taken, 12n)
  assert.equal(
    errnoOf(() => invokeNow(context, Sink, 'take', sink, { data: new Uint8Array() }, caller)),
    'EINVAL',
  )
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'destroy', pd, {}, caller)),
    'EBUSY',
  )
  unregister(device)
  assert.equal(core.devices.size, 0)
})

test('classes of verbs are refused', () => {
  const context = openContext(createNullDevice(createCore(), 'null0'), { isOpened: true })
  assert.equal(
    errnoOf(() => invokeNow(context, RcQp, 'destroy', 0, {}, testCaller())),
    'EOPNOTSUPP',
  )
})

test('a program can query what the device supports, its private class included (R13)', () => {
  const context = openContext(createNullDevice(createCore(), 'null0'), { isOpened: true })
  const found = declare(invokeNow(context, Interface, 'query', 0, {}, testCaller()).out)
  assert.deepEqual(
    found.map(cls => cls.name),
    ['interface', 'device', 'pd', 'async_fd', 'sink'],
  )
  const sink = found.find(cls => cls.name === 'sink')!
  assert.deepEqual(Object.keys(sink.methods), ['create', 'query', 'take', 'destroy'])
})
