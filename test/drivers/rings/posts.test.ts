/*
 * Scans of rings for posted requests.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ScanScope } from '../../../src/core/driver-contract.ts'
import { storeProducer } from '../../../src/core/memory/rings.ts'
import { createReceiveQueue, type RingReceives } from '../../../src/drivers/rings/receive-queue.ts'
import { createSendQueue, type RingSends } from '../../../src/drivers/rings/send-queue.ts'
import { createPostScan, SLICE_ROWS } from '../../../src/drivers/soft/posts.ts'
import { type QpQueues, type QueueOwner, queueWork } from '../../../src/drivers/soft/queues.ts'
import type { Engine } from '../../../src/transport/engine/engine.ts'
import { testRings } from '../rxe/provider.ts'

const RING_SLOTS = 16

/** Rows 0 to `count` - 1. Each queue holds `requests`; its ring has one slot more. */
const setUp = (count: number, requests = RING_SLOTS - 1, ownerOf?: (row: number) => QueueOwner) => {
  const memory = testRings()
  const rings: ((QpQueues & { send: RingSends; receive: RingReceives }) | undefined)[] = Array.from(
    { length: count },
    (_, row) => ({
      ...(ownerOf && { owner: ownerOf(row) }),
      send: createSendQueue(memory, requests, 1, 0),
      receive: createReceiveQueue(memory, requests, 1),
    }),
  )
  const notified: string[] = []
  const engine = {
    onDoorbell: (row: number) => notified.push(`send ${row}`),
    onReceiveScan: (row: number) => notified.push(`receive ${row}`),
  } as unknown as Engine
  const posts = createPostScan(rings, engine, () => ownerOf !== undefined)
  /** Returns the calls to the engine. Asserts the result of the scan: whether it has passed posted sends. */
  const scan = (scope: ScanScope): string[] => {
    const hasSends = posts.scan(scope)
    assert.equal(
      hasSends,
      notified.some(line => line.startsWith('send')),
    )
    return notified.splice(0)
  }
  /** As `scan`, if nothing is posted: rows are passed only because of `recheck`. */
  const scanWithoutPosts = (): string[] => {
    assert.equal(posts.scan(ScanScope.CHANGED), false)
    return notified.splice(0)
  }
  for (let row = 0; row < count; row++) posts.add(row)
  scanWithoutPosts()
  /** Posts sends: sets the producer index. */
  const send = (row: number, producer: number) => storeProducer(rings[row]!.send.ring, producer)
  return { rings, posts, scan, scanWithoutPosts, send }
}

test('a full scan finds every post, once', () => {
  const { rings, scan, send } = setUp(200)
  assert.deepEqual(scan(ScanScope.ALL), [])
  send(150, 1)
  storeProducer(rings[3]!.receive.ring, 2)
  assert.deepEqual(scan(ScanScope.CHANGED), [])
  assert.deepEqual(scan(ScanScope.ALL), ['receive 3', 'send 150'])
  assert.deepEqual(scan(ScanScope.ALL), [])
})

test('a round of slices finds every post, and begins where the previous slice ended', () => {
  const count = 3 * SLICE_ROWS - 10
  const { posts, scan, send } = setUp(count)
  assert.equal(posts.isUnfinished(), false)
  for (const row of [0, SLICE_ROWS, count - 1]) send(row, 1)
  assert.deepEqual(scan(ScanScope.BEGIN), ['send 0'])
  assert.deepEqual(scan(ScanScope.CHANGED), [])
  assert.deepEqual(scan(ScanScope.CONTINUE), [`send ${SLICE_ROWS}`])
  assert.equal(posts.isUnfinished(), true)
  send(5, 1)
  // the slice continues after the previous slice, wraps to row 0, and checks row 5 again
  assert.deepEqual(scan(ScanScope.BEGIN), [`send ${count - 1}`, 'send 5'])
  assert.deepEqual(scan(ScanScope.CONTINUE), [])
  assert.deepEqual(scan(ScanScope.CONTINUE), [])
  assert.equal(posts.isUnfinished(), false)
  send(7, 1)
  assert.deepEqual(scan(ScanScope.CONTINUE), [], 'the round is finished')
  assert.deepEqual(scan(ScanScope.ALL), ['send 7'])
})

test('a recently used queue is polled between full scans until it has been idle for a while', () => {
  const { scan, send } = setUp(3)
  // 16 full scans without a post are "a while".
  const stayIdle = () => {
    for (let i = 0; i < 20; i++) scan(ScanScope.ALL)
  }
  stayIdle()
  send(1, 1)
  assert.deepEqual(scan(ScanScope.USED), [], 'not yet marked as used')
  assert.deepEqual(scan(ScanScope.ALL), ['send 1'])
  for (let posted = 2; posted < 40; posted++) {
    send(1, posted % RING_SLOTS)
    assert.deepEqual(scan(ScanScope.USED), ['send 1'])
    scan(ScanScope.ALL)
  }
  stayIdle()
  send(1, 9)
  assert.deepEqual(scan(ScanScope.USED), [])
  assert.deepEqual(scan(ScanScope.ALL), ['send 1'])
})

test('a scan of changed rows marks a queue with new posts as used', () => {
  const { scan, posts, send } = setUp(2)
  send(1, 1)
  posts.recheck(1)
  scan(ScanScope.CHANGED)
  send(1, 2)
  assert.deepEqual(scan(ScanScope.USED), ['send 1'])
})

test('a rechecked row is passed to the engine once, and counts as no work if nothing is posted', () => {
  const { rings, posts, scan, scanWithoutPosts, send } = setUp(2)
  posts.recheck(1)
  posts.recheck(1)
  assert.deepEqual(scanWithoutPosts(), ['receive 1', 'send 1'])
  send(1, 1)
  posts.recheck(1)
  assert.deepEqual(scan(ScanScope.CHANGED), ['receive 1', 'send 1'])
  posts.recheck(0)
  rings[0] = undefined
  assert.deepEqual(scan(ScanScope.USED), [], 'destroyed in the meantime')
})

test('a new post is found although the engine took requests without a scan and the index wrapped', () => {
  const { rings, scan, send } = setUp(1, 1)
  const { loadSend, takeReceive } = queueWork(rings)
  const block = new Uint32Array(64)
  const receive = (producer: number) => storeProducer(rings[0]!.receive.ring, producer)
  send(0, 1)
  receive(1)
  assert.deepEqual(scan(ScanScope.ALL), ['receive 0', 'send 0'])
  assert.ok(loadSend(0, 0, block, 0) && takeReceive(0, block, 0))
  // the engine takes the second posts without a scan
  send(0, 2)
  receive(2)
  assert.ok(loadSend(0, 1, block, 0) && takeReceive(0, block, 0))
  assert.ok(!loadSend(0, 2, block, 0) && !takeReceive(0, block, 0))
  assert.deepEqual(scan(ScanScope.ALL), [])
  send(0, 3)
  receive(3)
  assert.deepEqual(scan(ScanScope.ALL), ['receive 0', 'send 0'])
})

test('if a context with memory windows posts, a scan checks all queues of the context', () => {
  const [withWindows, withoutWindows] = [{ windowCount: 1 }, { windowCount: 0 }]
  const { rings, posts, scan, send } = setUp(30, RING_SLOTS - 1, row => (row % 2 === 0 ? withWindows : withoutWindows))
  for (const row of [0, 6, 7]) send(row, 1)
  posts.recheck(0)
  assert.deepEqual(scan(ScanScope.CHANGED), ['receive 0', 'send 0', 'send 6'])
  // the engine has taken the request of row 0
  rings[0]!.send.retiredIndex = 1
  send(6, 2)
  posts.recheck(0)
  assert.deepEqual(scan(ScanScope.CHANGED), ['receive 0', 'send 0', 'send 6'], 'nothing is posted to row 0')
  for (const row of [1, 8, 9]) send(row, 2)
  posts.recheck(1)
  assert.deepEqual(
    scan(ScanScope.CHANGED),
    ['receive 1', 'send 1'],
    'the context has no windows: no other row is checked',
  )
  // row 8 is reused by the context without windows
  rings[8] = { ...rings[8]!, owner: withoutWindows }
  posts.add(8)
  scan(ScanScope.ALL)
  send(8, 3)
  send(2, 1)
  posts.recheck(2)
  assert.deepEqual(scan(ScanScope.CHANGED), ['receive 2', 'send 2'])
})
