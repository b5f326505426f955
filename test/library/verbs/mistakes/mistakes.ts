/*
 * Helpers for tests with wrong calls of the library.
 */
import assert from 'node:assert/strict'
import { RdmaError } from '../../../../src/library/index.ts'

/** A value of a wrong type, from a JavaScript program. */
export const untyped = <T>(value: unknown): T => value as T

/** Matches `RdmaError.reason` if the object in `option` is of another device. */
export const ofAnotherDevice = (option: string): RegExp => new RegExp(`^${option} is of another device$`)

/** Asserts that `body` throws an RdmaError EINVAL of `call`; returns the hint. */
export const refuses = (call: string, reason: RegExp, body: () => unknown): string => {
  let hint = ''
  assert.throws(body, (error: unknown) => {
    assert.ok(error instanceof RdmaError, `${call}: ${error}`)
    const code = /is closed$/.test(error.reason) ? 'ERR_CLOSED' : 'EINVAL'
    assert.deepEqual([error.code, error.call], [code, call], error.message)
    assert.match(error.reason, reason)
    hint = error.hint
    return true
  })
  return hint
}
