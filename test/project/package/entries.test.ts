/*
 * Entry points of the package export the same names with the same types as before: moves of files change nothing for
 * programs. UPDATE_GOLDEN=1 (`npm run docs`) accepts a change that is meant.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { fixture } from '../../paths.ts'
import { skipTest } from '../../tools.ts'
import { entryLines } from './entries.ts'

const path = fixture('entries.txt')

test('entry points export what test/fixtures/entries.txt has: names, and hashes of their declarations', t => {
  const now = entryLines()
  if (now === undefined) {
    skipTest(t, 'typescript-oldest is not installed')
    return
  }
  assert.ok(now.length > 400, `only ${now.length} names`)
  if (process.env.UPDATE_GOLDEN) writeFileSync(path, `${now.join('\n')}\n`)
  const before = readFileSync(path, 'utf8').trimEnd().split('\n')
  assert.deepEqual(
    {
      gone: before.filter(line => !now.includes(line)),
      new: now.filter(line => !before.includes(line)),
    },
    { gone: [], new: [] },
    '`npm run docs` accepts changes of what the package exports',
  )
})
