/*
 * docs/reference/conformance.md.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../../paths.ts'

const page = readFileSync(join(repoRoot, 'docs', 'reference', 'conformance.md'), 'utf8')
/** Including the header rows of the tables. */
const rows = page
  .split('\n')
  .filter(line => /^\|/.test(line) && !/^\|[\s|:-]+\|$/.test(line))
  .map(line => line.split('|').slice(1, -1))
const named = (row: readonly string[]): [file: string, name: string][] =>
  row.flatMap(cell =>
    [...cell.matchAll(/`(test\/[^`]+)` "([^"]+)"/g)].map(([, file, name]) => [file, name] as const),
  ) as [string, string][]

test('every rule has a test', () => {
  const rules = rows.filter(row => row[0].trim() !== 'clause')
  assert.ok(rules.length > 60, `only ${rules.length} rules`)
  for (const row of rules) assert.ok(named(row).length > 0, row.join('|'))
})

test('every named test exists', () => {
  for (const [file, name] of rows.flatMap(named)) {
    assert.ok(existsSync(join(repoRoot, file)), `${file} does not exist`)
    const source = readFileSync(join(repoRoot, file), 'utf8').replaceAll("\\'", "'")
    assert.ok(source.includes(name), `${file} has no "${name}"`)
  }
})

test('every row has five columns, and the index links to the page', () => {
  for (const row of rows) assert.equal(row.length, 5, row.join('|'))
  assert.match(readFileSync(join(repoRoot, 'docs', 'README.md'), 'utf8'), /\(reference\/conformance\.md\)/)
})
