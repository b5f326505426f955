/*
 * Findings as text, JSON and SARIF.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { endJson, endText, explained, findingJson, sarifLog } from '../../../src/cli/check/report.ts'
import { openReportOf } from '../../../src/cli/check/reporting.ts'
import { createSymbols } from '../../../src/cli/check/symbols.ts'
import type { Finding, StoryLine } from '../../../src/spec/check/finding.ts'
import { findingIds } from '../../../src/spec/check/findings.ts'
import { findingText } from '../../../src/tools/check/finding-text.ts'
import { fixture } from '../../paths.ts'
import { problemsOf, type Schema } from './json-schema.ts'

// Reports omit frames beyond main.
const stack = ['at post (/app/client.ts:42:7)', 'main (file:///app/main.ts:3:1)', 'somewhere']
const finding: Finding = {
  number: 1,
  id: 'stale-rkey',
  severity: 'error',
  text: 'QP 0x11 WRITE wr_id 5: REM_ACCESS_ERR',
  details: ['one more fact'],
  advice: 'deregister later',
  program: { pid: 7, command: 'client' },
  device: 'rxe0',
  time: 5_000_000,
  moments: [{ action: 'posted', time: 5_000_000, stack }],
  objects: [{ name: 'MR 0x700', history: [{ action: 'registered', time: 2_000_000, stack: [] }] }],
}

test('text has the finding, its stacks, objects and advice', () => {
  assert.equal(
    findingText(finding, createSymbols()),
    `userdma check: error stale-rkey: process 7 (client), rxe0: QP 0x11 WRITE wr_id 5: REM_ACCESS_ERR
    one more fact
  posted
    #0 post at /app/client.ts:42
    #1 main at /app/main.ts:3
  MR 0x700
    registered 3.0 s before
  advice: deregister later
`,
  )
})

test('the death of a program in an inline function has its argument, and what the object may lack', () => {
  const dead = (name: string): Finding => ({
    ...finding,
    id: 'program-died',
    severity: 'warning',
    details: [],
    moments: [{ action: 'died', time: 0, stack: [`at ${name} (/usr/include/infiniband/verbs.h:1:1)`] }],
  })
  const detailOf = (name: string) => explained(dead(name), createSymbols()).details
  assert.deepEqual(detailOf('ibv_post_send'), [
    'ibv_post_send is inline, and reads its argument qp: the pointer is not that of such an object',
  ])
  assert.deepEqual(detailOf('ibv_wc_read_imm_data'), [
    'ibv_wc_read_imm_data is inline, and reads its argument cq: the pointer is not that of such an object, or it was created without this field (wc_flags)',
  ])
  assert.deepEqual(detailOf('main'), [])
})

const line = (changes: Partial<StoryLine>): StoryLine => ({
  time: 4_000_000,
  pid: 7,
  command: 'client',
  object: 'QP 0x11',
  event: 'posted',
  text: 'posted SEND wr_id 1',
  stack,
  count: 1,
  ...changes,
})
const told: Finding = {
  ...finding,
  story: [
    line({ event: 'overwritten', object: '', text: '9 older events were overwritten', stack: [], count: 9 }),
    line({ event: 'called', text: 'deregistered', object: 'MR 0x700', isDecisive: true }),
    line({ time: 4_998_800, since: 4_100_000, pid: 8, command: 'server', count: 3 }),
    line({ time: 4_999_998, event: 'polled', object: 'CQ 1', text: 'polled 3 completions', stack: [] }),
  ],
}

test('text has the story, as many lines as are wanted: the last, and those that are decisive', () => {
  const story = (lines?: number): string[] =>
    findingText(told, createSymbols(), { story: lines })
      .split('\n')
      .filter(text => / before {2}|^ {2}story/.test(text))
  assert.deepEqual(story(), [
    '  story (9 older events were overwritten; => is the decisive one)',
    '   => 1000.0 ms before  7 (client)  MR 0x700  deregistered: post (/app/client.ts:42)',
    '         1.2 ms before  8 (server)  QP 0x11   posted SEND wr_id 1, 3 times: post (/app/client.ts:42)',
    '       0.002 ms before  7 (client)  CQ 1      polled 3 completions',
  ])
  assert.deepEqual(story(2), [
    '  story (2 of 3 lines, --story all has the others; 9 older events were overwritten; => is the decisive one)',
    '   => 1000.0 ms before  MR 0x700  deregistered: post (/app/client.ts:42)',
    '       0.002 ms before  CQ 1      polled 3 completions',
  ])
  assert.deepEqual(story(0), [])
})

test('a finding has at most 60 lines, its story and advice among them; the longest parts are cut', () => {
  const history = Array.from({ length: 50 }, () => ({ action: 'modified', time: 0, stack: [] }))
  const long: Finding = { ...told, objects: ['QP 0x1', 'QP 0x2'].map(name => ({ name, history })) }
  const lines = findingText(long, createSymbols()).trimEnd().split('\n')
  assert.equal(lines.length, 60)
  assert.equal(lines.at(-1), '  advice: deregister later')
  assert.match(lines.at(-6)!, /^ {4}… \d+ more lines: --verbose$/)
  assert.equal(
    findingText(long, createSymbols(), { lines: Number.POSITIVE_INFINITY }).trimEnd().split('\n').length,
    5 + 2 * 51 + 5,
  )
})

test('what was told before is not repeated: a story, and what follows from a finding is a line', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'userdma-report-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'findings')
  const report = openReportOf({ output: path, story: 12, failOn: 'never' }, [])
  const later: Finding = { ...told, number: 2, id: 'peer-in-error', time: told.time + 10 }
  const leak = { ...finding, id: 'leak', severity: 'note', left: 'QP', follows: 1 } as const
  const all: Finding[] = [told, later, { ...finding, number: 3, id: 'peer-ended', severity: 'note', follows: 1 }]
  for (const one of [...all, { ...leak, number: 4 }, { ...leak, number: 5 }]) report.onFinding(one)
  const [counts, hasCalls, isRecorded] = [() => 1, true, true]
  await report.finish({ programEnd: { status: 0, signal: null }, counts, omissions: [], hasCalls, isRecorded })
  const text = readFileSync(path, 'utf8')
  assert.equal(text.match(/deregistered: post/g)?.length, 1)
  assert.match(text, /check: error peer-in-error: (.*\n)+? {2}story: that of stale-rkey above\n {2}advice/)
  assert.match(text, /\n\nuserdma check: follows peer-ended: process 7 \(client\), rxe0: QP 0x11 WRITE wr_id 5: .*\n\n/)
  assert.match(text, /\n\nuserdma check: follows leak: .*: 2 objects \(QP\) were left at exit after the error; .*\n\n/)
  assert.match(text, /\nuserdma check: 2 errors; 2 lines say what follows\n$/)
})

test('JSON has the frames of a story, SARIF a code flow with the importance of each step', () => {
  const { story } = findingJson(told, createSymbols())
  assert.deepEqual(story?.[1]?.stack[0], { function: 'post', file: '/app/client.ts', line: 42 })
  assert.deepEqual([story?.[1]?.isDecisive, story?.[2]?.count], [true, 3])
  const log = sarifLog([[told, 1]], createSymbols(), '1')
  const [flow] = log.runs[0]?.results[0]?.codeFlows ?? []
  assert.deepEqual(
    flow?.threadFlows[0]?.locations.map(({ importance, location: { message } }) => [importance, message.text]),
    [
      ['important', 'process 7 (client): 9 older events were overwritten'],
      ['essential', 'process 7 (client), MR 0x700: deregistered'],
      ['important', 'process 8 (server), QP 0x11: posted SEND wr_id 1, 3 times'],
      ['important', 'process 7 (client), CQ 1: polled 3 completions'],
    ],
  )
  assert.deepEqual(problemsOf(schema, asRead(log)), [])
})

test('control characters that a program has chosen are not printed', () => {
  const hostileText = 'a\x1b[31m\x9b2J\nuserdma check: error'
  const text = findingText(
    {
      ...finding,
      text: hostileText,
      details: [hostileText],
      program: { pid: 7, command: hostileText },
      moments: [{ action: 'posted', time: 0, stack: [hostileText] }],
      objects: [{ name: hostileText, history: [{ action: 'created', time: 0, stack: [hostileText] }] }],
    },
    createSymbols(),
  )
  assert.doesNotMatch(text.replaceAll('\n', ''), /\p{C}/u)
  assert.equal(text.split('\n').filter(line => line.startsWith('userdma check:')).length, 1)
})

test('special characters of file names are encoded in the URIs of SARIF', () => {
  const special = { ...finding, moments: [{ action: 'posted', time: 0, stack: ['main (/a b/50%#?.ts:3:1)'] }] }
  const [run] = sarifLog([[special, 1]], createSymbols(), '1').runs
  assert.equal(run?.results[0]?.locations?.[0]?.physicalLocation.artifactLocation.uri, '/a%20b/50%25%23%3F.ts')
})

test('JSON has the frames of stacks, and the count of the finding', () => {
  const { moments, count } = findingJson(finding, createSymbols(), 3)
  assert.equal(count, 3)
  assert.deepEqual(moments[0]?.frames[0], { function: 'post', file: '/app/client.ts', line: 42 })
})

test('SARIF has a rule for each id, and a result for each finding; a finding with a stack has a location', () => {
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

test('a SARIF result has the stacks of its moments, and is located in a file outside /usr if a stack has one', () => {
  const moments = [
    { action: 'deregistered', time: 3, stack: [] },
    { action: 'noticed', time: 3, stack: ['/no/such/app+0x10 main'] },
    { action: 'posted', time: 2, stack: ['at first (/usr/share/first.ts:1:1)'] },
    { action: 'posted the other', time: 1, stack },
  ]
  const result = sarifLog([[{ ...finding, moments }, 1]], createSymbols(), '1').runs[0]?.results[0]
  assert.deepEqual(
    result?.stacks?.map(({ message, frames }) => [message.text, frames.length]),
    [
      ['noticed', 1],
      ['posted', 1],
      ['posted the other', 2],
    ],
  )
  assert.equal(result?.locations?.[0]?.physicalLocation.artifactLocation.uri, '/app/client.ts')
})

test('a frame of an unreadable file has the file name and symbol that the program sent', () => {
  const [frame] = createSymbols().framesOf(['/no/such/libibverbs.so.1+0x10 ibv_post_send'])
  assert.deepEqual(frame, { function: 'ibv_post_send', object: '/no/such/libibverbs.so.1' })
})

const schema = JSON.parse(readFileSync(fixture('sarif', 'sarif-schema-2.1.0.json'), 'utf8')) as Schema
/** Removes undefined values, as writing to a file does. */
const asRead = (log: unknown): unknown => JSON.parse(JSON.stringify(log))

test('SARIF fits the schema of OASIS, for every finding and every kind of stack', () => {
  const stacks = [
    [],
    stack,
    ['/opt/app [1]+0x10 main', '/opt/lib\u{1f600}.so+0x20 '],
    ['main (/a b/50%#?\u00e9.ts:3:1)', 'unknown text'],
    ['run (C:\\x.py:0:0)'],
  ]
  const severities = ['note', 'warning', 'error'] as const
  const all = findingIds.flatMap((id, i) =>
    stacks.map(
      (frames, j) =>
        [
          {
            ...finding,
            id,
            severity: severities[(i + j) % severities.length]!,
            moments: ['posted', 'posted the other'].map(action => ({ action, time: 1, stack: frames })),
          },
          1 + j,
        ] as const,
    ),
  )
  for (const log of [sarifLog(all, createSymbols(), '1.2.3'), sarifLog([], createSymbols(), '')])
    assert.deepEqual(problemsOf(schema, asRead(log)), [])
})

test('an end by a signal is a line of JSON, and a notification of SARIF', () => {
  const end = { signal: 'SIGKILL', pid: 12 }
  assert.deepEqual(endJson(end), { ended: 'SIGKILL', pid: 12, text: 'SIGKILL ended the program (process 12)' })
  assert.equal(endText({ signal: 'SIGKILL', pid: undefined }), 'SIGKILL ended the program')
  const log = sarifLog([], createSymbols(), '1', [], end)
  assert.deepEqual(
    log.runs[0]?.invocations?.[0]?.toolExecutionNotifications.map(({ message }) => message.text),
    ['SIGKILL ended the program (process 12)'],
  )
  assert.deepEqual(problemsOf(schema, asRead(log)), [])
})

test('the validator finds what does not fit the schema', () => {
  const [run] = sarifLog([[finding, 1]], createSymbols(), '1').runs
  assert.ok(run)
  const [result] = run.results
  const cases: readonly (readonly [unknown, RegExp])[] = [
    [{ version: '2.1.0' }, /lacks runs/],
    [{ version: '2.0.0', runs: [run] }, /version: "2.0.0" is not one of 2.1.0/],
    [{ version: '2.1.0', runs: [{ ...run, tool: {} }] }, /tool: lacks driver/],
    [{ version: '2.1.0', runs: [{ ...run, more: 1 }] }, /has unknown more/],
    [{ version: '2.1.0', runs: [{ ...run, results: [{ ...result, occurrenceCount: 0 }] }] }, /0 is below 1/],
    [{ version: '2.1.0', runs: [{ ...run, results: [{ ...result, level: 'bad' }] }] }, /level: "bad" is not one of/],
  ]
  for (const [log, message] of cases) assert.match(problemsOf(schema, asRead(log)).join('\n'), message)
})
