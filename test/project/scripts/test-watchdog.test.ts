/*
 * scripts/test-watchdog.cjs ends test files in which nothing moves, or that compute without end; the rest of them runs.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { scratchFolder } from '../../tools.ts'

const files: Readonly<Record<string, string>> = {
  waits: `test('a', () => promisify(execFile)('sh', ['-c', 'echo so far; sleep 1000; :']).catch(e => assert.fail(e.stdout)))
    test('b', () => assert.fail('b runs'))`,
  computes: "test('c', () => { spawnSync('sh', ['-c', 'while :; do :; done']) })",
  'computes-itself': "test('d', async () => { await promisify(setTimeout)(50); for (;;); })",
  'waits-itself': "test('f', () => new Promise(() => setInterval(() => {}, 1000)))",
  'leaves-its-output':
    "test('g', () => spawn('sleep', ['60'], { detached: true, stdio: ['ignore', 'inherit', 'ignore'] }).unref())",
  good: "test('h', () => promisify(execFile)('sleep', ['0.1']))",
}

const imports = `const { describe, it, test } = require('node:test')
const assert = require('node:assert'), { execFile, spawn, spawnSync } = require('node:child_process'), { promisify } = require('node:util')
`

test('tests that do not go on are ended, with what their processes were doing', () => {
  const folder = scratchFolder()
  const paths = Object.entries(files).map(([name, text]) => {
    const path = join(folder, `${name}.test.js`)
    writeFileSync(path, imports + text)
    return path
  })
  const { NODE_TEST_CONTEXT: _context, ...env } = process.env
  const { stdout, stderr } = spawnSync(
    process.execPath,
    [
      ...['--test', `--test-concurrency=${paths.length}`, '--test-reporter=tap', '--test-reporter-destination=stdout'],
      ...[`--test-reporter=${join(repoRoot, 'scripts', 'ran-reporter.cjs')}`, '--test-reporter-destination=/dev/null'],
      ...paths,
    ],
    { cwd: folder, encoding: 'utf8', env: { ...env, USERDMA_TEST_LIMITS: '4 2 1000' } },
  )
  const told = (name: string): string[] =>
    stderr.split(/^userdma: /m).filter(text => text.startsWith(`${name}.test.ts: `))
  const [waits = '', ...noMore] = told('waits')
  assert.match(
    waits,
    /^\S+ nothing has moved for 4 s\. The processes that it started are ended\.\n {2}running, as the file last told: a\n/,
  )
  assert.match(waits, /^ {2}\d+: 0\.0 s, S( \w+)?: sleep 1000$/m)
  assert.deepEqual(noMore, [])
  assert.match(stdout, /so far/)
  assert.match(stdout, /b runs/)
  assert.match(
    told('computes')[0] ?? '',
    /no test began or ended in 2 s of processor time\. The processes that it started/,
  )
  assert.match(
    told('computes-itself')[0] ?? '',
    /in 2 s of processor time\. The file is ended\.\n {2}running, as the file last told: d\n/,
  )
  assert.match(
    told('waits-itself')[0] ?? '',
    /nothing has moved for 4 s\. The file is ended\.\n {2}running, as the file last told: f\n/,
  )
  assert.match(told('leaves-its-output')[0] ?? '', /Its process has ended, but another has its output open\.\n/)
  assert.deepEqual(told('good'), [])
  assert.match(stdout, /^# pass 3$/m)
})
