/*
 * Lists of waiters: what ends a wait, and when waiters keep the process alive.
 */
import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { test } from 'node:test'
import { createWaiterList } from '../../../src/verbs/cq/waiters.ts'

test('the first waiter and the end of the last one are reported, whatever ends the waits', async () => {
  const changes: boolean[] = []
  const waiters = createWaiterList(hasWaiters => changes.push(hasWaiters))
  const [one, two] = [waiters.add(), waiters.add()]
  assert.ok(one !== 0 && two !== 0 && one !== two)
  const controller = new AbortController()
  const { signal } = controller
  const waits = [waiters.wait(one, signal), waiters.wait(one), waiters.wait(two, signal)]
  assert.deepEqual(changes, [true])
  waiters.wake(one)
  waiters.wake(one)
  assert.deepEqual([changes, getEventListeners(signal, 'abort').length], [[true], 1])
  await Promise.all(waits.slice(0, 2))
  controller.abort(new Error('enough'))
  await assert.rejects(waits[2]!, /enough/)
  assert.deepEqual(changes, [true, false])
  await assert.rejects(waiters.wait(one, signal), /enough/)
  const last = waiters.wait(two)
  waiters.remove(two)
  await last
  await waiters.wait(two)
  assert.deepEqual(changes, [true, false, true, false])
})
