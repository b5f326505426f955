/*
 * Numbers of a program's stacks on a daemon's device. The program sends one stack more than the daemon keeps: the
 * daemon then reports that stacks are missing.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createStackNumbers } from '../../../../src/library/verbs/remote/stack-numbers.ts'
import { MAX_STACKS } from '../../../../src/spec/session.ts'

/** Functions that call their argument from different lines. */
const callers = new Function(
  `return [${Array.from({ length: MAX_STACKS + 3 }, () => 'f => {\nconst r = f(); return r }').join()}]`,
)() as readonly ((numberOf: () => number) => number)[]

test('equal stacks have the same number, and at most one stack more than the daemon keeps is sent', () => {
  const sent: number[] = []
  const stackNumber = createStackNumbers(id => {
    sent.push(id)
    return id <= MAX_STACKS
  })
  // All calls are on one line: the stacks differ only by `callers`.
  const order = [0, 0, ...callers.keys(), 1]
  const numbers = order.map(index => callers[index]!(stackNumber))
  assert.deepEqual(numbers.slice(0, 4), [1, 1, 1, 2])
  // 0: a stack that the daemon does not keep.
  assert.deepEqual(numbers.slice(-5), [MAX_STACKS, 0, 0, 0, 2])
  assert.deepEqual([sent.length, sent.at(-1)], [MAX_STACKS + 1, MAX_STACKS + 1])
})
