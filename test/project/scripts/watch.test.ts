/*
 * scripts/affected-tests.mjs finds the tests that a change affects, and `npm test` selects tests by their names.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { repoRoot } from '../../paths.ts'
import { scratchFolder } from '../../tools.ts'

const script = (name: string): string => join(repoRoot, 'scripts', name)

const files: Readonly<Record<string, string>> = {
  'src/changed.js': 'export const changed = 1',
  'src/user.js': "export { changed } from './changed.js'",
  'src/other.js': 'export const other = 1',
  'test/far.test.js': "const { changed } = await import('../src/user.js')",
  'test/near.test.js': "import { changed } from '../src/changed.js'",
  'test/other.test.js': "import '../src/other.js'",
}

test('the tests of a changed file are those that import it, the nearest first', async () => {
  const folder = scratchFolder()
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), `${text}\n`)
  }
  const { affectedTests } = (await import(pathToFileURL(script('affected-tests.mjs')).href)) as {
    affectedTests(dist: string, changed: readonly string[]): string[]
  }
  const affectedBy = (name: string): string[] => affectedTests(folder, [join(folder, name)])
  assert.deepEqual(
    affectedBy('src/changed.js'),
    ['test/near.test.js', 'test/far.test.js'].map(name => join(folder, name)),
  )
  assert.deepEqual(affectedBy('test/far.test.js'), [join(folder, 'test/far.test.js')])
  assert.deepEqual(affectedBy('src/absent.js'), [])
})

test('sources of the page are watched too', async () => {
  const { isSource } = (await import(pathToFileURL(script('watch.mjs')).href)) as { isSource(name: string): boolean }
  for (const name of ['a.ts', 'views/calls.tsx', 'style.css', 'index.html', 'host/shim.c', 'host/records.h'])
    assert.ok(isSource(name), name)
  for (const name of ['protocol.h', 'a.ts~', 'README.md', '']) assert.ok(!isSource(name), name)
})

test('a word that selects no test is answered with the nearest one that does', () => {
  const { NODE_TEST_CONTEXT: _context, ...env } = process.env
  const refusal = (word: string): string =>
    spawnSync(process.execPath, [script('test.mjs'), word], { encoding: 'utf8', env }).stderr
  assert.equal(refusal('wrie'), 'userdma: no test file has "wrie" in its path, did you mean "wire"?\n')
  assert.match(
    refusal('conection'),
    /^userdma: no test file has "conection" in its path, did you mean "connections?"\?\n$/,
  )
  assert.match(refusal('nothinglikethis'), /in its path; folders and files of test\/ are .*, cli, .*, web\n$/)
})

test('--test-name-pattern selects tests; an unknown option, and a pattern that no name matches, are failures', () => {
  const { NODE_TEST_CONTEXT: _context, ...env } = process.env
  const runTests = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [script('test.mjs'), 'wire/bth', ...args], {
      encoding: 'utf8',
      env,
    })
    // Of a slow run progress is told.
    return { status, passed: /pass (\d+)/.exec(stdout)?.[1], stderr: stderr.replace(/^userdma: tests: .*\n/gm, '') }
  }
  assert.deepEqual(runTests('--test-name-pattern', 'P_Key'), { status: 0, passed: '1', stderr: '' })
  assert.deepEqual(runTests('--test-name-pattern=absent'), {
    status: 1,
    passed: '0',
    stderr: 'userdma: no test ran: no name matches absent\n',
  })
  const { status, stderr } = runTests('--quick')
  assert.equal(status, 1)
  assert.match(stderr, /^userdma: Unknown option '--quick'; there are --long, --test-name-pattern PATTERN, and words /)
})
