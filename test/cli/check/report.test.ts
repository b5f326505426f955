/*
 * Findings as text, JSON and SARIF.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { findingJson, sarifLog } from '../../../src/cli/check/report.ts'
import { createSymbols } from '../../../src/cli/check/symbols.ts'
import type { Finding } from '../../../src/spec/findings.ts'
import { findingText } from '../../../src/trace/findings.ts'

const stack = ['at post (/app/client.ts:42:7)', 'main (file:///app/main.ts:3:1)', 'somewhere']
const finding: Finding = {
  number: 1,
  id: 'stale-rkey',
  severity: 'error',
  text: 'QP 0x11 WRITE wr_id 5: REM_ACCESS_ERR',
  details: ['one more fact'],
  program: { pid: 7, command: 'client' },
  device: 'rxe0',
  time: 5_000_000,
  moments: [{ what: 'posted', time: 5_000_000, stack }],
  objects: [{ name: 'MR 0x700', history: [{ what: 'registered', time: 2_000_000, stack: [] }] }],
}

test('text for people', () => {
  assert.equal(
    findingText(finding, createSymbols()),
    `userdma check: error stale-rkey: process 7 (client), rxe0: QP 0x11 WRITE wr_id 5: REM_ACCESS_ERR
    one more fact
  posted
    #0 post at /app/client.ts:42
    #1 main at /app/main.ts:3
  MR 0x700
    registered 3.0 s before
  advice: deregister only after the peer has said that it uses the key no more
`,
  )
})

test('what programs name has no control characters on a terminal', () => {
  const odd = 'a\x1b[31m\x9b2J\nuserdma check: error'
  const text = findingText(
    {
      ...finding,
      text: odd,
      details: [odd],
      program: { pid: 7, command: odd },
      moments: [{ what: 'posted', time: 0, stack: [odd] }],
      objects: [{ name: odd, history: [{ what: 'created', time: 0, stack: [odd] }] }],
    },
    createSymbols(),
  )
  const kept = [...text].filter(char => char !== '\n').join('')
  assert.doesNotMatch(kept, /\p{C}/u)
  assert.equal(text.split('\n').filter(line => line.startsWith('userdma check:')).length, 1)
})

test('SARIF has URIs of files', () => {
  const odd = { ...finding, moments: [{ what: 'posted', time: 0, stack: ['main (/a b/50%#?.ts:3:1)'] }] }
  const [run] = sarifLog([[odd, 1]], createSymbols(), '1').runs
  assert.equal(run?.results[0]?.locations?.[0]?.physicalLocation.artifactLocation.uri, '/a%20b/50%25%23%3F.ts')
})

test('JSON has frames in place of addresses, and the count', () => {
  const { moments, count } = findingJson(finding, createSymbols(), 3)
  assert.equal(count, 3)
  assert.deepEqual(moments[0]?.frames[0], { function: 'post', file: '/app/client.ts', line: 42 })
})

test('SARIF: a rule for each id, a result for each finding, with its place', () => {
  const log = sarifLog(
    [
      [finding, 2],
      [{ ...finding, number: 2, moments: [] }, 1],
    ],
    createSymbols(),
    '1.2.3',
  )
  const [run] = log.runs
  assert.equal(log.version, '2.1.0')
  assert.deepEqual(
    run?.tool.driver.rules.map(({ id, defaultConfiguration }) => [id, defaultConfiguration.level]),
    [['stale-rkey', 'error']],
  )
  assert.deepEqual(run?.results[0]?.locations?.[0]?.physicalLocation, {
    artifactLocation: { uri: '/app/client.ts' },
    region: { startLine: 42 },
  })
  assert.equal(run?.results[0]?.occurrenceCount, 2)
  assert.equal(run?.results[1]?.locations, undefined)
})

test('a file without symbols keeps its name and the symbol that the program knew', () => {
  const [frame] = createSymbols().framesOf(['/no/such/libibverbs.so.1+0x10 ibv_post_send'])
  assert.deepEqual(frame, { function: 'ibv_post_send', object: '/no/such/libibverbs.so.1' })
})
