/*
 * Shared by the tests of programs' mistakes.
 */
import assert from 'node:assert/strict'
import { RdmaError } from '../../../src/verbs/index.ts'

/** Passes a value as a program without types would. */
export const untyped = <T>(value: unknown): T => value as T

/** Asserts that `body` is refused as the caller's mistake, with a matching message; returns the hint. */
export const refuses = (call: string, reason: RegExp, body: () => unknown): string => {
  let hint = ''
  assert.throws(body, (error: unknown) => {
    assert.ok(error instanceof RdmaError, `${call}: ${error}`)
    assert.deepEqual([error.code, error.call], ['EINVAL', call], error.message)
    assert.match(error.reason, reason)
    hint = error.hint
    return true
  })
  return hint
}
