/*
 * scripts/quick-build.mjs: in a checkout that was never built, tests that need little run without a full build.
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
  symlinkSync(join(repoRoot, 'node_modules'), join(folder, 'node_modules'))
  for (const [path, text] of Object.entries(sources)) {
    mkdirSync(join(folder, path, '..'), { recursive: true })
    writeFileSync(join(folder, path), text)
  }
  return folder
}

const quickBuild = (folder: string, ...chosen: readonly string[]): string => {
  const script = `console.log(await (await import(process.argv[1])).quickBuild(process.argv.slice(2)))`
  const args = ['--input-type=module', '-e', script, join(folder, 'scripts', 'quick-build.mjs')]
  const paths = chosen.map(name => `test/${name}.test.ts`)
  return spawnSync(process.execPath, [...args, ...paths], { encoding: 'utf8' }).stdout.trim()
}

test('builds the tests that were asked for, with what they import', () => {
  const folder = checkout()
  assert.equal(quickBuild(folder, 'near/sum'), 'true')
  assert.deepEqual(readdirSync(join(folder, 'dist', 'test', 'near')).sort(), ['sum.test.js', 'sum.test.js.map'])
  const { NODE_TEST_CONTEXT: _context, ...env } = process.env
  const { stdout } = spawnSync(process.execPath, [join(folder, 'scripts', 'test.mjs'), 'near/sum'], {
    encoding: 'utf8',
    env,
  })
  assert.match(stdout, /pass 1\n/)
})

test('tests that need more get a full build, also where one of several does', () => {
  const folder = checkout()
  for (const chosen of [['far/spawning'], ['far/built'], ['near/wrong'], ['near/sum', 'far/spawning']])
    assert.equal(quickBuild(folder, ...chosen), 'false', chosen.join(' '))
  assert.equal(existsSync(join(folder, 'dist')), false)
})

test('after a full build there is no quick one', () => {
  const folder = checkout()
  mkdirSync(join(folder, 'dist'))
  writeFileSync(join(folder, 'dist', 'all.tsbuildinfo'), '')
  assert.equal(quickBuild(folder, 'near/sum'), 'false')
})
