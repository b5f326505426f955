/*
 * scripts/package.mjs on a machine that lacks tools, and after an interrupted run. What it makes without them:
 * test/project/package/use.long.test.ts.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { scratchFolder } from '../../tools.ts'
import { makePackages } from '../package/making.ts'

const other = process.arch === 'x64' ? 'arm64' : 'x64'

test('without what was named, or anything with --all, it fails before it makes a package', () => {
  const cases = [
    { args: ['npm', 'platform', '--arch', other], message: `cannot make platform for ${other}; ` },
    { args: ['npm', 'deb'], message: `cannot make deb for ${process.arch}; .*apt-get install .*dpkg` },
    { args: ['--all'], message: 'cannot make platform, tarball, deb, image for x64; .*; .*mmdebstrap' },
    { args: ['--all', 'deb'], message: '--all is every package for every architecture' },
  ]
  for (const { args, message } of cases) {
    const { status, stderr, made } = makePackages(args.includes('deb') ? ['gcc', 'as', 'ld', 'objdump'] : [], ...args)
    assert.deepEqual([status, made], [1, []], stderr)
    assert.match(stderr, new RegExp(`^userdma: package: ${message}`), args.join(' '))
  }
})

test('a compiler for another architecture without its C library is told, and no package that is here', () => {
  const [prefix, debian] = process.arch === 'x64' ? ['aarch64', 'arm64'] : ['x86_64', 'amd64']
  const tools = ['objdump', [`${prefix}-linux-gnu-gcc`, 'false']] as const
  const { status, stderr } = makePackages(tools, 'platform', '--arch', other)
  assert.equal(status, 1)
  assert.match(stderr, new RegExp(`sudo apt-get install libc6-dev-${debian}-cross\n$`))
})

/** As `npm pack --json`, of 3 bytes in two parts; between them it writes what the folder of packages has to a file. */
const NPM = `#!/bin/sh
while [ "$1" != --pack-destination ]; do shift; done
printf ab > "$2/userdma-0.tgz"
ls -A "$PACKAGES" > "$PACKAGES.meanwhile"
printf c >> "$2/userdma-0.tgz"
echo '[{"filename": "userdma-0.tgz"}]'
`

test('a package has its name when it is complete; what an interrupted run left is removed', () => {
  const folder = mkdtempSync(join(scratchFolder(), 'interrupted-'))
  const [tools, output] = ['tools', 'made'].map(name => join(folder, name)) as [string, string]
  const left = join(output, `.making-${spawnSync('true').pid}`)
  // Of a process that runs: another run, which is not interrupted.
  const other = `.making-${process.pid}`
  for (const path of [tools, left, join(output, other)]) mkdirSync(path, { recursive: true })
  for (const path of [left, output]) writeFileSync(join(path, 'userdma-0.tgz'), 'older')
  writeFileSync(join(tools, 'npm'), NPM, { mode: 0o755 })
  const { status, stderr, pid } = spawnSync(
    process.execPath,
    [join(repoRoot, 'scripts', 'package.mjs'), 'npm', '--output', output],
    {
      env: { ...process.env, PACKAGES: output, PATH: `${tools}:${process.env.PATH}`, TMPDIR: folder },
      encoding: 'utf8',
    },
  )
  assert.equal(status, 0, stderr)
  const meanwhile = readFileSync(`${output}.meanwhile`, 'utf8').trim().split('\n')
  assert.deepEqual(new Set(meanwhile), new Set([`.making-${pid}`, other, 'userdma-0.tgz']))
  assert.deepEqual(readdirSync(output).sort(), [other, 'userdma-0.tgz'])
  assert.equal(readFileSync(join(output, 'userdma-0.tgz'), 'utf8'), 'abc')
})
