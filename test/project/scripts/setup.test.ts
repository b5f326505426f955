/*
 * scripts/setup.mjs in a checkout whose node_modules is a link.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { scratchFolder } from '../../tools.ts'

test('npm ci, which would empty a shared folder, does not run if node_modules is a link', () => {
  const folder = scratchFolder()
  for (const name of ['scripts', 'package.json', 'package-lock.json'])
    cpSync(join(repoRoot, name), join(folder, name), { recursive: true, dereference: true })
  for (const name of ['shared', 'bin']) mkdirSync(join(folder, name))
  symlinkSync('shared', join(folder, 'node_modules'))
  const called = join(folder, 'called')
  writeFileSync(join(folder, 'bin', 'npm'), `#!/bin/sh\n: > '${called}'\nexit 1\n`, { mode: 0o755 })
  const { status, stderr } = spawnSync(process.execPath, [join(folder, 'scripts', 'setup.mjs')], {
    encoding: 'utf8',
    env: { PATH: join(folder, 'bin') },
  })
  assert.equal(existsSync(called), false, 'npm was called')
  assert.equal(status, 1)
  assert.match(stderr, /node_modules is a link to .*shared, .* older than package-lock\.json: .*npm ci.* there/)
})
