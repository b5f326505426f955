/*
 * The kinds of torment are described in docs/how-to/torment.md with the words of their table.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { TormentKinds } from '../../src/spec/check/torment.ts'
import { repoRoot } from '../paths.ts'

test('docs/how-to/torment.md has the table of kinds', () => {
  const rows = Object.entries(TormentKinds).map(([kind, { help, rule }]) => `| \`${kind}\` | ${help} | ${rule} |`)
  const page = readFileSync(join(repoRoot, 'docs', 'how-to', 'torment.md'), 'utf8')
  assert.deepEqual(
    page.split('\n').filter(line => line.startsWith('| `')),
    rows,
  )
})
