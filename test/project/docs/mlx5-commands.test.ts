/*
 * docs/reference/mlx5-commands.md matches the tables. UPDATE_GOLDEN=1 rewrites it.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { mlx5CommandsPage } from './mlx5-commands.ts'

const path = join(repoRoot, 'docs', 'reference', 'mlx5-commands.md')

test('the page of mlx5’s firmware commands is current, and the index links to it', () => {
  const page = mlx5CommandsPage()
  if (process.env.UPDATE_GOLDEN) writeFileSync(path, page)
  assert.equal(
    readFileSync(path, 'utf8'),
    page,
    'UPDATE_GOLDEN=1 npm test -- docs/mlx5-commands regenerates docs/reference/mlx5-commands.md',
  )
  assert.match(readFileSync(join(repoRoot, 'docs', 'README.md'), 'utf8'), /\(reference\/mlx5-commands\.md\)/)
})
