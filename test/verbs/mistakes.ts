/*
 * What tests of programs' mistakes share.
 */
import assert from 'node:assert/strict'
import { RdmaError } from '../../src/verbs/index.ts'

/** What a program without types passes. */
export const untyped = <T>(value: unknown): T => value as T

/** That `body` is refused as a mistake of its caller, with a sentence like this; answers the hint. */
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
