/*
 * The package's location, and temporary folders.
 */
import assert from 'node:assert/strict'
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { packageRoot, privateFolder, removeFolder } from '../../src/cli/paths.ts'

test('the package is found from the compiled files', () => {
  assert.ok(existsSync(join(packageRoot, 'package.json')))
})

test('a private folder is accessible to its user only', () => {
  const folder = privateFolder()
  assert.equal(statSync(folder).mode & 0o777, 0o700)
  removeFolder(folder)
  assert.ok(!existsSync(folder))
})

test('if no folder can be created, the message names TMPDIR', t => {
  const previous = process.env.TMPDIR
  t.after(() => {
    if (previous === undefined) delete process.env.TMPDIR
    else process.env.TMPDIR = previous
  })
  // Nobody can make a folder in /proc, which says ENOENT.
  for (const folder of ['/no/such', '/proc']) {
    process.env.TMPDIR = folder
    assert.throws(privateFolder, {
      message: `cannot make a folder in ${folder} (ENOENT); set TMPDIR to a folder of yours`,
    })
  }
})
