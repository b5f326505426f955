/*
 * Which queues a poll reads, of few and of very many.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ScanScope } from '../../../src/core/driver-contract.ts'
import { bufferMemory } from '../../../src/core/memory/mappable-memory.ts'
import { type DoorbellPage, FEW_PAGES, NOT_SCANNED, QueueScan } from '../../../src/drivers/efa/scan.ts'

const { CHANGED, USED, ALL, BEGIN } = ScanScope
const PER_PAGE = 512

/** Queues with one doorbell each. `busy`: those that have work at each reading. */
const createQueues = (count: number) => {
  const reads: number[] = []
  const busy = new Set<number>()
  const scan = new QueueScan<{ readonly number: number; readonly state: { isScanned: boolean; idleRounds: number } }>(
    ({ number }) => {
      reads.push(number)
      return busy.has(number)
    },
  )
  const pages: DoorbellPage[] = []
  const queues = Array.from({ length: count }, (_, number) => {
    const place = number % PER_PAGE
    if (place === 0) {
      const page = { chunk: bufferMemory().allocate(4096), seen: new Int32Array(PER_PAGE), owners: [] }
      pages.push(page)
      scan.pages.add(page)
    }
    const queue = { number, state: { ...NOT_SCANNED } }
    scan.add(queue, [{ page: pages.at(-1)!, number: place }, undefined])
    return queue
  })
  return {
    scan,
    queues,
    busy,
    ring: (number: number): void => void pages[Math.floor(number / PER_PAGE)]!.chunk.words[2 * (number % PER_PAGE)]!++,
    /** The queues that a scan reads, in order. */
    readBy(scope: ScanScope): number[] {
      reads.length = 0
      scan.scan(scope)
      return reads.slice()
    },
  }
}

test('of few queues, those with a store to their doorbell are read at the next poll, whichever it is', () => {
  const { ring, readBy } = createQueues(PER_PAGE + 2)
  for (const scope of [CHANGED, USED, ALL, BEGIN]) {
    assert.deepEqual(readBy(scope), [])
    ring(0)
    ring(PER_PAGE + 1)
    assert.deepEqual(readBy(scope), [0, PER_PAGE + 1])
  }
})

test('of very many, all are compared at the end of a poll; those in use are read at each poll', () => {
  const count = (FEW_PAGES + 1) * PER_PAGE
  const { busy, ring, readBy } = createQueues(count)
  ring(7)
  ring(count - 1)
  busy.add(7)
  assert.deepEqual(readBy(CHANGED), [])
  assert.deepEqual(readBy(USED), [])
  assert.deepEqual(readBy(BEGIN), [7, count - 1])
  assert.deepEqual(readBy(USED), [7])
  busy.clear()
  for (let round = 0; round < 20; round++) readBy(ALL)
  assert.deepEqual(readBy(USED), [])
})

test('a destroyed queue is not read', () => {
  const { scan, queues, busy, ring, readBy } = createQueues(3)
  busy.add(1)
  ring(1)
  assert.deepEqual(readBy(BEGIN), [1])
  scan.recheck(queues[1]!)
  scan.remove(queues[1]!)
  ring(1)
  assert.deepEqual(readBy(BEGIN), [])
})

test('a queue that a call has changed is read at the next poll', () => {
  const { scan, queues, readBy } = createQueues(2 * FEW_PAGES * PER_PAGE)
  scan.recheck(queues[900]!)
  assert.deepEqual(readBy(CHANGED), [900])
  assert.deepEqual(readBy(CHANGED), [])
})
