/*
 * A state that several subscribers follow.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Follower, SharedState } from '../../../src/daemon/session/shared-state.ts'
import { applyPatch } from '../../../src/uapi/merge-patch.ts'

const setUp = () => {
  let value: unknown = { n: 0 }
  let reads = 0
  const state = new SharedState(function* () {
    reads++
    yield
    return value
  }, 16)
  /** Runs the step generators of all followers in turns; returns their records. */
  const next = (...followers: readonly Follower[]) => {
    const running = followers.map(follower => state.next(follower))
    const records: ReturnType<typeof record>[] = []
    const record = (i: number) => {
      const { done, value: parts } = running[i]!.next()
      return done ? { parts: parts ?? undefined } : undefined
    }
    while (records.filter(found => found !== undefined).length < running.length)
      running.forEach((_, i) => {
        records[i] ??= record(i)
      })
    return records.map(found => found?.parts)
  }
  return {
    state,
    next,
    reads: () => reads,
    set: (next: unknown) => {
      value = next
    },
  }
}

test('a state is read once for all that wait for it, and each change is encoded once', () => {
  const { state, next, reads, set } = setUp()
  const followers = Array.from({ length: 100 }, () => state.follow())
  const snapshots = next(...followers)
  assert.deepEqual(snapshots[0], { kind: 'snapshot', texts: ['{"n":0}'] })
  assert.ok(snapshots.every(parts => parts === snapshots[0]))
  assert.equal(reads(), 1)
  set({ n: 1 })
  for (const follower of followers) state.expect(follower)
  const changes = next(...followers)
  assert.deepEqual(changes[99], { kind: 'change', texts: ['{"n":1}'] })
  assert.ok(changes.every(parts => parts === changes[0]))
  assert.equal(reads(), 2)
  assert.deepEqual(next(...followers), Array(100).fill(undefined), 'nobody waits')
})

test('a state that was read a short time ago is not read again, except for a new subscriber', () => {
  const { state, next, reads, set } = setUp()
  const first = state.follow()
  next(first)
  set({ n: 1 })
  state.expect(first, 1e9)
  assert.deepEqual(next(first), [undefined])
  assert.deepEqual(next(state.follow()), [{ kind: 'snapshot', texts: ['{"n":1}'] }])
  assert.equal(reads(), 2)
  state.expect(first, 1e9)
  assert.deepEqual(next(first), [{ kind: 'change', texts: ['{"n":1}'] }])
  assert.equal(reads(), 2)
})

test('a subscriber that is behind gets one change since its state, or a new snapshot if it is far behind', () => {
  const { state, next, set } = setUp()
  const [fast, slow, gone] = [state.follow(), state.follow(), state.follow()]
  next(fast, slow, gone)
  state.end(gone)
  let seen: unknown = { n: 0 }
  for (let n = 1; n <= 10; n++) {
    set({ n, [`only${n}`]: true })
    state.expect(fast)
    next(fast)
  }
  state.expect(slow)
  const [change] = next(slow)
  assert.equal(change?.kind, 'change')
  seen = applyPatch(seen, JSON.parse(change.texts.join('')))
  assert.deepEqual(seen, { n: 10, only10: true })
  for (let n = 11; n <= 30; n++) {
    set({ n })
    state.expect(fast)
    next(fast)
  }
  state.expect(slow)
  assert.deepEqual(next(slow), [{ kind: 'snapshot', texts: ['{"n":30}'] }])
})
