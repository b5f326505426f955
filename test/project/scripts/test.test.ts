/*
 * scripts/test.mjs finds the test files named in docs/reference/requirements.md that ran no test.
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

test('files that ran no test are found', async () => {
  const folder = scratchFolder()
  mkdirSync(join(folder, 'dist', 'test'), { recursive: true })
  const paths = Object.entries(files).map(([name, text]) => {
    const path = join(folder, 'dist', 'test', `${name}.test.js`)
    writeFileSync(path, `const { describe, it, test } = require('node:test')\n${text}\n`)
    return path
  })
  const reporter = join(repoRoot, 'scripts', 'ran-reporter.cjs')
  // With this variable, Node's test runner would act as a child of this test.
  const { NODE_TEST_CONTEXT: _context, ...env } = process.env
  const { stdout } = spawnSync(process.execPath, ['--test', `--test-reporter=${reporter}`, ...paths], {
    cwd: folder,
    encoding: 'utf8',
    env,
  })
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
