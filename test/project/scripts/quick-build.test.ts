/*
 * scripts/quick-build.mjs: tests that need little run without a build of everything.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { scratchFolder } from '../../tools.ts'

const sources: Readonly<Record<string, string>> = {
  'src/sum.ts': "import type { Numbers } from './numbers.ts'\nexport const sum = ([a, b]: Numbers): number => a + b\n",
  'src/numbers.ts': 'export type Numbers = [number, number]\n',
  'src/spawning.ts': "export { spawn } from 'node:child_process'\n",
  'test/near/sum.test.ts':
    "import { test } from 'node:test'\nimport { sum } from '../../src/sum.ts'\ntest('sum', () => { if (sum([1, 2]) !== 3) throw new Error() })\n",
  'test/near/wrong.test.ts': "import '../../src/absent.ts'\n",
  'test/far/spawning.test.ts': "import '../../src/spawning.ts'\n",
  'test/far/built.test.ts': "import { readFileSync } from 'node:fs'\nreadFileSync('dist/src/sum.js')\n",
}

const checkout = (): string => {
  const folder = scratchFolder()
  for (const name of ['scripts', 'package.json']) cpSync(join(repoRoot, name), join(folder, name), { recursive: true })
  for (const [path, text] of Object.entries(sources)) {
    mkdirSync(join(folder, path, '..'), { recursive: true })
    writeFileSync(join(folder, path), text)
  }
  return folder
}

/** The built files; undefined if the tests need more. */
const quickBuild = (folder: string, ...chosen: readonly string[]): unknown => {
  const script = `const { files } = await (await import(process.argv[1])).quickBuild(process.argv.slice(2))
    process.stdout.write('\\n' + JSON.stringify(files ?? null))`
  const args = ['--input-type=module', '-e', script, join(folder, 'scripts', 'quick-build.mjs')]
  const paths = chosen.map(name => `test/${name}.test.ts`)
  const { stdout } = spawnSync(process.execPath, [...args, ...paths], { encoding: 'utf8' })
  return JSON.parse(stdout.split('\n').at(-1) ?? '') ?? undefined
}

test('builds and runs the tests that were asked for, with what they import, also after a full build and a change', () => {
  const folder = checkout()
  const stale = join(folder, 'dist', 'test', 'near', 'sum.test.js')
  mkdirSync(join(stale, '..'), { recursive: true })
  writeFileSync(stale, "throw new Error('stale')\n")
  writeFileSync(join(folder, 'dist', 'all.tsbuildinfo'), '')
  mkdirSync(join(folder, 'node_modules'))
  for (const name of readdirSync(join(repoRoot, 'node_modules')))
    symlinkSync(join(repoRoot, 'node_modules', name), join(folder, 'node_modules', name))
  cpSync(join(repoRoot, 'package-lock.json'), join(folder, 'package-lock.json'))
  writeFileSync(join(folder, 'node_modules', '.package-lock.json'), '')
  const { NODE_TEST_CONTEXT: _context, ...env } = process.env
  const run = (): string => {
    const args = [join(folder, 'scripts', 'setup.mjs'), '--test', 'near/sum']
    return spawnSync(process.execPath, args, { encoding: 'utf8', env }).stdout
  }
  assert.match(run(), /pass 1\n/)
  assert.deepEqual(readdirSync(join(folder, 'dist', 'quick', 'test', 'near')).sort(), [
    'sum.test.js',
    'sum.test.js.map',
  ])
  writeFileSync(join(folder, 'src', 'sum.ts'), 'export const sum = (): number => 4\n')
  assert.match(run(), /fail 1\n/)
})

test('tests that need more get the compiled sources, also where one of several does', () => {
  const folder = checkout()
  symlinkSync(join(repoRoot, 'node_modules'), join(folder, 'node_modules'))
  for (const chosen of [['far/spawning'], ['far/built'], ['near/wrong'], ['near/sum', 'far/spawning']])
    assert.equal(quickBuild(folder, ...chosen), undefined, chosen.join(' '))
  assert.equal(existsSync(join(folder, 'dist')), false)
})
