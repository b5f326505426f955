/*
 * What `userdma trace` prints about lost records.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { printer, type TraceOptions } from '../../../src/cli/commands/trace.ts'
import type { TraceRecord } from '../../../src/spec/records.ts'

const call: TraceRecord = {
  time: 0,
  duration: 1,
  pid: 1,
  tid: 1,
  fd: 3,
  command: 'x',
  device: 'rxe0',
  dialect: 'ioctl',
  attempt: 'ALLOC_PD',
  ret: -22,
}

/** The lines after two lost records, an unselected call, and three more lost ones. */
const linesOf = (options: Partial<TraceOptions>): string[] => {
  const lines: string[] = []
  const { onLost, onTrace, end } = printer({ class: ['cq'], ...options } as TraceOptions, text =>
    lines.push(...text.split('\n')),
  )
  onLost(2)
  onTrace(call)
  onLost(3)
  end()
  return lines
}

test('lost records are reported at their place, also if no class of calls is shown', () => {
  const text = (lost: number) => `[${lost} records were lost: the reader was too slow]`
  assert.deepEqual(linesOf({}), [text(2), text(3)])
  assert.deepEqual(linesOf({ json: true }), ['{"lost":2}', '{"lost":3}'])
  assert.equal(linesOf({ summary: true }).at(-1), '5 records were lost: the reader was too slow')
  assert.match(linesOf({ summary: true, json: true }).at(-1) ?? '', /"lost":5/)
})
