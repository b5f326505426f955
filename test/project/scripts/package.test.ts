/*
 * scripts/package.mjs on a machine that lacks tools. What it makes without them: test/project/package/use.long.test.ts.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
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
