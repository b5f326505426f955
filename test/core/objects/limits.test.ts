/*
 * Shares of users in what a device limits in number.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { closeContext, createCore, invokeNow, noMemory, openContext } from '../../../src/core/index.ts'
import { createSharedLimits } from '../../../src/daemon/accounts.ts'
import { createNullDevice } from '../../../src/drivers/null/device.ts'
import { Pd } from '../../../src/spec/classes/pd.ts'
import { accountIn, GUEST, OWNER } from '../accounts.ts'

/** Maximum protection domains of a null device. */
const MAX_PDS = 256
const caller = { memory: noMemory, copyIn: () => new Uint8Array(), copyOut: () => {}, descriptor: () => undefined }

const setUp = () => {
  const limits = createSharedLimits()
  const device = createNullDevice(createCore(), 'null0')
  let pid = 1
  const open = (user?: number) =>
    openContext(device, { isOpened: true, ...(user !== undefined && { account: accountIn(limits, user, pid++) }) })
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
  return { limits, open, createPd, createAll }
}

test('the processes of a guest together may have half of what no other guest has and the owner does not keep', () => {
  const { open, createPd, createAll } = setUp()
  const [first, second, other] = [open(GUEST), open(GUEST), open(8)]
  // The owner keeps 32 of 256.
  assert.deepEqual([createAll(first), createAll(second), createAll(other)], [112, 0, 56])
  assert.throws(() => createPd(second), {
    code: 'ENOMEM',
    message:
      'pd.create: device null0: user 7 has 112 protection domains and may have 84, half of what no other user has and the owner does not keep; destroy some',
  })
  closeContext(first)
  assert.equal(createAll(second), 84, 'half of what user 8 left')
})

test('a process of the daemon’s user, or of this process, may have all; the refusal of others says who has them', () => {
  for (const user of [OWNER, undefined]) {
    const { open, createPd, createAll } = setUp()
    const guest = open(GUEST)
    createPd(guest)
    assert.equal(createAll(open(user)), MAX_PDS - 1)
    const most = `user ${user ?? GUEST} has the most of them, ${user === undefined ? 1 : MAX_PDS - 1}`
    assert.throws(() => createPd(guest), {
      code: 'ENOMEM',
      message: `pd.create: device null0: 256 protection domains are in use, of 256 (max_pd); ${most}; destroy some`,
    })
  }
})

test('a create that is refused charges nothing, neither the limit nor memory', () => {
  const { limits, open, createAll } = setUp()
  const contexts = [open(GUEST), open(OWNER)]
  for (const context of contexts) createAll(context)
  const perPd = limits.memory.used / MAX_PDS
  closeContext(contexts[0]!)
  assert.equal(limits.memory.used, (MAX_PDS - 112) * perPd)
  closeContext(contexts[1]!)
  assert.deepEqual([limits.memory.used, limits.memory.held.size], [0, 0])
})
