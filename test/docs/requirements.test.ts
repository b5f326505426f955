/*
 * docs/requirements.md names files that exist, and every requirement that a comment names.
 */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../paths.ts'

const page = readFileSync(join(repoRoot, 'docs', 'requirements.md'), 'utf8')
const rows = [...page.matchAll(/^\| R(\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$/gm)]

const filesIn = (cell: string): string[] => [...cell.matchAll(/`([^`]+)`/g)].map(match => match[1])

test('each requirement names code and tests that exist', () => {
  const numbers = rows.map(([, number]) => Number(number))
  assert.deepEqual(
    numbers,
    [...new Set(numbers)].sort((a, b) => a - b),
  )
  assert.ok(numbers.length >= 29)
  for (const [, number, , where, tests] of rows) {
    assert.ok(filesIn(where).length > 0 && filesIn(tests).length > 0, `R${number}`)
    for (const path of filesIn(where)) assert.match(path, /^src\//, `R${number}`)
    for (const path of filesIn(tests)) assert.match(path, /^test\//, `R${number}`)
    for (const path of [...filesIn(where), ...filesIn(tests)])
      assert.ok(existsSync(join(repoRoot, path)), `R${number} names ${path}`)
  }
})

test('every requirement that the code names is on the page', () => {
  const known = new Set([...page.matchAll(/\bR(\d+)\b/g)].map(match => match[1]))
  const sources = readdirSync(join(repoRoot, 'src'), { recursive: true, encoding: 'utf8' })
  for (const path of sources.filter(name => name.endsWith('.ts')))
    for (const [name, number] of readFileSync(join(repoRoot, 'src', path), 'utf8').matchAll(/\bR(\d+)\b/g))
      assert.ok(known.has(number), `src/${path} names ${name}`)
})

test('the page is found from the index of the documents', () => {
  assert.match(readFileSync(join(repoRoot, 'docs', 'README.md'), 'utf8'), /\(requirements\.md\)/)
})
