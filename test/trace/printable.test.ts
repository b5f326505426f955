/*
 * Text from other programs for terminals.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { printable } from '../../src/trace/printable.ts'

test('text of other programs has no control characters and no line breaks', () => {
  assert.equal(printable('a\u001b[31mb\r\nc\u0085d\u202ee'), 'a [31mb c d e')
  assert.equal(printable('a\u2028b\u2029c'), 'a b c')
  assert.equal(printable('große Übung 🚀'), 'große Übung 🚀')
})
