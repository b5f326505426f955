/*
 * docs/reference/programs.md, except its section about pyverbs. `npm run docs:programs` writes it.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { catalogue } from '../catalogue/catalogue.ts'
import { expectedVerdict, PAGE, renderPage } from '../catalogue/page.ts'

const page = readFileSync(PAGE, 'utf8')
const PYVERBS = '## pyverbs'

test('the page lists the commands of the tests and their verdicts', () => {
  const [programs] = page.split(PYVERBS)
  const rendered = renderPage(expectedVerdict, PYVERBS)
  assert.equal(programs, rendered.split(PYVERBS)[0], '`npm run docs:programs` regenerates the page')
})

test('no command is run twice, and failing commands have a reason', () => {
  const lines = catalogue.flatMap(({ cases }) => cases.map(({ server, client }) => `${server} ${client}`))
  assert.deepEqual(
    lines.filter((line, i) => lines.indexOf(line) !== i),
    [],
  )
  const failing = page.split('\n').filter(line => line.includes('| fails |'))
  assert.ok(failing.length > 0)
  const reasonInLastCell = /\| [^|]{10,} \|$/
  for (const line of failing) assert.match(line, reasonInLastCell)
})

test('the index links to the page', () => {
  assert.match(readFileSync(join(repoRoot, 'docs', 'README.md'), 'utf8'), /\(reference\/programs\.md\)/)
})
