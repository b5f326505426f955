/*
 * Records of the daemon as the texts of messages, and back.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { recordTexts, type ToolRecord, traceReader, traceTexts } from '../../src/uapi/tool.ts'

/** What a reader makes of texts. */
const read = (texts: readonly string[]): unknown[] => {
  const reader = traceReader()
  return texts.flatMap(text => reader(text) ?? [])
}

test('records of any length are read as they were written, whatever the characters at the ends of their texts', () => {
  const next: ToolRecord = { id: 1, change: 'next' } as unknown as ToolRecord
  for (const sign of ['+', '.', '{', '"', '\\', '😀', 'a'])
    for (const length of [0, 10, 15_950, 16_000, 16_001, 40_000]) {
      const record = { id: 1, change: { name: sign.repeat(length) } } as unknown as ToolRecord
      assert.deepEqual(read([...traceTexts(record), ...traceTexts(next)]), [record, next], `${length} of ${sign}`)
      const texts = [JSON.stringify({ name: sign.repeat(length) })]
      const halves = [texts[0]!.slice(0, 9), texts[0]!.slice(9)]
      for (const parts of [texts, halves])
        assert.deepEqual(read([...recordTexts(1, { kind: 'change', texts: parts }), ...traceTexts(next)]), [
          record,
          next,
        ])
    }
})
