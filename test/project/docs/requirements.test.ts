/*
 * docs/reference/requirements.md names code, tests and commands that exist. scripts/test.mjs checks that the tests ran.
 */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { flagOf } from '../../../src/cli/command-line/option.ts'
import { allCommands } from '../../../src/cli/command-line/program.ts'
import { repoRoot } from '../../paths.ts'

const read = (...path: string[]): string => readFileSync(join(repoRoot, ...path), 'utf8')
const page = read('docs', 'reference', 'requirements.md')
const rows = [...page.matchAll(/^\| R(\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$/gm)].map(match => ({
  number: Number(match[1]),
  code: match[3],
  tests: match[4],
  commands: match[5],
}))

const REQUIREMENTS = 47

const quoted = (cell: string): string[] => [...cell.matchAll(/`([^`]+)`/g)].map(match => match[1])

/** Test files that `npm test` runs, or `npm test -- words`. */
const filesToRun = async (words: readonly string[] = []): Promise<string[]> => {
  const { testFiles } = (await import(pathToFileURL(join(repoRoot, 'scripts', 'test.mjs')).href)) as {
    testFiles(long: boolean, words: readonly string[]): Promise<string[]>
  }
  return (await testFiles(false, words)).map(path => path.replace(/^dist\//, '').replace(/\.js$/, '.ts'))
}

test('every requirement has a row, in order', () => {
  assert.deepEqual(
    rows.map(({ number }) => number),
    Array.from({ length: REQUIREMENTS }, (_, i) => i + 1),
  )
})

test('each row names code that exists, and tests that npm test runs', async () => {
  const run = new Set(await filesToRun())
  assert.ok(run.size > 100 && run.has('test/project/docs/requirements.test.ts'), `the runner has ${run.size} files`)
  for (const { number, code, tests } of rows) {
    const [files, named] = [quoted(code), quoted(tests)]
    assert.ok(files.length > 0 && named.length > 0, `R${number}`)
    for (const path of files) assert.ok(/^src\//.test(path) && existsSync(join(repoRoot, path)), `R${number}: ${path}`)
    for (const path of named) {
      assert.ok(run.has(path), `R${number} names ${path}, which npm test does not run`)
      assert.match(read(path), /\b(?:test|it)\(/, `R${number}: ${path} has no test`)
    }
  }
})

test('each row names a command that exists', async () => {
  for (const { number, commands: shownCommands } of rows) {
    assert.ok(quoted(shownCommands).length > 0, `R${number}`)
    for (const line of quoted(shownCommands)) {
      const where = `R${number}: ${line}`
      const [, kind, rest] = /^(userdma|npm test --|npm run bench --|node dist\/examples\/)\s*(.+)$/.exec(line) ?? []
      if (kind === 'userdma') {
        const [command, ...more] = rest.split(' -- ')[0].split(' ')
        const found = allCommands[command]
        assert.ok(found !== undefined, where)
        const all = [found, ...Object.values(found.commands ?? {})].flatMap(({ options = {} }) =>
          Object.entries(options),
        )
        const flags = all.map(([name, option]) => flagOf(name, option))
        for (const word of more.filter(one => one.startsWith('--')))
          assert.ok(flags.includes(word.split('=')[0]), where)
      } else if (kind === 'npm test --') assert.ok((await filesToRun(rest.split(' '))).length > 0, where)
      else if (kind === 'npm run bench --') assert.ok(existsSync(join(repoRoot, 'bench', `${rest}.ts`)), where)
      else assert.ok(kind && existsSync(join(repoRoot, 'examples', rest.replace(/\.js$/, '.ts'))), where)
    }
  }
})

test('every requirement that the code names is on the page', () => {
  for (const path of readdirSync(join(repoRoot, 'src'), { recursive: true, encoding: 'utf8' }))
    if (path.endsWith('.ts'))
      for (const [name, number] of read('src', path).matchAll(/\bR(\d+)\b/g))
        assert.ok(Number(number) >= 1 && Number(number) <= REQUIREMENTS, `src/${path} names ${name}`)
})

test('the index of the documents links to the page', () => {
  assert.match(read('docs', 'README.md'), /\(reference\/requirements\.md\)/)
})
