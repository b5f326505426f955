/*
 * docs/reference/linux-abi.md matches the tables (R41, R42). UPDATE_GOLDEN=1 rewrites it.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { machine } from '../../drivers/rxe/machine.ts'
import { repoRoot } from '../../paths.ts'
import { linuxAbiPage } from './linux-abi.ts'

const path = join(repoRoot, 'docs', 'reference', 'linux-abi.md')

test('the page of Linux’s calls is current, and the index links to it', () => {
  const [{ device }] = machine(1).devices
  const page = linuxAbiPage((name, method) => device.sharedTable.byName.get(name)?.class.methods[method] !== undefined)
  if (process.env.UPDATE_GOLDEN) writeFileSync(path, page)
  assert.equal(
    readFileSync(path, 'utf8'),
    page,
    'UPDATE_GOLDEN=1 npm test -- linux-abi regenerates docs/reference/linux-abi.md',
  )
  assert.match(readFileSync(join(repoRoot, 'docs', 'README.md'), 'utf8'), /\(reference\/linux-abi\.md\)/)
})
