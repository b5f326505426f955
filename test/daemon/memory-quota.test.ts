/*
 * Quotas of the daemon's memory for programs' objects.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { closeContext, createCore, invokeNow, noMemory, openContext } from '../../src/core/index.ts'
import { objectBytes } from '../../src/core/objects/object-bytes.ts'
import { createMemoryQuotas } from '../../src/daemon/memory-quota.ts'
import { createNullDevice } from '../../src/drivers/null/device.ts'
import { Pd } from '../../src/spec/classes/pd.ts'

const PD_BYTES = objectBytes(Pd)
/** Maximum protection domains of a null device. */
const MAX_PDS = 256
const caller = { memory: noMemory, copyIn: () => new Uint8Array(), copyOut: () => {}, descriptor: () => undefined }

test('objects are charged to process, user and daemon until they are destroyed', () => {
  const quotas = createMemoryQuotas({ process: 3 * PD_BYTES, user: 5 * PD_BYTES, daemon: 6 * PD_BYTES })
  const device = createNullDevice(createCore(), 'null0')
  const open = (pid: number, uid: number) => openContext(device, { isOpened: true, account: quotas.of(pid, uid) })
  const [first, second, other] = [open(1, 100), open(2, 100), open(3, 200)]
  const createPd = (context: typeof first) => invokeNow(context, Pd, 'create', 0, {}, caller).object as number
  const pds = [createPd(first), createPd(first), createPd(first)]
  assert.throws(() => createPd(first), {
    code: 'ENOMEM',
    message: /objects of process 1 use .* MiB of the daemon's memory/,
  })
  assert.equal(quotas.bytes, 3 * PD_BYTES, 'a create that is refused costs nothing')
  createPd(second)
  createPd(second)
  assert.throws(() => createPd(second), { code: 'ENOMEM', message: /objects of user 100/ })
  createPd(other)
  assert.throws(() => createPd(other), { code: 'ENOMEM', message: /objects of all programs/ })
  assert.deepEqual(quotas.processes(), [
    { pid: 1, bytes: 3 * PD_BYTES },
    { pid: 2, bytes: 2 * PD_BYTES },
    { pid: 3, bytes: PD_BYTES },
  ])
  invokeNow(first, Pd, 'destroy', pds[1], {}, caller)
  createPd(first)
  assert.equal(quotas.bytes, 6 * PD_BYTES)
  for (const context of [first, other]) closeContext(context)
  assert.deepEqual(quotas.processes(), [{ pid: 2, bytes: 2 * PD_BYTES }], 'a process without objects is not listed')
})

test('a create that the device refuses is not charged', () => {
  const owner = 1
  const quotas = createMemoryQuotas(undefined, owner)
  const device = createNullDevice(createCore(), 'null0')
  const context = openContext(device, { isOpened: true, account: quotas.of(1, owner) })
  for (let i = 0; i < MAX_PDS; i++) invokeNow(context, Pd, 'create', 0, {}, caller)
  assert.throws(() => invokeNow(context, Pd, 'create', 0, {}, caller), { code: 'ENOMEM', message: /the maximum/ })
  assert.equal(quotas.bytes, MAX_PDS * PD_BYTES)
})
