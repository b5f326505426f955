/*
 * `check --host` with the libraries of newer Debian releases: the functions that it wraps are those of rdma-core 56 and
 * 65. Here the machine's devices are those of a daemon, and the programs run by the release's own dynamic linker.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { findTool, inCi } from '../../tools.ts'
import {
  cleanEnvironment,
  freePort,
  lacking,
  runUserdma,
  type Scope,
  suiteScope,
  temporaryFolder,
  userdma,
} from '../programs.ts'
import { type FindingJson, serverAndClient } from './checking.ts'

/** Debian's releases, with the versions of rdma-core that they had when this was written. */
const RELEASES = { trixie: 'rdma-core 56', forky: 'rdma-core 65' } as const
const PACKAGES = ['ibverbs-utils', 'ibverbs-providers', 'perftest', 'rdmacm-utils', 'libstdc++6']
const PROGRAMS = ['ibv_rc_pingpong', 'ib_write_bw', 'rping']
/** Programs of docs/findings; each has the finding of its name. */
const MISTAKES = ['stale-rkey', 'never-signaled', 'no-receive-posted', 'leak'] as const
const finding = (name: string, ...folder: string[]): string => join(repoRoot, 'build', 'findings', ...folder, name)

const whatLacks = (): string | false => {
  const missing = ['apt-get', 'dpkg-deb'].filter(tool => !findTool(tool))
  const why = process.arch !== 'x64' ? 'the packages are for x86-64' : `missing: ${missing.join(', ')}`
  if (process.arch === 'x64' && missing.length === 0) return process.getuid?.() !== 0 && 'apt needs root'
  if (inCi()) throw new Error(why)
  return why
}

const skip = lacking('rdma', finding('leak')) || whatLacks()

/** Unpacks a release, and returns a folder of scripts that run programs by its linker. */
const unpack = (scope: Scope, release: string): string => {
  const root = temporaryFolder(scope)
  const script = join(repoRoot, 'test', 'linux', 'peer', 'kernel-peer')
  const env = { ...process.env, KERNEL_PEER_SUITE: release }
  const { status, stderr } = spawnSync(script, ['userland', root, ...PACKAGES], { env, encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  const libraries = join(root, 'usr', 'lib', 'x86_64-linux-gnu')
  const providers = join(libraries, 'libibverbs')
  const provider = readdirSync(providers).find(name => name.startsWith('librxe-'))
  assert.ok(provider)
  // libibverbs has a fixed path of its providers: without a preloaded one it would take this machine's.
  const linker = `${join(libraries, 'ld-linux-x86-64.so.2')} --library-path ${libraries} --preload ${join(providers, provider)}`
  const folder = join(root, 'run')
  mkdirSync(folder)
  const add = (name: string, program: string): void => {
    writeFileSync(join(folder, name), `#!/bin/sh\nexec ${linker} ${program} "$@"\n`)
    chmodSync(join(folder, name), 0o755)
  }
  for (const name of PROGRAMS) add(name, join(root, 'usr', 'bin', name))
  for (const name of MISTAKES) {
    add(name, finding(name))
    add(`fixed-${name}`, finding(name, 'fixed'))
  }
  return folder
}

for (const [release, version] of Object.entries(RELEASES))
  describe(`check --host with ${version}`, { skip }, () => {
    const scope = suiteScope()
    let folder = ''
    before(() => {
      folder = unpack(scope, release)
    })

    const check = async (t: Scope, script: string) => {
      const output = join(temporaryFolder(t), 'findings')
      const inner = [
        userdma,
        'check',
        '--host',
        '--json',
        '-o',
        output,
        '--',
        'sh',
        '-c',
        `PATH=${folder}:$PATH; ${script}`,
      ]
      const { status, stderr } = await runUserdma(t, ['run', '--private', '--', ...inner], { env: cleanEnvironment() })
      const lines = readFileSync(output, 'utf8').split('\n').filter(Boolean)
      return { status, stderr, found: lines.map(line => JSON.parse(line) as FindingJson) }
    }

    it('programs end as without it, and have no error', async t => {
      const port = await freePort()
      const rping = `rping -a 127.0.0.1 -p ${port} -C 2`
      const isListening = `rdma resource show cm_id | grep -q 'state LISTEN.*:${port} '`
      const { status, stderr, found } = await check(
        t,
        [
          `(${await serverAndClient('ibv_rc_pingpong -g 1 -n 20')})`,
          `(${await serverAndClient('ib_write_bw -x 1 -n 48 -F --post_list=4')})`,
          `{ ${rping} -s > /dev/null & until ${isListening}; do :; done; ${rping} -c > /dev/null && wait $!; }`,
          ...MISTAKES.map(name => `fixed-${name}`),
        ].join(' && '),
      )
      assert.equal(status, 0, stderr)
      assert.deepEqual(found, [])
    })

    it('mistakes in posts, completions and calls are found', async t => {
      const { found } = await check(t, MISTAKES.join('; '))
      for (const name of MISTAKES)
        assert.ok(
          found.some(({ id }) => id === name),
          `${name}: ${JSON.stringify(found)}`,
        )
    })
  })
