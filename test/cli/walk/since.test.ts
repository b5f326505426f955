/*
 * The report of an earlier walk (`--since`).
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { it } from 'node:test'
import type { WalkResult } from '../../../src/cli/walk/outcome.ts'
import type { WalkPoint } from '../../../src/cli/walk/points.ts'
import { readReport } from '../../../src/cli/walk/since.ts'
import type { Symbols } from '../../../src/tools/check/finding-text.ts'
import { scratchFolder } from '../../tools.ts'

/** Stacks are lines `FUNCTION:LINE`. */
const symbols = {
  framesOf: stack =>
    stack.map(frame => {
      const [name = '', line] = frame.split(':')
      return { function: name, file: '/src/a.c', line: Number(line) }
    }),
} as Symbols

const point = (text: string, frame: string): WalkPoint =>
  ({ kind: 'calls', host: '', text, site: { stack: [frame] } }) as unknown as WalkPoint
const entry = (text: string, frame: string, isFinding: boolean): string =>
  JSON.stringify({
    kind: 'calls',
    text,
    outcome: isFinding ? 'hang' : 'recovered',
    isFinding,
    frames: symbols.framesOf([frame]),
  })

const reportOf = (...lines: readonly string[]) => {
  const file = join(scratchFolder(), 'report')
  writeFileSync(file, `${lines.join('\n')}\n`)
  return readReport(file, symbols)
}

it('what is new, changed or was found comes first', () => {
  const { isFirst } = reportOf(entry('a', 'f:1', false), entry('b', 'g:2', true))
  assert.deepEqual(
    [point('a', 'f:1'), point('a', 'f:9'), point('a', 'h:1'), point('b', 'g:2'), point('c', 'f:1')].map(isFirst),
    [false, true, true, true, true],
  )
})

it('tells new findings from known ones, and counts those that are mended', () => {
  const { isNew, mended } = reportOf(entry('a', 'f:1', false), entry('b', 'g:2', true), entry('c', 'g:3', true))
  const result = (text: string, frame: string, outcome: string): WalkResult =>
    ({ point: point(text, frame), outcome, confirmed: { times: 2, runs: 2 } }) as unknown as WalkResult
  assert.deepEqual([result('a', 'f:1', 'hang'), result('b', 'g:7', 'hang'), result('b', 'g:2', 'crash')].map(isNew), [
    true,
    false,
    true,
  ])
  assert.equal(mended([result('a', 'f:1', 'recovered'), result('b', 'g:2', 'hang'), result('c', 'g:3', 'ended')]), 1)
})

it('refuses a file that is no report, with what is one', () => {
  for (const text of [
    '{"kind":"calls"}',
    '{',
    'userdma walk: 3 points',
    'int main(void)',
    '{"kind":1,"text":"","outcome":"","isFinding":true,"frames":[]}',
  ])
    assert.throws(() => reportOf(text), /--since ".*": .*; give what `userdma walk --json -o FILE` has written/)
  assert.throws(() => readReport('/dev/zero', symbols), /--since "\/dev\/zero": \/dev\/zero is a device/)
  assert.throws(() => readReport('/nonexistent/report', symbols), /--since "\/nonexistent\/report": .*: ENOENT/)
})
