/*
 * Text from other programs for terminals.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { jsonText, printable } from '../../src/spec/printable.ts'

test('text of other programs has no control characters and no line breaks', () => {
  assert.equal(printable('a\u001b[31mb\r\nc\u0085d\u202ee'), 'a [31mb c d e')
  assert.equal(printable('a\u2028b\u2029c'), 'a b c')
  assert.equal(jsonText({ a: 'b\u009bc\u202e\u{e0001}\n' }, 1), '{\n "a": "b\\u009bc\\u202e\\udb40\\udc01\\n"\n}')
  assert.equal(printable('große Übung 🚀'), 'große Übung 🚀')
})
