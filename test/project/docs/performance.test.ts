/*
 * docs/reference/performance.md has every row of the benchmarks, with its limits.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { rows } from '../../../bench/rows.ts'
import { repoRoot } from '../../paths.ts'

/** Rows of the page with limits. `names` match names of benchmark rows; `*` stands for one word. */
const pageRows = [
  ...readFileSync(join(repoRoot, 'docs/reference/performance.md'), 'utf8').matchAll(
    /^\| (`.*`) \|.*\| ([^|]*) \| (\S [^|]*) \| (\S [^|]*) \|$/gm,
  ),
].map(([, names, reference, floor, aim]) => ({
  names: [...names.matchAll(/`([^`]+)`/g)].map(([, name]) => new RegExp(`^${name.replaceAll('*', '[^ ]+')}$`)),
  reference,
  floor,
  aim,
}))

/** Whether `objects *` or `counts *` has the row, whose limits are in bench/objects.ts or bench/counts.ts. */
const hasLimitsInCode = (name: string): boolean => /^objects (?!tcp$|flat$)|^counts /.test(name)

test('docs/reference/performance.md has the limits of every benchmark row', () => {
  for (const { name, better, floor, aim, reference, isJudgedByValue } of rows) {
    if (hasLimitsInCode(name)) continue
    const matching = pageRows.filter(({ names }) => names.some(pattern => pattern.test(name)))
    assert.equal(matching.length, 1, name)
    const isRatio = reference !== 'none' && isJudgedByValue === undefined
    const [row] = matching
    assert.equal(row.reference === '–', reference === 'none', name)
    for (const [limit, text] of [
      [floor, row.floor],
      [aim, row.aim],
    ] as const) {
      const [, sign, number, unit] = /^(.) ([\d.,]+)(.*)$/.exec(text) ?? []
      const found = { better: sign === '≤' ? 'lower' : 'higher', limit: Number(number.replace(',', '')) }
      assert.deepEqual(found, { better, limit }, name)
      assert.equal(unit === '×', isRatio, name)
    }
  }
})

test('every row of docs/reference/performance.md is measured', () => {
  const unknown = pageRows.flatMap(({ names }) =>
    names.filter(pattern => !rows.some(({ name }) => pattern.test(name))).map(String),
  )
  assert.deepEqual(unknown, [])
  assert.ok(pageRows.length > 40)
})
