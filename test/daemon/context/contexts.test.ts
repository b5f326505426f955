/*
 * A context exists until all copies of its doorbell sockets and of its memory file are closed.
 */
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { stat, unregister } from '../../../src/core/index.ts'
import { createSharedLimits } from '../../../src/daemon/accounts.ts'
import { createContainment } from '../../../src/daemon/containment.ts'
import { Contexts } from '../../../src/daemon/context/contexts.ts'
import { createRingPool } from '../../../src/host/memory/mapping.ts'
import { createMemfd } from '../../../src/host/memory/memfd.ts'
import { openProcess, type ProcessHandle, pidfdGetfd } from '../../../src/host/memory/process.ts'
import { close, sendBytes } from '../../../src/host/net/sockets.ts'
import { accountIn, ownAccount } from '../../core/accounts.ts'
import { machine } from '../../drivers/rxe/machine.ts'

const NODE = 0 // uverbs0

/** Milliseconds from the close of the last doorbell to the first check (CHECK_INTERVAL, contexts.ts). */
const FIRST_CHECK = 10

const countDescriptors = (): number => readdirSync('/proc/self/fd').length

const setUp = ({ throwsOnPost = false } = {}) => {
  const m = machine(1)
  const pool = createRingPool()
  const waiters: (() => void)[] = []
  const tokens: number[] = []
  const contexts = new Contexts(
    pool,
    (_context, handle) => {
      if (throwsOnPost) throw new Error('a bug')
      tokens.push(handle)
    },
    () => {
      for (const waiter of waiters.splice(0)) waiter()
    },
    createContainment(() => {}),
  )
  return {
    m,
    device: m.devices[0].device,
    pool,
    contexts,
    tokens,
    /** Resolves when a program rings or closes a doorbell, or a timer expires. */
    nextRing: () => new Promise<void>(done => waiters.push(done)),
  }
}

test('only the close of the last doorbell ends the context and releases its memory', async () => {
  const self = openProcess(process.pid) as ProcessHandle
  const before = countDescriptors()
  const setup = setUp()
  const { open, doorbell } = setup.contexts.open(setup.device, NODE, ownAccount())
  const second = setup.contexts.addDoorbell(open, ownAccount())
  const copy: number = pidfdGetfd(self, second)
  open.memory.allocate(5000)
  open.memory.free(open.memory.allocate(100)) // not counted below
  open.memory.allocate(100)
  assert.deepEqual(
    setup.contexts.rings,
    { count: 2, bytes: 3 * 4096 },
    'a ring of two pages and one of one page share a mapping',
  )
  assert.deepEqual([setup.contexts.count, stat(setup.m.core).contexts, setup.pool.counters.mapped], [1, 1, 1])
  close(second)
  const first = setup.nextRing()
  close(doorbell)
  await first
  assert.equal(setup.contexts.byNumber(open.number), open, 'a copy exists')
  const last = setup.nextRing()
  close(copy)
  await last
  assert.deepEqual([setup.contexts.count, stat(setup.m.core).contexts, setup.pool.counters.mapped], [0, 0, 0])
  assert.deepEqual(setup.contexts.rings, { count: 0, bytes: 0 })
  assert.equal(setup.contexts.byNumber(open.number), undefined)
  assert.throws(() => setup.contexts.addDoorbell(open, ownAccount()), /closed/)
  assert.equal(countDescriptors(), before)
})

test('a context and each of its doorbells take a descriptor of the account until they end', async () => {
  const { contexts, device, nextRing } = setUp()
  const limits = createSharedLimits({ descriptors: 1000 })
  const account = accountIn(limits)
  const { open, doorbell } = contexts.open(device, NODE, account)
  const second = contexts.addDoorbell(open, account)
  assert.equal(limits.descriptors.used, 3)
  for (const [end, charged] of [
    [second, 2],
    [doorbell, 0],
  ] as const) {
    const rung = nextRing()
    close(end)
    await rung
    assert.equal(limits.descriptors.used, charged)
  }
})

test('a context that cannot be opened takes no descriptors', () => {
  const { contexts, device, m } = setUp()
  // The first open may load libraries, which need descriptors.
  close(contexts.open(device, NODE, ownAccount()).doorbell)
  contexts.closeAll()
  const before = countDescriptors()
  const [none, one, enough] = [0, 1, 2].map(descriptors => createSharedLimits({ descriptors }))
  for (const limits of [none, one]) {
    assert.throws(() => contexts.open(device, NODE, accountIn(limits!)), { code: 'ENFILE' })
    assert.equal(limits!.descriptors.used, 0)
  }
  unregister(device)
  assert.throws(() => contexts.open(device, NODE, accountIn(enough!)), { code: 'EIO' })
  assert.deepEqual([enough!.descriptors.used, contexts.count, stat(m.core).contexts], [0, 0, 0])
  assert.equal(countDescriptors(), before)
})

test('a context without doorbells exists while a program holds its file, and can get new doorbells', async () => {
  const setup = setUp()
  const { open, doorbell } = setup.contexts.open(setup.device, NODE, ownAccount())
  const held = open.memory.share()
  const doorbellClosed = setup.nextRing()
  close(doorbell)
  await doorbellClosed
  assert.equal(setup.contexts.byNumber(open.number), open, 'in transit to another program')
  const again = setup.contexts.addDoorbell(open, ownAccount())
  // The next check finds the doorbell.
  await setup.nextRing()
  close(held)
  setup.contexts.endUnheld()
  assert.equal(setup.contexts.count, 1, 'the doorbell is sufficient')
  const kept = open.memory.share()
  const closed = setup.nextRing()
  close(again)
  await closed
  await setup.nextRing()
  assert.equal(setup.contexts.count, 1, 'the file is sufficient')
  close(kept)
  while (setup.contexts.count > 0) await setup.nextRing()
  setup.contexts.closeAll()
})

test('a context that no program holds can be ended immediately', async () => {
  const setup = setUp()
  const { open, doorbell } = setup.contexts.open(setup.device, NODE, ownAccount())
  const file = open.memory.share()
  const nextRing = setup.nextRing()
  close(doorbell)
  await nextRing
  setup.contexts.endUnheld()
  assert.equal(setup.contexts.count, 1)
  close(file)
  setup.contexts.endUnheld()
  assert.equal(setup.contexts.count, 0)
})

test('a context that loses its last doorbell does not delay the check of an earlier context', async t => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const setup = setUp()
  const openHeld = () => {
    const { open, doorbell } = setup.contexts.open(setup.device, NODE, ownAccount())
    return { doorbell, file: open.memory.share() }
  }
  const closeDoorbell = async ({ doorbell }: { doorbell: number }) => {
    const nextRing = setup.nextRing()
    close(doorbell)
    await nextRing
  }
  const [first, second] = [openHeld(), openHeld()]
  await closeDoorbell(first)
  close(first.file)
  t.mock.timers.tick(FIRST_CHECK - 2)
  await closeDoorbell(second)
  t.mock.timers.tick(2)
  assert.equal(setup.contexts.count, 1)
  close(second.file)
  t.mock.timers.tick(2 * FIRST_CHECK)
  assert.equal(setup.contexts.count, 0)
})

test('a context ends if the handling of its last doorbell throws', async () => {
  const setup = setUp({ throwsOnPost: true })
  const { doorbell } = setup.contexts.open(setup.device, NODE, ownAccount())
  const ended = setup.nextRing()
  sendBytes(doorbell, new Uint8Array(4))
  await ended
  assert.deepEqual([setup.contexts.count, stat(setup.m.core).contexts], [0, 0])
  close(doorbell)
})

test('every packet rings the doorbell, and a packet of 4 bytes is a token; context numbers are not reused', async () => {
  const setup = setUp()
  const { open, doorbell } = setup.contexts.open(setup.device, NODE, ownAccount())
  for (const size of [4, 1, 5, 1000]) {
    const nextRing = setup.nextRing()
    assert.equal(sendBytes(doorbell, new Uint8Array(size)), size)
    await nextRing
    assert.equal(setup.contexts.count, 1)
  }
  assert.deepEqual(setup.tokens, [0], 'the handle in the packet of 4 bytes')
  // One turn does not read all these tokens.
  for (let i = 0; i < 100; i++) sendBytes(doorbell, new Uint8Array(4))
  await setup.nextRing()
  assert.ok(setup.tokens.length > 1 && setup.tokens.length < 101, `${setup.tokens.length} tokens`)
  await setup.nextRing()
  assert.equal(setup.tokens.length, 101)
  setup.contexts.closeAll()
  assert.equal(setup.contexts.count, 0)
  const again = setup.contexts.open(setup.device, NODE, ownAccount())
  assert.notEqual(again.open.number, open.number)
  close(doorbell)
  setup.contexts.closeAll()
  close(again.doorbell)
})

test('only the memory file itself identifies a context', () => {
  const setup = setUp()
  const first = setup.contexts.open(setup.device, NODE, ownAccount())
  const second = setup.contexts.open(setup.device, NODE, ownAccount())
  assert.equal(setup.contexts.byFile(first.open.memory.fd), first.open)
  assert.equal(setup.contexts.byFile(second.open.memory.fd), second.open)
  const similarFile = createMemfd('userdma-context', 2 ** 30)
  for (const fd of [similarFile, first.doorbell, 0, -1]) assert.equal(setup.contexts.byFile(fd), undefined)
  close(similarFile)
  const { fd } = first.open.memory
  setup.contexts.closeAll()
  assert.equal(setup.contexts.byFile(fd), undefined)
  for (const { doorbell } of [first, second]) close(doorbell)
})

test('opening a removed device fails and leaves nothing', () => {
  const setup = setUp()
  const before = countDescriptors()
  unregister(setup.device)
  for (let i = 0; i < 5; i++)
    assert.throws(() => setup.contexts.open(setup.device, NODE, ownAccount()), { code: 'EIO' })
  assert.equal(countDescriptors(), before)
  assert.equal(setup.contexts.count, 0)
})
