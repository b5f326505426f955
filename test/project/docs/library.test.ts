/*
 * TypeScript and JavaScript programs of the documentation run.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { libraryUrl, repoRoot } from '../../paths.ts'

const noEsbuild = !existsSync(join(repoRoot, 'node_modules', 'esbuild')) && 'esbuild is not installed'
const drivers = new URL('../../../src/drivers/index.js', import.meta.url).href

for (const [name, lines] of [
  ['start/library.md', 15],
  ['start/tutorials/key-value.md', 3],
  ['start/tutorials/bad-networks.md', 7],
  ['how-to/virtual-time.md', 12],
  ['start/rdma-in-ten-minutes.md', 6],
  ['why/object-model.md', 1],
] as const)
  test(`the program of docs/${name} runs and prints what the page shows`, { skip: noEsbuild }, async () => {
    const { transformSync } = await import('esbuild')
    const page = readFileSync(join(repoRoot, 'docs', name), 'utf8')
    const blocks = [...page.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(match => match[1])
    assert.ok(blocks.length > 0)
    const program = blocks.join('\n').replaceAll("from 'userdma'", `from '${libraryUrl}'`)
    const { code } = transformSync(program, { loader: 'ts', format: 'esm', target: 'node20' })
    const output = execFileSync(process.execPath, ['--input-type=module', '-e', code], { encoding: 'utf8' })
    const shown = [...program.matchAll(/console\.log\(.*\) \/\/ (.*)$/gm)].map(match => match[1])
    assert.equal(shown.length, lines, 'lines of the page that show their output')
    for (const line of shown) assert.ok(output.split('\n').includes(line), `"${line}" is not in the output:\n${output}`)
  })

test('the program on the first page runs', () => {
  const page = readFileSync(join(repoRoot, 'README.md'), 'utf8')
  const block = /^```ts\n([\s\S]*?)^```$/m.exec(page)?.[1] ?? ''
  const program = block.replace("from 'userdma'", `from '${libraryUrl}'`)
  assert.match(program, /await open/)
  execFileSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' })
})

for (const name of ['reference/ip.md', 'how-to/check.md'])
  test(`the programs of ${name} run`, () => {
    const page = readFileSync(join(repoRoot, 'docs', name), 'utf8')
    const programs = [...page.matchAll(/^```[jt]s\n([\s\S]*?)^```$/gm)].map(match => match[1])
    assert.ok(programs.length > 0)
    for (const program of programs)
      execFileSync(
        process.execPath,
        ['--input-type=module', '-e', program.replaceAll("from 'userdma'", `from '${libraryUrl}'`)],
        { encoding: 'utf8', stdio: 'pipe' },
      )
  })

test('a device of the null driver is used as the page about drivers shows', () => {
  const page = readFileSync(join(repoRoot, 'docs', 'how-to', 'drivers.md'), 'utf8')
  const block = [...page.matchAll(/^```ts\n([\s\S]*?)^```$/gm)]
    .map(match => match[1])
    .find(one => /addDevice/.test(one))
  const program = (block ?? '')
    .replace("from 'userdma/drivers'", `from '${drivers}'`)
    .replace("from 'userdma'", `from '${libraryUrl}'`)
  const output = execFileSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' })
  assert.equal(output, '3n\n')
})
