/*
 * When a recording says that a program waits, and when that the wait is over.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { Context } from '../../../../src/core/model.ts'
import { type FoundWait, recordWaits } from '../../../../src/tools/clients/record/recorded-waits.ts'

const start = () => {
  const contexts = new Set<Context>()
  const context = { id: 1, device: { contexts } } as unknown as Context
  contexts.add(context)
  const wait: FoundWait = {
    context,
    device: 'rxe0',
    pid: 7,
    command: 'server',
    id: 'both-receive',
    text: 'both have receives posted',
    objects: [3, 4],
  }
  const state = { time: 0, found: [wait] as readonly FoundWait[] }
  const written: string[] = []
  const waits = recordWaits(
    () => state.found,
    // Its timers never fire: the tests look.
    { now: () => state.time, after: () => ({}), clear() {} },
    ({ wait: number, change, facts }) =>
      written.push(`${number} ${change} since ${facts.since}, objects ${facts.objects}: ${facts.text}`),
  )
  const lookAt = (time: number, found: readonly FoundWait[]): void => {
    state.time = time
    state.found = found
    waits.look()
  }
  return { contexts, context, wait, waits, written, lookAt, state }
}

it('records a wait once it has lasted for a second, and again when it is over', () => {
  const { wait, written, lookAt, waits } = start()
  lookAt(100, [wait])
  lookAt(900_000, [wait])
  assert.deepEqual(written, [])
  lookAt(1_000_100, [wait])
  lookAt(2_000_000, [wait])
  assert.deepEqual(written, ['1 began since 100, objects 3,4: both have receives posted'])
  lookAt(3_000_000, [])
  assert.equal(written.length, 2)
  assert.match(written[1], /^1 over /)
  // The same again is another wait.
  lookAt(4_000_000, [wait])
  lookAt(6_000_000, [wait])
  assert.match(written[2], /^2 began since 4000000,/)
  waits.end()
})

it('does not record a wait that is over within a second', () => {
  const { wait, written, lookAt, waits } = start()
  lookAt(0, [wait])
  lookAt(500_000, [])
  lookAt(1_200_000, [wait])
  waits.end()
  assert.deepEqual(written, [])
})

it('says that a wait lasted until its program closed the device or ended', () => {
  const { wait, written, lookAt, waits, contexts, context, state } = start()
  lookAt(0, [wait])
  lookAt(1_000_000, [wait])
  contexts.delete(context)
  state.found = []
  waits.end()
  assert.match(written[1], /^1 closed /)
})
