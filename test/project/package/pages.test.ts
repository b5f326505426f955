/*
 * `userdma help PAGE`: the pages that messages name are in the installed tree.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { doctorChecks, pageOf } from '../../../src/cli/doctor/diagnosis.ts'
import { pageNames, pageText } from '../../../src/cli/pages.ts'
import { repoRoot } from '../../paths.ts'
import { filesBelow, scratchFolder } from '../../tools.ts'

/** What programs print: string literals of the sources, without comments. */
const sources = ['src', 'shim', 'native', 'web', 'bin']
  .flatMap(folder => filesBelow(join(repoRoot, folder)))
  .filter(path => /\.(?:tsx?|[ch]|mjs)$|\/userdma$/.test(path))
  .map(path => readFileSync(path, 'utf8').replace(/\/\*[\s\S]*?\*\/|(?<=^|\s)\/\/.*/g, ''))

test('no message names a file of the documentation, which not every package has', () => {
  assert.deepEqual(
    sources.flatMap(text => text.match(/\bdocs\/[\w/.-]+|[\w/-]+\.md\b/g) ?? []),
    [],
  )
})

test('each page that a message names is printed from the installed tree', async () => {
  const home = join(scratchFolder(), 'lib', 'userdma')
  const tree = await import(pathToFileURL(join(repoRoot, 'scripts', 'package', 'tree.mjs')).href)
  const { stageProgram } = tree as { stageProgram(home: string): Promise<void> }
  await stageProgram(home)
  const named = sources.flatMap(text => [...text.matchAll(/userdma help ([\w-]+\/[\w/#-]+)/g)].map(([, page]) => page))
  const checks = Object.keys(doctorChecks) as (keyof typeof doctorChecks)[]
  const pages = new Set([...named, ...checks.map(pageOf), 'pages'])
  assert.ok(pages.size > checks.length + 4, [...pages].join(' '))
  symlinkSync(join(repoRoot, 'node_modules'), join(home, 'node_modules'))
  for (const page of pages) assert.ok(pageText(page ?? '')?.trim(), page)
  for (const wrong of ['../package', 'how-to/doctor#no-such', 'decisions/rings', 'how-to'])
    assert.equal(pageText(wrong), undefined, wrong)
  const help = (topic: string): string =>
    spawnSync(process.execPath, [join(home, 'bin', 'userdma'), 'help', topic], { encoding: 'utf8' }).stdout
  assert.equal(help('pages'), pageText('pages'))
  const section = help('how-to/doctor#kernel')
  assert.match(section, /^## kernel\n\nThe daemon reads/)
  assert.doesNotMatch(section, /\n## /)
  const leak = readFileSync(join(repoRoot, 'docs', 'findings', 'leak.c'), 'utf8')
  assert.ok(help('findings#leak').includes(leak), 'the program of a finding, to which the page has a link only')
  for (const name of pageNames())
    assert.equal(
      readFileSync(join(home, 'docs', `${name}.md`), 'utf8'),
      readFileSync(join(repoRoot, 'docs', `${name}.md`), 'utf8'),
    )
})
