/*
 * The table of `--torment` behaviour, src/spec/check/torment.ts.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { TormentKinds } from '../../src/spec/check/torment.ts'
import { repoRoot } from '../paths.ts'

test('docs/how-to/torment.md has the rows of TormentKinds', () => {
  const rows = Object.entries(TormentKinds).map(([kind, { help, rule }]) => `| \`${kind}\` | ${help} | ${rule} |`)
  const page = readFileSync(join(repoRoot, 'docs', 'how-to', 'torment.md'), 'utf8')
  assert.deepEqual(
    page.split('\n').filter(line => line.startsWith('| `')),
    rows,
  )
})
