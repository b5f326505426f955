/*
 * Lists of waiters: what ends a wait, and when waiters keep the process alive.
 */
import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { test } from 'node:test'
import { createWaiterList } from '../../../../src/library/verbs/cq/waiters.ts'

test('the first waiter and the end of the last one are reported, whatever ends the waits', async () => {
  const changes: boolean[] = []
  const waiters = createWaiterList(hasWaiters => changes.push(hasWaiters))
  const [one, two] = [waiters.add(), waiters.add()]
  assert.ok(one !== 0 && two !== 0 && one !== two)
  const controller = new AbortController()
  const { signal } = controller
  const waitsOfOne = [waiters.wait(one, signal), waiters.wait(one)]
  const waitOfTwo = waiters.wait(two, signal)
  assert.deepEqual(changes, [true])
  waiters.wake(one)
  // Nobody waits for `one`: the second call has no effect.
  waiters.wake(one)
  assert.deepEqual(changes, [true], '`two` is waited for')
  assert.equal(getEventListeners(signal, 'abort').length, 1, 'the listener of `two`')
  await Promise.all(waitsOfOne)
  controller.abort(new Error('enough'))
  await assert.rejects(waitOfTwo, /enough/)
  assert.deepEqual(changes, [true, false])
  await assert.rejects(waiters.wait(one, signal), /enough/)
  const last = waiters.wait(two)
  waiters.remove(two)
  await last
  // A wait for a removed waiter ends at once.
  await waiters.wait(two)
  assert.deepEqual(changes, [true, false, true, false])
})
