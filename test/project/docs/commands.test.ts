/*
 * The commands of pages run, each page in one shell. `./my-program` is test/programs/loopback.c. Commands that install
 * userdma do nothing, and `npx` runs its arguments. The faults of the provider that a page promises are those of the
 * installed provider.
 */
import assert from 'node:assert/strict'
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { test } from 'node:test'
import { Classes } from '../../../src/spec/classes.ts'
import { repoRoot } from '../../paths.ts'
import { cleanEnvironment, lacking, ownProgram, run, startDaemon, temporaryFolder } from '../../system/programs.ts'

const page = (name: string): string => readFileSync(join(repoRoot, 'docs', name), 'utf8')

/** The pages under docs/, and the programs that their commands need. */
const pages: Readonly<Record<string, readonly string[]>> = {
  'how-to/ci.md': ['ibv_devinfo', 'cc'],
  'how-to/debuggers.md': ['gdb', 'strace', 'valgrind', 'gcc'],
}

for (const [name, programs] of Object.entries(pages))
  test(`the commands of docs/${name} run`, { skip: lacking(ownProgram('loopback'), ...programs) }, async t => {
    const blocks = [...page(name).matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(match => match[1])
    assert.ok(blocks.length >= 4, `only ${blocks.length} blocks of commands were found`)
    const folder = temporaryFolder(t)
    const runtime = join(folder, 'runtime')
    mkdirSync(runtime, { mode: 0o700 })
    for (const file of ['loopback.c', 'endpoint.h'])
      copyFileSync(
        join(repoRoot, 'test', 'programs', file),
        join(folder, file === 'loopback.c' ? 'my-program.c' : file),
      )
    copyFileSync(ownProgram('loopback'), join(folder, 'my-program'))
    const env = cleanEnvironment({
      PATH: [join(repoRoot, 'bin'), process.env.PATH].join(delimiter),
      XDG_RUNTIME_DIR: runtime,
    })
    const stubs = ['npm() { :; }', 'sudo() { :; }', 'npx() { "$@"; }']
    // Background processes of a page end with its shell.
    const script = ['set -eux', ...stubs, "trap 'kill $(jobs -p) || true' EXIT", ...blocks].join('\n')
    const { status, stdout, stderr } = await run(t, 'bash', ['-c', script], { cwd: folder, env, detached: true })
    assert.equal(status, 0, stdout + stderr)
  })

test('docs/reference/provider-faults.md matches the installed provider', {
  skip: lacking(ownProgram('provider_faults')),
}, async t => {
  const promised = [...page('reference/provider-faults.md').matchAll(/^ {4}(ibv_\w+: \d+ of \d+ \w+)$/gm)].map(
    match => match[1],
  )
  assert.equal(promised.length, 3, 'functions with faults on the page')
  const daemon = await startDaemon(t)
  const { status, stdout, stderr } = await run(t, ownProgram('provider_faults'), [], { env: daemon.env })
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
  // Newer versions of the provider have fewer faults.
  const repaired = promised.map(line => line.replace(/\d+ of (\d+)/, '$1 of $1'))
  const lines = stdout.trim().split('\n')
  assert.equal(lines.length, promised.length)
  for (const [i, line] of lines.entries()) assert.ok([promised[i], repaired[i]].includes(line), line)
})

test('docs/start/tools.md names existing commands and options', { skip: lacking() }, async t => {
  const rows = page('start/tools.md')
    .split('\n')
    .filter(line => line.startsWith('| ') && line.includes('`'))
  const commands = rows.flatMap(row => [...row.split(' | ')[1].matchAll(/`([a-z]+)(?![a-z.])([^`]*)`/g)])
  const wanted = new Map<string, string[]>()
  // After `export … --to text` come other formats.
  for (const [, name, rest] of commands) {
    if (/^(?:json|pcapng|perfetto|html)$/.test(name)) continue
    wanted.set(name, [...(wanted.get(name) ?? []), ...(rest.split(' -- ')[0].match(/(?<= )--?[a-z][a-z-]*/g) ?? [])])
  }
  assert.ok(wanted.size >= 9)
  for (const [name, options] of wanted) {
    const { status, stdout } = await run(t, join(repoRoot, 'bin', 'userdma'), [name, '--help'], {
      env: cleanEnvironment({}),
    })
    assert.equal(status, 0, name)
    for (const option of options) assert.match(stdout, new RegExp(`^ .*${option}\\b`, 'm'), `${name} ${option}`)
  }
})

test('docs/why/object-model.md names existing methods', () => {
  const methods = new Set(
    Object.entries(Classes).flatMap(([name, cls]) => Object.keys(cls.methods).map(method => `${name}.${method}`)),
  )
  const named = [...page('why/object-model.md').matchAll(/`([a-z_]+\.[a-zA-Z]+)`/g)].map(match => match[1])
  assert.ok(named.length > 20)
  for (const name of named) assert.ok(methods.has(name), name)
})
