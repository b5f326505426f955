/*
 * Jobs that run in slices, a limited number in each turn of the event loop.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nextTurn } from '../../../src/host/event-loop/next-turn.ts'
import { createSlices } from '../../../src/host/event-loop/slices.ts'

/** A job that adds its name to `seen` before each yield, and ends with a further slice. */
function* job(name: string, yields: number, seen: string[]): Generator<undefined, string> {
  for (let i = 0; i < yields; i++) {
    seen.push(name)
    yield
  }
  return name
}
const fail = (error: unknown): never => {
  throw error
}

test('each turn of the event loop runs a limited number of slices, of all jobs in rotation', async () => {
  const seen: string[] = []
  const slicesPerTurn = 3
  const slices = createSlices(undefined, slicesPerTurn)
  slices.begin(job('a', 5, seen), fail)
  slices.begin(job('b', 2, seen), fail)
  assert.equal(seen.join(''), 'aaa')
  await nextTurn()
  assert.equal(seen.join(''), 'aaaaba')
  while (slices.waiting > 0) await nextTurn()
  assert.equal(seen.join(''), 'aaaabab')
})

test('an awaited job starts in the next turn; by default a turn runs one slice', async () => {
  const seen: string[] = []
  let turns = 0
  const slices = createSlices(() => turns++)
  const ended = slices.run(job('a', 3, seen))
  assert.deepEqual(seen, [])
  assert.equal(await ended, 'a')
  assert.equal(turns, 4)
})

test('a job that throws is reported, and the others continue', async () => {
  const seen: string[] = []
  const errors: unknown[] = []
  const slices = createSlices(undefined, 2)
  slices.begin(
    (function* () {
      yield
      throw new Error('a bug')
    })(),
    error => errors.push(String(error)),
  )
  slices.begin(job('b', 1, seen), fail)
  while (slices.waiting > 0) await nextTurn()
  assert.deepEqual([errors, seen], [['Error: a bug'], ['b']])
})

test('jobs may start other jobs, and all can be run to completion', () => {
  const seen: string[] = []
  const slices = createSlices(undefined, 1)
  slices.begin(
    (function* () {
      yield slices.begin(job('b', 100, seen), fail)
    })(),
    fail,
  )
  assert.deepEqual(seen, [])
  slices.finish()
  assert.deepEqual([seen.length, slices.waiting], [100, 0])
  slices.begin(job('c', 1, seen), fail)
  assert.equal(seen.length, 100, 'this turn allows no further slice')
})
