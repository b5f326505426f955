/*
 * Which occurrences of mistakes are one finding.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Finding } from '../../../src/spec/check/finding.ts'
import { FindingReporter, type Occurrence } from '../../../src/tools/check/reporting.ts'

const occurrence: Occurrence = {
  time: 1,
  device: 'rxe0',
  context: 0,
  program: { pid: 1, command: 'prog' },
  stack: ['prog+0x1 main'],
}
const text = 'WRITE of QP 0x12 and READ of QP 0x11 access the same 8 bytes'

test('occurrences of a warning and of an error are two findings, although text and stack are equal', () => {
  const found: Finding[] = []
  const reporter = new FindingReporter(finding => found.push(finding))
  for (const severity of ['warning', 'error', 'warning'] as const)
    reporter.report('race', occurrence, { text, severity })
  assert.deepEqual(
    found.map(({ severity }) => severity),
    ['warning', 'error'],
  )
  assert.deepEqual(reporter.counts, [2, 1])
})

test('the pid and the numbers in the text do not distinguish occurrences, the stack does', () => {
  const found: Finding[] = []
  const reporter = new FindingReporter(finding => found.push(finding))
  reporter.report('race', occurrence, { text })
  reporter.report(
    'race',
    { ...occurrence, program: { pid: 2, command: 'prog' } },
    { text: text.replace('0x12', '0x13') },
  )
  reporter.report('race', { ...occurrence, stack: [] }, { text })
  assert.equal(found.length, 2)
  assert.deepEqual(reporter.counts, [2, 1])
})

test('after `beginFresh` a mistake that was found before is a new finding', () => {
  const found: Finding[] = []
  const reporter = new FindingReporter(finding => found.push(finding))
  reporter.report('race', occurrence, { text })
  assert.equal(reporter.beginFresh(), 1)
  for (const pid of [7, 8]) reporter.report('race', { ...occurrence, program: { pid, command: 'prog' } }, { text })
  assert.deepEqual(
    found.map(({ number, program }) => [number, program?.pid]),
    [
      [1, 1],
      [2, 7],
    ],
  )
  assert.deepEqual(reporter.counts, [1, 2])
})

test('the number of findings is bounded between two calls of `beginFresh`, and of all', () => {
  let found = 0
  const reporter = new FindingReporter(() => found++)
  const reportMany = (): number => {
    reporter.beginFresh()
    const before = found
    for (let i = 0; i < 1001; i++) reporter.report('race', { ...occurrence, stack: [`frame ${i}`] }, { text })
    return found - before
  }
  assert.deepEqual(Array.from({ length: 11 }, reportMany), [...new Array(10).fill(1000), 0])
  assert.equal(reporter.omitted.get('findings'), 10 + 1001)
})
