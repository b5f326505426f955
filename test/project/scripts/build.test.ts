/*
 * scripts/build.mjs in a small checkout: what `--for start` and `--for test` build.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { findTool, scratchFolder } from '../../tools.ts'

/** A minimal checkout with the project's build scripts. */
const smallCheckout = (): string => {
  const folder = scratchFolder()
  const { protocol, records }: { readonly protocol: readonly string[]; readonly records: string } = JSON.parse(
    readFileSync(join(repoRoot, 'scripts', 'protocol-sources.json'), 'utf8'),
  )
  const sources = [...protocol, records].map(name => `src/${name}.ts`)
  for (const name of ['scripts', 'tsconfig.json', 'package.json', ...sources])
    cpSync(join(repoRoot, name), join(folder, name), { recursive: true, dereference: true })
  symlinkSync(join(repoRoot, 'node_modules'), join(folder, 'node_modules'))
  mkdirSync(join(folder, 'shim', 'host'), { recursive: true })
  cpSync(join(repoRoot, 'shim', 'run'), join(folder, 'shim', 'run'), { recursive: true })
  mkdirSync(join(folder, 'test', 'programs'), { recursive: true })
  return folder
}

const build = (folder: string, ...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(folder, 'scripts', 'build.mjs'), ...args], {
    encoding: 'utf8',
  })
  return { status, output: stdout + stderr }
}

test('`--for start` builds no tests, other builds do', () => {
  const folder = smallCheckout()
  const source = join(folder, 'test', 'broken.test.ts')
  writeFileSync(
    source,
    "import { SESSION_VERSION } from '../src/spec/session.ts'\nexport const wrong: string = SESSION_VERSION\n",
  )
  writeFileSync(join(folder, 'test', 'programs', 'broken.c'), 'int main(void) { return nothing; }\n')
  const session = join(folder, 'dist', 'src', 'spec', 'session.js')
  const program = join(folder, 'build', 'programs', 'broken')

  const start = build(folder, '--for', 'start')
  assert.equal(start.status, 0, start.output)
  assert.ok(existsSync(session))
  assert.equal(existsSync(join(folder, 'dist', 'test')), false)

  const all = build(folder)
  assert.equal(all.status, 1)
  assert.match(all.output, /broken\.test\.ts\(2,14\): error TS2322/) // line and column of `wrong`

  writeFileSync(source, "import '../src/spec/session.ts'\n")
  writeFileSync(join(folder, 'test', 'programs', 'broken.c'), 'int main(void) { return 0; }\n')
  const repaired = build(folder, '--for', 'test')
  assert.equal(repaired.status, 0, repaired.output)
  assert.ok(existsSync(join(folder, 'dist', 'test', 'broken.test.js')))
  assert.equal(existsSync(program), findTool('cc') !== undefined)
})

test('a C program is compiled again if a header in another folder has changed', {
  skip: findTool('cc') === undefined,
}, () => {
  const folder = smallCheckout()
  writeFileSync(
    join(folder, 'test', 'programs', 'value.c'),
    '#include "../value.h"\nint main(void) { return VALUE; }\n',
  )
  const header = join(folder, 'test', 'value.h')
  writeFileSync(header, '#define VALUE 0\n')
  assert.equal(build(folder).status, 0)
  writeFileSync(header, '#define VALUE nothing\n')
  const changed = build(folder)
  assert.equal(changed.status, 1)
  assert.match(changed.output, /nothing/)
})

test('an unknown purpose is refused', () => {
  const { status, output } = build(repoRoot, '--for', 'fun')
  assert.equal(status, 1)
  assert.equal(output, 'userdma: usage: node scripts/build.mjs [--for start|package|test|long|bench]; got: --for fun\n')
})
