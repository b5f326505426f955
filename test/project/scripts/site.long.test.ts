/*
 * The documentation's site is made, and its links have targets.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { run, temporaryFolder } from '../../system/programs.ts'

test('npm run site makes every page, a search and a menu, without a broken link', async t => {
  const { status, stdout, stderr } = await run(t, process.execPath, [join(repoRoot, 'scripts', 'site.mjs')], {})
  assert.equal(status, 0, stdout + stderr)
  assert.match(stderr, /^userdma: \d+ pages in site\/out\/, no broken links$/m)
  for (const page of ['index', 'docs/index', 'docs/reference/cli', 'files/examples/key-value.ts'])
    assert.ok(existsSync(join(repoRoot, 'site', 'out', `${page}.html`)), page)
  const textOf = (page: string): string => readFileSync(join(repoRoot, 'site', 'out', page), 'utf8')
  assert.match(textOf('docs/reference/classes/rc_qp.html'), /<pre class="diagram">stateDiagram/)
  assert.match(
    textOf('docs/findings.html'),
    /A region is never deregistered\..*<[\s\S]*ibv_reg_mr/,
    'texts of programs',
  )
  assert.doesNotMatch(textOf('docs/reference/cli.html'), /<pre><code>/, 'a block that does not scroll')
})

test('links to missing pages and anchors are found', async t => {
  const folder = temporaryFolder(t)
  mkdirSync(join(folder, 'docs'))
  writeFileSync(join(folder, 'docs', 'page.html'), '<h2 id="there">There</h2>')
  const links = ['docs/page.html', '/docs/page#there', 'docs/page.html#gone', './gone.html', 'https://example.org/gone']
  writeFileSync(join(folder, 'index.html'), links.map(link => `<a class="link" href="${link}">x</a>`).join('\n'))
  const { brokenLinks } = await import(join(repoRoot, 'scripts', 'site', 'links.mjs'))
  assert.deepEqual(brokenLinks(folder), ['index.html: docs/page.html#gone', 'index.html: ./gone.html'])
})
