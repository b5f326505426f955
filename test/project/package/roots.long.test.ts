/*
 * Users' lines, from nothing to the first completed ibv_rc_pingpong, in fresh Debian roots that mmdebstrap makes; and
 * the image, for arm64 too: Debian's qemu-user emulates a processor, QEMU a machine. The roots are kept in
 * ~/.cache/userdma-roots; without them the tests take a quarter of an hour more.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { compileC, filesBelow, findTool, inCi, scratchFolder } from '../../tools.ts'

const scratch = scratchFolder()
const packages = join(scratch, 'packages')
const emulate = join(repoRoot, 'scripts', 'package', 'emulate-arm64.sh')
const script = (name: string): string => join(repoRoot, 'test', 'project', 'install', name)

const run = (program: string, ...args: readonly string[]): string => {
  const { status, stdout, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  })
  assert.equal(status, 0, `${program} ${args.join(' ')}: ${stdout}${stderr}`)
  return stdout
}

const makePackages = (...names: readonly string[]): void => {
  execFileSync(process.execPath, [join(repoRoot, 'scripts', 'package.mjs'), ...names, '--output', packages], {
    stdio: 'pipe',
  })
}

/** Programs that setup.mjs installs with `--for long`. */
const TOOLS = [
  ...['mmdebstrap', 'skopeo', 'umoci', 'arch-test', 'qemu-aarch64-static', 'qemu-system-aarch64', 'cpio'],
  ...['cc', 'aarch64-linux-gnu-gcc', 'apt-get'],
]

const whatIsMissing = (): string | false => {
  if (process.arch !== 'x64') return 'the roots are for x86-64'
  const missing = TOOLS.filter(tool => !findTool(tool))
  if (missing.length > 0) return `missing: ${missing.join(', ')} (node scripts/setup.mjs --for long installs them)`
  return process.geteuid?.() !== 0 && 'fresh roots need root'
}
const skip = whatIsMissing()
if (skip && inCi()) throw new Error(`${skip}; in CI a test that cannot run is a failure`)

/** Kinds of packages by Debian's release. Debian 12 has no Node.js that is new enough for the npm packages. */
const RELEASES = { bookworm: ['deb', 'tarball'], trixie: ['deb', 'tarball', 'npm'] } as const

describe('a fresh Debian', { skip }, () => {
  const mistaken = join(packages, 'mistaken')
  before(() => {
    makePackages('npm', 'platform', 'tarball', 'deb', '--arch', 'x64')
    const finding = join(repoRoot, 'docs', 'findings', 'lkey-no-right.c')
    compileC(mistaken, [finding], ['-include', join(repoRoot, 'shim', 'old-glibc.h'), '-libverbs'])
  })

  for (const [suite, kinds] of Object.entries(RELEASES))
    for (const kind of kinds)
      for (const user of ['root', 'user'])
        test(`${suite}: ${kind}.sh as ${user}`, t => {
          const root = run(script('make-root.sh'), suite, 'amd64', ...(kind === 'npm' ? ['nodejs', 'npm'] : [])).trim()
          const command = ['/install/leaves-nothing.sh', `/install/${kind}.sh`, '/packages', '/packages/mistaken']
          const output = run(script('in-root.sh'), root, user, packages, ...command)
          assert.equal([...output.matchAll(/1000 iters in/g)].length, 2, output)
          t.diagnostic(/first ibv_rc_pingpong after .*/.exec(output)?.[0] ?? '')
        })
})

describe('the image', { skip }, () => {
  /** Unpacks the image of an architecture; returns its root as an archive. */
  const unpack = (arch: string): string => {
    const [layout, bundle, path] = ['layout', 'bundle', 'root.tar'].map(name => join(scratch, `${arch}-${name}`)) as [
      string,
      string,
      string,
    ]
    run('skopeo', '--override-arch', arch, 'copy', `oci-archive:${image}`, `oci:${layout}:latest`)
    run('umoci', 'unpack', '--image', `${layout}:latest`, bundle)
    run('tar', '-C', join(bundle, 'rootfs'), '-cf', path, '.')
    return path
  }
  let image: string
  before(() => {
    makePackages('npm', 'image')
    const [name = ''] = readdirSync(packages).filter(file => file.endsWith('-oci.tar'))
    image = join(packages, name)
  })

  test('has both architectures, and userdma as its command', () => {
    for (const arch of ['amd64', 'arm64']) {
      const { architecture, config } = JSON.parse(
        run('skopeo', '--override-arch', arch, 'inspect', '--config', `oci-archive:${image}`),
      ) as { architecture: string; config: { User: string; Entrypoint: string[] } }
      assert.equal(architecture, arch)
      assert.deepEqual([config.User, config.Entrypoint], ['1000:1000', ['userdma']])
    }
  })

  test('runs on amd64', () => {
    const root = unpack('amd64')
    assert.match(run(script('in-root.sh'), root, 'userdma', packages, 'userdma', 'run', '--', 'ibv_devinfo'), /rxe0/)
    const output = run(script('in-root.sh'), root, 'userdma', packages, '/install/pingpong.sh', 'userdma')
    assert.equal([...output.matchAll(/1000 iters in/g)].length, 2, output)
  })

  describe('for arm64', () => {
    let root: string
    before(() => {
      root = unpack('arm64')
    })

    test('has only programs of arm64', () => {
      const EM_AARCH64 = 183
      const machines = filesBelow(join(scratch, 'arm64-bundle', 'rootfs', 'usr', 'local'))
        .map(path => readFileSync(path))
        .filter(bytes => bytes.subarray(0, 4).equals(Buffer.from('\x7fELF', 'latin1')))
        .map(bytes => bytes.readUInt16LE(18))
      assert.deepEqual(new Set(machines), new Set([EM_AARCH64]))
    })

    // qemu-user has no process_vm_readv, by which the daemon reads a program's memory.
    test('--version, and devices in one process, run under qemu-user', () => {
      const inRoot = [script('in-root.sh'), root, 'userdma', packages] as const
      assert.match(run(emulate, ...inRoot, 'userdma', '--version'), /^userdma \d/)
      const [archive = ''] = readdirSync(packages).filter(name => /^userdma-\d.*tgz$/.test(name))
      mkdirSync(join(packages, 'npm'))
      run('tar', '-xzf', join(packages, archive), '-C', join(packages, 'npm'))
      const example = '/packages/npm/package/dist/examples/ping-pong.js'
      assert.match(run(emulate, ...inRoot, '/usr/local/lib/userdma/bin/node', example, '20'), /^20 round trips/)
    })

    test('devinfo and a ping-pong run on an emulated machine', () => {
      const kernel = run(script('guest-kernel.sh'), 'trixie').trim()
      const command = 'userdma run -- ibv_devinfo && sh /pingpong.sh userdma'
      const output = run(script('in-guest.sh'), root, kernel, command)
      assert.match(output, /rxe0/)
      assert.equal([...output.matchAll(/1000 iters in/g)].length, 2, output)
    })
  })

  test('has the same bytes after a second run', () => {
    const first = join(scratch, 'first.tar')
    renameSync(image, first)
    makePackages('image')
    run('cmp', first, image)
  })
})
