/*
 * The lines that install userdma, from nothing to the first completed ibv_rc_pingpong: scripts of test/project/install
 * with packages that scripts/package.mjs makes.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, statSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { compileC, requireTool, scratchFolder } from '../../tools.ts'

const scratch = scratchFolder()
const packages = join(scratch, 'packages')
/** The example of pytest with its library, which runs with what is installed; empty without pytest. */
let tests = ''
/** Without the image, which roots.long.test.ts installs. */
const PACKAGES = ['npm', 'platform', 'tarball', 'deb']

const makePackages = (output: string, arch: string = process.arch, ...names: readonly string[]): void => {
  const script = join(repoRoot, 'scripts', 'package.mjs')
  execFileSync(process.execPath, [script, ...names, '--arch', arch, '--output', output], { stdio: 'pipe' })
}

/** Checks the outcome of a script of test/project/install. */
const assertInstalled = ({
  status,
  stdout,
  stderr,
}: {
  status: number | null
  stdout: string
  stderr: string
}): void => {
  assert.equal(status, 0, stdout + stderr)
  assert.equal([...stdout.matchAll(/1000 iters in/g)].length, 2, stdout)
  if (tests !== '') assert.match(stdout, /^117 passed, 2 skipped/m)
}

const scriptOf = (name: string): string => join(repoRoot, 'test', 'project', 'install', name)
const install = (name: string, env?: NodeJS.ProcessEnv): void =>
  assertInstalled(spawnSync(scriptOf(name), [packages, '', tests], { encoding: 'utf8', ...(env && { env }) }))

/** Runs a script as root on a copy of this machine's files, which is dropped afterwards. */
const installOnCopy = (name: string): void => {
  const copy = join(scratch, 'copy')
  const script = `set -e
    mkdir -p ${copy}; mount -t tmpfs tmpfs ${copy}; mkdir ${copy}/upper ${copy}/work ${copy}/root
    mount -t overlay overlay -o lowerdir=/,upperdir=${copy}/upper,workdir=${copy}/work ${copy}/root
    for name in proc dev sys; do mount --rbind /$name ${copy}/root/$name; done
    mount -t tmpfs -o mode=1777 tmpfs ${copy}/root/tmp; mkdir ${copy}/root/tmp/packages ${copy}/root/tmp/install ${copy}/root/tmp/tests
    mount --bind ${packages} ${copy}/root/tmp/packages; mount --bind ${scriptOf('')} ${copy}/root/tmp/install
    ${tests && `mount --bind ${tests} ${copy}/root/tmp/tests`}
    exec chroot ${copy}/root /tmp/install/${name} /tmp/packages '' ${tests && '/tmp/tests'}`
  assertInstalled(spawnSync('unshare', ['-m', 'sh', '-c', script], { encoding: 'utf8' }))
}

/** The environment without Node.js. */
const withoutNode = (): NodeJS.ProcessEnv => {
  const path = join(scratch, 'path')
  mkdirSync(path)
  for (const folder of (process.env.PATH ?? '').split(':').filter(existsSync))
    for (const name of readdirSync(folder))
      if (!['node', 'npm', 'npx'].includes(name) && !existsSync(join(path, name)))
        symlinkSync(join(folder, name), join(path, name))
  return { ...process.env, PATH: path }
}

before(() => {
  makePackages(packages, process.arch, ...PACKAGES)
  if (spawnSync('python3', ['-m', 'pytest', '--version']).status !== 0) return
  const examples = join(repoRoot, 'examples', 'tests')
  tests = join(scratch, 'tests')
  cpSync(join(examples, 'pytest'), tests, { recursive: true })
  compileC(join(tests, 'libtransfer.so'), [join(examples, 'transfer.c')], ['-shared', '-fPIC', '-libverbs'])
})

describe('packages', () => {
  test('have at most 60 MB', () => {
    const sizes = readdirSync(packages).map(name => statSync(join(packages, name)).size)
    assert.equal(sizes.length, 4)
    assert.ok(Math.max(...sizes) < 60e6, String(sizes))
  })

  test('have the same bytes after a second run', () => {
    const again = join(scratch, 'again')
    makePackages(again, process.arch, ...PACKAGES)
    for (const name of readdirSync(packages)) execFileSync('cmp', [join(again, name), join(packages, name)])
  })
})

test('the C libraries are compiled for arm64', t => {
  if (!requireTool('aarch64-linux-gnu-gcc', t, 'gcc-aarch64-linux-gnu')) return
  const output = join(scratch, 'arm64')
  makePackages(output, 'arm64', 'platform')
  assert.equal(readdirSync(output).length, 1)
})

describe('the tarball and the Debian package', () => {
  test('the tarball needs no Node.js', t => {
    if (requireTool('ibv_rc_pingpong', t, 'ibverbs-utils')) install('tarball.sh', withoutNode())
  })

  test('the Debian package is installed and removed', { skip: process.geteuid?.() !== 0 && 'only root can' }, t => {
    if (requireTool('apt-get', t)) installOnCopy('deb.sh')
  })

  test('lintian finds no error', t => {
    if (!requireTool('lintian', t, 'lintian')) return
    const [name = ''] = readdirSync(packages).filter(file => file.endsWith('.deb'))
    const { stdout } = spawnSync('lintian', ['--no-cfg', join(packages, name)], { encoding: 'utf8' })
    assert.doesNotMatch(stdout, /^E:/m)
  })
})

describe('npm', () => {
  test('installs userdma', t => {
    if (requireTool('ibv_rc_pingpong', t, 'ibverbs-utils')) install('npm.sh')
  })

  test('the guide of the library works in a fresh folder, with the oldest TypeScript to the newest', () => {
    const versions = ['5.7.2', '5.8.3', '5.9.3', '6.0.3', '7.0.2', 'latest']
    const stdout = execFileSync(scriptOf('library.sh'), [packages, ...versions], { encoding: 'utf8' })
    for (const version of versions) assert.ok(stdout.includes(`${version} works\n`), stdout)
  })

  test('without the package of the platform, the C libraries are built', t => {
    if (!requireTool('cc', t)) return
    const folder = join(scratch, 'built')
    mkdirSync(folder)
    const [archive = ''] = readdirSync(packages).filter(name => /^userdma-\d.*\.tgz$/.test(name))
    execFileSync('tar', ['-xzf', join(packages, archive), '-C', folder])
    execFileSync(process.execPath, [join(folder, 'package', 'scripts', 'build-native.mjs')], { stdio: 'pipe' })
    const libraries = (root: string): string[] => readdirSync(join(root, 'build', 'native')).sort()
    assert.deepEqual(libraries(join(folder, 'package')), libraries(repoRoot))
  })
})
