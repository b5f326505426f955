/*
 * scripts/test.mjs finds the test files named in docs/reference/requirements.md that ran no test, and prints stacks with
 * lines of TypeScript.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { repoRoot } from '../../paths.ts'
import { scratchFolder } from '../../tools.ts'

const files: Readonly<Record<string, string>> = {
  ran: "test('one', () => {}); test('other', { skip: true }, () => {})",
  within: "describe('a group', () => { it('one', () => {}) })",
  failed: "test('one', () => { throw new Error('no') })",
  skipped:
    "test('one', { skip: 'there is nothing' }, () => {}); describe('a group', { skip: true }, () => { it('x', () => {}) })",
  'skips-itself': "test('one', t => t.skip('not here'))",
  todo: "test.todo('one')",
  empty: '',
}

// With this variable, Node's test runner would act as a child of this test.
const { NODE_TEST_CONTEXT: _context, ...env } = process.env

/** What the reporter prints of test files in `folder`. */
const report = (name: string, folder: string, paths: readonly string[]): string => {
  const reporter = `--test-reporter=${join(repoRoot, 'scripts', name)}`
  return spawnSync(process.execPath, ['--test', reporter, ...paths], { cwd: folder, encoding: 'utf8', env }).stdout
}

test('files that ran no test are found', async () => {
  const folder = scratchFolder()
  mkdirSync(join(folder, 'dist', 'test'), { recursive: true })
  const paths = Object.entries(files).map(([name, text]) => {
    const path = join(folder, 'dist', 'test', `${name}.test.js`)
    writeFileSync(path, `const { describe, it, test } = require('node:test')\n${text}\n`)
    return path
  })
  const stdout = report('ran-reporter.cjs', folder, paths)
  const { namedButNotRun } = (await import(pathToFileURL(join(repoRoot, 'scripts', 'test.mjs')).href)) as {
    namedButNotRun(page: string, ran: string): string[]
  }
  const page = ['gone', ...Object.keys(files)].map(name => `| R1 | \`test/${name}.test.ts\` |`).join('\n')
  assert.deepEqual(
    namedButNotRun(page, stdout),
    ['empty', 'gone', 'skipped', 'skips-itself', 'todo'].map(name => `test/${name}.test.ts`),
  )
  assert.deepEqual(namedButNotRun('`src/transport/wire/bth.ts`', ''), [])
})

test('stacks of failed tests have the lines of the sources, also without --enable-source-maps', () => {
  const folder = scratchFolder()
  const path = join(folder, 'a.test.js')
  writeFileSync(
    path,
    "require('node:test').test('fails', () => { throw new Error('no') })\n//# sourceMappingURL=a.test.js.map",
  )
  // The first line is line 5 of the source.
  writeFileSync(
    `${path}.map`,
    JSON.stringify({ version: 3, sources: ['../from/a.test.ts'], names: [], mappings: 'AAIA' }),
  )
  const text = report('spec-reporter.cjs', folder, [path])
  assert.match(text, new RegExp(`\\(${join(folder, '..', 'from', 'a.test.ts')}:5:1\\)`))
  assert.match(text, /test at \.\.\/from\/a\.test\.ts:5:1/)
  assert.doesNotMatch(text, /a\.test\.js:\d/)
})
