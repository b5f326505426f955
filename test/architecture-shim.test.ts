/*
 * The floors of shim/, as architecture.test.ts has those of src/: which folders call which, by their includes and by
 * the symbols of their objects. What a folder calls in one above it stands in a header of its own.
 */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join, posix } from 'node:path'
import { describe, it } from 'node:test'
import { repoRoot } from './paths.ts'
import { lacking, temporaryFolder } from './system/programs.ts'

interface Folder {
  /** What other folders may include. */
  readonly headers: readonly string[]
  /** The folders below, which it may include and call. */
  readonly calls: readonly string[]
}

const RECORDER = ['recorder.h', 'objects.h', 'verbs.h', 'orders.h', 'watched.h', 'locks.h', 'batches.h', 'refusals.h']

/**
 * The folders of the shim, from the lowest; then those of libraries of their own. `.`: the files beside the folders.
 */
const FOLDERS: Readonly<Record<string, Folder>> = {
  recorder: { headers: [...RECORDER, 'acknowledgements.h'], calls: [] },
  loading: { headers: ['loading.h'], calls: ['recorder'] },
  sanitizers: { headers: ['sanitizers.h'], calls: ['recorder', 'loading'] },
  session: { headers: ['session.h', 'requests.h'], calls: ['recorder', 'loading', 'sanitizers'] },
  check: { headers: ['check.h'], calls: ['recorder', 'loading', 'sanitizers', 'session'] },
  verbs: { headers: [], calls: ['recorder', 'loading', 'sanitizers', 'session', 'check'] },
  files: { headers: ['files.h'], calls: ['recorder', 'loading', 'sanitizers', 'session', 'check'] },
  '.': { headers: [], calls: ['recorder', 'loading', 'sanitizers', 'session', 'check', 'files'] },
  host: { headers: [], calls: ['recorder', 'sanitizers'] },
  clock: { headers: [], calls: [] },
  frees: { headers: [], calls: [] },
  waits: { headers: [], calls: [] },
  run: { headers: [], calls: [] },
}
const OWN_LIBRARIES = ['host', 'clock', 'frees', 'waits', 'run']
const OF_SHIM = Object.keys(FOLDERS).filter(name => !OWN_LIBRARIES.includes(name))

const filesOf = (folder: string, ending: string): string[] =>
  readdirSync(join(repoRoot, 'shim', folder)).filter(name => name.endsWith(ending))
const textOf = (path: string): string => readFileSync(join(repoRoot, 'shim', path), 'utf8')

/** `FOLDER/FILE includes …`, of includes that the table does not permit. */
const wrongIncludes = (folder: string): string[] =>
  [...filesOf(folder, '.c'), ...filesOf(folder, '.h')].flatMap(file =>
    [...textOf(posix.join(folder, file)).matchAll(/^#include "([^"]+)"/gm)].flatMap(([, name = '']) => {
      const path = posix.join(folder, name)
      const [other, header] = path.includes('/') ? path.split('/') : ['.', path]
      const { calls = [] } = FOLDERS[folder] ?? {}
      const isPermitted =
        other === folder || other === '.' || (calls.includes(other) && FOLDERS[other]?.headers.includes(header ?? ''))
      return isPermitted ? [] : [`${folder}/${file} includes ${path}`]
    }),
  )

const symbols = (text: string, kinds: string): string[] =>
  [...text.matchAll(new RegExp(`^[\\da-f ]+ [${kinds}] (\\w+)$`, 'gm'))].map(([, name = '']) => name)

describe('shim/', () => {
  it('has no folder that the table lacks, and only includes that it permits', () => {
    const folders = readdirSync(join(repoRoot, 'shim'), { withFileTypes: true }).filter(entry => entry.isDirectory())
    const sources = folders.map(({ name }) => name).filter(name => filesOf(name, '.c').length > 0)
    assert.deepEqual([...sources, '.'].sort(), Object.keys(FOLDERS).sort())
    assert.deepEqual(Object.keys(FOLDERS).flatMap(wrongIncludes), [])
  })

  const skip = lacking('cc', 'nm', '/usr/include/infiniband/verbs.h')
  it('calls downwards, or what the calling folder declares itself', { skip }, async t => {
    const root = temporaryFolder(t)
    const listed = await Promise.all(
      OF_SHIM.map(async folder => {
        const cwd = join(root, folder === '.' ? 'top' : folder)
        mkdirSync(cwd)
        const sources = filesOf(folder, '.c').map(name => join(repoRoot, 'shim', folder, name))
        const flags = ['-std=gnu11', '-O0', '-w', '-c', `-I${join(repoRoot, 'shim', 'include')}`]
        const compiler = spawn('cc', [...flags, ...sources], { cwd, stdio: 'inherit' })
        assert.deepEqual(await once(compiler, 'close'), [0, null], folder)
        const { stdout } = spawnSync('nm', ['-A', '-P', ...readdirSync(cwd)], { cwd, encoding: 'utf8' })
        return [folder, stdout.replaceAll(/^\S+: (\w+) (\w).*$/gm, '0 $2 $1')] as const
      }),
    )
    const homes = new Map(
      listed.flatMap(([folder, text]) => symbols(text, 'TDBRVC').map(name => [name, folder] as const)),
    )
    /** Functions that programs call: those of the C library and of verbs. */
    const { stdout } = spawnSync('nm', ['-D', '--defined-only', join(repoRoot, 'build/native/libuserdma_shim.so')], {
      encoding: 'utf8',
    })
    const ofPrograms = new Set(symbols(stdout, 'TW').filter(name => !name.startsWith('userdma_')))
    const declares = (folder: string, headers: readonly string[], name: string): boolean =>
      headers.some(header => new RegExp(`\\b${name}\\b`).test(textOf(posix.join(folder, header))))
    const isPublic = (folders: readonly string[], name: string): boolean =>
      folders.some(folder => declares(folder, FOLDERS[folder]?.headers ?? [], name))
    const wrong = listed.flatMap(([folder, text]) =>
      symbols(text, 'Uw').flatMap(name => {
        const home = homes.get(name)
        if (home === undefined || home === folder || ofPrograms.has(name)) return []
        const calls = FOLDERS[folder]?.calls ?? []
        const isDeclared = calls.includes(home) ? isPublic(calls, name) : declares(folder, filesOf(folder, '.h'), name)
        return isDeclared ? [] : [`${folder} calls ${name} of ${home}`]
      }),
    )
    assert.deepEqual([...new Set(wrong)], [])
    assert.ok(homes.size > 300, `${homes.size} symbols`)
  })
})
