/*
 * What counts as a wait when a program ends: what was the same for a second, and still holds.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ContextWait } from '../../../../src/core/driver-contract.ts'
import type { Context, CoreObject } from '../../../../src/core/model.ts'
import { WaitWatch } from '../../../../src/daemon/check/waits/watch.ts'

const SECOND = 1_000_000
const context = { id: 1 } as Context

const watching = (found: ContextWait, next: ContextWait = found, isEnded = false) => {
  const reported: string[] = []
  let now = 0
  let looked = found
  const containment = { guard: <T extends readonly unknown[]>(_what: string, run: (...args: T) => void) => run }
  const watch = new WaitWatch(
    () => [looked],
    () => now,
    (_context, wait) => void reported.push(wait.text),
    containment,
    () => isEnded,
  )
  watch.look()
  looked = next
  now = SECOND
  watch.look()
  return { watch, reported }
}

test('a wait of a second is reported when its context ends', () => {
  const { watch, reported } = watching({ context, wait: { id: 'idle-queues', text: 'idle' } })
  watch.ended(context)
  assert.deepEqual(reported, ['idle'])
})

test('a wait stays after the end of its program, whose threads are gone before its context', () => {
  for (const isEnded of [true, false]) {
    const wait = { id: 'deadlock', text: 'the main thread joins a thread' } as const
    const other = { id: 'idle-queues', text: 'idle' } as const
    const { watch, reported } = watching({ context, wait }, { context, wait: other }, isEnded)
    watch.ended(context)
    assert.deepEqual(reported, isEnded ? [wait.text] : [])
  }
})

test('a wait is the same while its text changes beside its key', () => {
  const waits = (peer: string): ContextWait => ({
    context,
    wait: { id: 'idle-queues', text: `idle${peer}` },
    key: 'idle',
  })
  const { watch, reported } = watching(waits(''), waits('; its peer sends'))
  watch.ended(context)
  assert.deepEqual(reported, ['idle; its peer sends'])
})

test('a wait that was over after the last look is not reported', () => {
  let holds = true
  const { watch, reported } = watching({
    context,
    wait: { id: 'connection-waits', text: 'an event was not read' },
    holds: () => holds,
  })
  holds = false
  watch.ended(context)
  watch.reportAll()
  assert.deepEqual(reported, [])
  holds = true
  watch.ended(context)
  assert.deepEqual(reported, ['an event was not read'])
})

test('the end of a channel reports the waits of that channel alone', () => {
  const [channel, other] = [{ id: 7 } as CoreObject, { id: 8 } as CoreObject]
  const { watch, reported } = watching({
    context,
    wait: { id: 'connection-waits', text: 'an event was not read' },
    channel,
  })
  watch.ended(context, other)
  assert.deepEqual(reported, [])
  watch.ended(context, channel)
  assert.deepEqual(reported, ['an event was not read'])
})
