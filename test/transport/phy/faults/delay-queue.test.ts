import assert from 'node:assert/strict'
import { it } from 'node:test'
import { createDelayQueue } from '../../../../src/transport/phy/faults/delay-queue.ts'
import { collectGarbage } from '../../../tools.ts'

it('the queue keeps nothing of a packet that was taken before any timeout', async () => {
  const queue = createDelayQueue<object>(() => 0)
  const holdAndTake = (): WeakRef<object> => {
    const tag = {}
    const [offset, length, passesLeft, delayTime, rateLimits] = [0, 64, 0, 0, 0]
    queue.hold(new Uint8Array(length), offset, length, tag, passesLeft, delayTime, rateLimits)
    queue.pass(0)
    assert.equal(queue.take()?.tag, tag)
    return new WeakRef(tag)
  }
  const tags = Array.from({ length: 3 }, holdAndTake)
  await new Promise(setImmediate) // a WeakRef keeps its target until the end of the turn
  collectGarbage()
  assert.ok(tags.every(tag => tag.deref() === undefined))
  assert.equal(queue.nextTimeout(), Number.POSITIVE_INFINITY)
})
