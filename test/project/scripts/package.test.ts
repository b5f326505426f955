/*
 * scripts/package.mjs on a machine that lacks tools: here the tools are those of a folder.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { findTool, scratchFolder } from '../../tools.ts'

const scratch = scratchFolder()
const other = process.arch === 'x64' ? 'arm64' : 'x64'

/** Runs it with these tools only. */
const makePackages = (tools: readonly string[], ...args: readonly string[]) => {
  const [path, output] = ['tools-', 'packages-'].map(name => mkdtempSync(join(scratch, name))) as [string, string]
  for (const tool of tools) symlinkSync(findTool(tool) ?? '', join(path, tool))
  const { status, stderr } = spawnSync(
    process.execPath,
    [join(repoRoot, 'scripts', 'package.mjs'), ...args, '--output', join(output, 'made')],
    { env: { ...process.env, PATH: path }, encoding: 'utf8' },
  )
  const made = existsSync(join(output, 'made')) ? readdirSync(join(output, 'made')) : []
  return { status, stderr, made }
}

test('what this machine cannot make is left out, with the packages that it needs', t => {
  const tools = ['gcc', 'as', 'ld', 'objdump', 'npm', 'env', 'node', 'sh', 'git']
  if (tools.some(tool => !findTool(tool))) return t.skip(`one of ${tools.join(', ')} is missing`)
  const { status, stderr, made } = makePackages(tools, 'platform')
  assert.equal(status, 0, stderr)
  assert.deepEqual(
    made.map(name => /^userdma-linux-(x64|arm64)-.*tgz$/.exec(name)?.[1]),
    [process.arch],
  )
  const compiler = other === 'arm64' ? 'gcc-aarch64-linux-gnu' : 'gcc-x86-64-linux-gnu'
  assert.match(stderr, new RegExp(`^userdma: left out: platform for ${other}; .*apt-get install ${compiler}\n`))
})

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
