/*
 * Sums over time for the page's charts.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { SessionEvent } from '../../src/record/events.ts'
import { Traffic } from '../../web/data/traffic.ts'

const window = (time: number, object: number, bytes: number): SessionEvent => ({
  kind: 'counters',
  time,
  device: 0,
  object,
  values: { window: bytes },
})

describe('the window over time', () => {
  it('is the sum of all queue pairs, stays until it changes, and ends with its queue pair', () => {
    const traffic = new Traffic(0)
    traffic.add(window(0, 1, 1000))
    traffic.add(window(1, 2, 500))
    traffic.add(window(3 * 64, 1, 250))
    traffic.add({ kind: 'queueReset', time: 5 * 64, owner: 2 })
    assert.deepEqual(traffic.values('window'), [1500, 1500, 1500, 750, 750, 250])
    assert.equal(traffic.totals.window, 1500)
  })

  it('keeps the newest values when intervals become longer', () => {
    const traffic = new Traffic(0)
    traffic.add(window(0, 1, 1000))
    traffic.add(window(64, 1, 10))
    traffic.add(window(1024 * 64, 1, 20))
    const values = traffic.values('window')
    assert.equal(values.length, 513)
    assert.deepEqual([values[0], values[1], values[511], values[512]], [10, 10, 10, 20])
  })
})
