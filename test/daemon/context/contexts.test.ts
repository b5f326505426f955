/*
 * A context exists as long as a program has a copy of any of its doorbell sockets or of its memory file; a failed open
 * leaves no descriptors.
 */
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { stat, unregister } from '../../../src/core/index.ts'
import { createContainment } from '../../../src/daemon/containment.ts'
import { createContexts } from '../../../src/daemon/context/contexts.ts'
import { createRingPool } from '../../../src/host/memory/mapping.ts'
import { createMemfd } from '../../../src/host/memory/memfd.ts'
import { openProcess, type ProcessHandle, pidfdGetfd } from '../../../src/host/memory/process.ts'
import { close, sendSmall } from '../../../src/host/net/sockets.ts'
import { machine } from '../../drivers/rxe/machine.ts'
import { unbounded } from '../unbounded.ts'

const openDescriptors = (): number => readdirSync('/proc/self/fd').length

const setUp = (throwsOnPost = false) => {
  const m = machine(1)
  const pool = createRingPool()
  let waiters: (() => void)[] = []
  const tokens: number[] = []
  const contexts = createContexts(
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
    /** The next time that a program rings the doorbell or closes it. */
    nextRing: () => new Promise<void>(done => waiters.push(done)),
    forget: () => {
      waiters = []
    },
  }
}

test('closing the last doorbell ends the context, its objects and its memory; closing others does not', async () => {
  const self = openProcess(process.pid) as ProcessHandle
  const before = openDescriptors()
  const b = setUp()
  const { open, doorbell } = b.contexts.open(b.device, 0, unbounded)
  const second = b.contexts.addDoorbell(open, unbounded)
  const copy = pidfdGetfd(self, second)
  open.memory.allocate(5000)
  open.memory.free(open.memory.allocate(100))
  open.memory.allocate(100)
  assert.deepEqual(b.contexts.rings, { count: 2, bytes: 12288 }, 'rings, several of which share a mapping')
  assert.deepEqual([b.contexts.count, stat(b.m.core).contexts, b.pool.counters.mapped], [1, 1, 1])
  close(second)
  const first = b.nextRing()
  close(doorbell)
  await first
  assert.equal(b.contexts.byNumber(open.number), open, 'a copy exists')
  const last = b.nextRing()
  close(copy)
  await last
  assert.deepEqual([b.contexts.count, stat(b.m.core).contexts, b.pool.counters.mapped], [0, 0, 0])
  assert.deepEqual(b.contexts.rings, { count: 0, bytes: 0 })
  assert.equal(b.contexts.byNumber(open.number), undefined)
  assert.throws(() => b.contexts.addDoorbell(open, unbounded), /closed/)
  assert.equal(openDescriptors(), before)
})

test('a context without doorbells exists while a program holds its file, and can get new doorbells', async () => {
  const b = setUp()
  const { open, doorbell } = b.contexts.open(b.device, 0, unbounded)
  const held = open.memory.share()
  const left = b.nextRing()
  close(doorbell)
  await left
  assert.equal(b.contexts.byNumber(open.number), open, 'in transit to another program')
  const again = b.contexts.addDoorbell(open, unbounded)
  // The next poll finds the doorbell.
  await b.nextRing()
  close(held)
  assert.equal(b.contexts.count, 1, 'the doorbell is sufficient')
  const kept = open.memory.share()
  const closed = b.nextRing()
  close(again)
  await closed
  await b.nextRing()
  assert.equal(b.contexts.count, 1, 'no process has closed it')
  close(kept)
  while (b.contexts.count > 0) await b.nextRing()
  b.contexts.closeAll()
})

test('a context that no program holds can be ended immediately', async () => {
  const b = setUp()
  const { open, doorbell } = b.contexts.open(b.device, 0, unbounded)
  const file = open.memory.share()
  const nextRing = b.nextRing()
  close(doorbell)
  await nextRing
  b.contexts.endUnheld()
  assert.equal(b.contexts.count, 1)
  close(file)
  b.contexts.endUnheld()
  assert.equal(b.contexts.count, 0)
})

test('a context ends if the handling of its last doorbell throws', async () => {
  const b = setUp(true)
  const { doorbell } = b.contexts.open(b.device, 0, unbounded)
  const ended = b.nextRing()
  sendSmall(doorbell, new Uint8Array(4))
  await ended
  assert.deepEqual([b.contexts.count, stat(b.m.core).contexts], [0, 0])
  close(doorbell)
})

test('a token of any size rings the doorbell; the number of a context is not reused', async () => {
  const b = setUp()
  const { open, doorbell } = b.contexts.open(b.device, 0, unbounded)
  for (const size of [4, 1, 5, 1000]) {
    const nextRing = b.nextRing()
    assert.equal(sendSmall(doorbell, new Uint8Array(size)), size)
    await nextRing
    assert.equal(b.contexts.count, 1)
  }
  assert.deepEqual(b.tokens, [0], 'the handle in a complete token')
  // More tokens than one read takes.
  for (let i = 0; i < 100; i++) sendSmall(doorbell, new Uint8Array(4))
  await b.nextRing()
  await b.nextRing()
  b.contexts.closeAll()
  assert.equal(b.contexts.count, 0)
  const again = b.contexts.open(b.device, 0, unbounded)
  assert.notEqual(again.open.number, open.number)
  close(doorbell)
  b.contexts.closeAll()
  close(again.doorbell)
})

test('only the memory file itself identifies a context', () => {
  const b = setUp()
  const one = b.contexts.open(b.device, 0, unbounded)
  const two = b.contexts.open(b.device, 0, unbounded)
  assert.equal(b.contexts.byFile(one.open.memory.fd), one.open)
  assert.equal(b.contexts.byFile(two.open.memory.fd), two.open)
  const similarFile = createMemfd('userdma-context', 2 ** 30)
  for (const fd of [similarFile, one.doorbell, 0, -1]) assert.equal(b.contexts.byFile(fd), undefined)
  close(similarFile)
  const { fd } = one.open.memory
  b.contexts.closeAll()
  assert.equal(b.contexts.byFile(fd), undefined)
  for (const { doorbell } of [one, two]) close(doorbell)
})

test('opening a removed device fails and leaves nothing', () => {
  const b = setUp()
  const before = openDescriptors()
  unregister(b.device)
  for (let i = 0; i < 5; i++) assert.throws(() => b.contexts.open(b.device, 0, unbounded), { code: 'EIO' })
  assert.equal(openDescriptors(), before)
  assert.equal(b.contexts.count, 0)
})
