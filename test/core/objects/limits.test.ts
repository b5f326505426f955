/*
 * Shares of users in what a device limits in number.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { closeContext, createCore, invokeNow, noMemory, openContext } from '../../../src/core/index.ts'
import { createMemoryQuotas } from '../../../src/daemon/memory-quota.ts'
import { createNullDevice } from '../../../src/drivers/null/device.ts'
import { Pd } from '../../../src/spec/classes/pd.ts'

/** Maximum protection domains of a null device. */
const MAX_PDS = 256
const OWNER = 1000
const caller = { memory: noMemory, copyIn: () => new Uint8Array(), copyOut: () => {}, descriptor: () => undefined }

const setUp = () => {
  const quotas = createMemoryQuotas(undefined, OWNER)
  const device = createNullDevice(createCore(), 'null0')
  let pid = 1
  const open = (user?: number) =>
    openContext(device, { isOpened: true, ...(user !== undefined && { account: quotas.of(pid++, user) }) })
  const createPd = (context: ReturnType<typeof open>) => invokeNow(context, Pd, 'create', 0, {}, caller)
  /** Creates until refused; returns the number. */
  const createAll = (context: ReturnType<typeof open>): number => {
    for (let count = 0; ; count++)
      try {
        createPd(context)
      } catch (error) {
        assert.equal((error as { code: string }).code, 'ENOMEM')
        return count
      }
  }
  return { open, createPd, createAll }
}

test('all processes of another user together may have half of a device’s objects of a class', () => {
  const { open, createPd, createAll } = setUp()
  const [first, second, other] = [open(7), open(7), open(8)]
  assert.deepEqual([createAll(first), createAll(second), createAll(other)], [128, 0, 64])
  assert.throws(() => createPd(second), {
    code: 'ENOMEM',
    message:
      'pd.create: device null0: user 7 has 128 objects of class pd and may have 96, half of those that no other user has; destroy some',
  })
  closeContext(first)
  assert.equal(createAll(second), 96, 'half of what user 8 left')
})

test('a process of the daemon’s user, or of this process, may have all; the refusal of others says who has them', () => {
  for (const user of [OWNER, undefined]) {
    const { open, createPd, createAll } = setUp()
    const guest = open(7)
    createPd(guest)
    assert.equal(createAll(open(user)), MAX_PDS - 1)
    const most = `user ${user ?? 7} has the most of them, ${user === undefined ? 1 : MAX_PDS - 1}`
    assert.throws(() => createPd(guest), {
      code: 'ENOMEM',
      message: `pd.create: device null0: there are 256 objects of class pd, the maximum; ${most}; destroy some`,
    })
  }
})
