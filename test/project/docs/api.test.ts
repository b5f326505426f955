/*
 * docs/reference/api.md matches the library's types. UPDATE_GOLDEN=1 (`npm run docs`) rewrites it. The types that the
 * package has name nothing that only those who change userdma know.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { repoRoot } from '../../paths.ts'
import { skipTest } from '../../tools.ts'
import { apiPage } from './api.ts'

const path = join(repoRoot, 'docs', 'reference', 'api.md')

test('the reference of the library is current, and every public member is documented', t => {
  const page = apiPage()
  if (page === undefined) {
    skipTest(t, 'typescript-oldest is not installed')
    return
  }
  assert.deepEqual(page.undocumented, [], 'write a comment above each of these, with units and errors')
  if (process.env.UPDATE_GOLDEN) writeFileSync(path, page.text)
  assert.ok(page.text === readFileSync(path, 'utf8'), '`npm run docs` regenerates docs/reference/api.md')
})

test('the types of the package name no numbers of requirements, and no files that it does not have', async () => {
  const npm = pathToFileURL(join(repoRoot, 'scripts', 'package', 'npm.mjs')).href
  const { publicTypes } = (await import(npm)) as { publicTypes(): readonly string[] }
  const files = publicTypes().map(file => readFileSync(file, 'utf8'))
  assert.ok(files.length > 200)
  assert.deepEqual(
    files.flatMap(text => text.match(/.*(?:\bR\d+\b|docs\/(?:decisions|findings)\b).*/g) ?? []),
    [],
  )
})
