/*
 * On Node 12, commands print that Node.js is too old. So Node 12 must parse and load all code that runs before
 * this message.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { repoRoot } from '../../paths.ts'

/** Statements that imitate the version and modules of Node 12, which knows no names `node:…`. */
const asNode12 = `
  Object.defineProperty(process.versions, 'node', { value: '12.22.12' })
  const Module = require('module')
  const load = Module._load
  Module._load = (name, ...rest) => {
    if (name.startsWith('node:')) throw new Error('Cannot find module ' + name)
    return load(name, ...rest)
  }`

const message = /^userdma: Node\.js 12\.22\.12 is too old: 20\.19 or newer is needed.*\n$/

const skip = !existsSync(join(repoRoot, 'node_modules', 'esbuild')) && 'esbuild is not installed'

describe('Node 12', () => {
  for (const name of ['bin/userdma', 'scripts/setup.mjs']) {
    const path = join(repoRoot, name)

    it(`parses ${name}`, { skip }, async () => {
      const { transformSync } = await import('esbuild')
      const source = readFileSync(path, 'utf8')
      const codeFor = (target: string): string => transformSync(source, { target }).code
      // esbuild replaces syntax that Node 12 lacks.
      assert.equal(codeFor('node12.22'), codeFor('esnext'))
    })

    it(`is refused by ${name} with a message`, () => {
      const start = name.endsWith('.mjs') ? `import(${JSON.stringify(path)})` : `require(${JSON.stringify(path)})`
      const { status, stdout, stderr } = spawnSync(process.execPath, ['-e', `${asNode12}\n${start}`], {
        encoding: 'utf8',
      })
      assert.match(stderr, message)
      assert.deepEqual([status, stdout], [1, ''])
    })
  }

  // Node loads static imports before it runs the check.
  it('loads no other module before the check of setup.mjs', () => {
    assert.doesNotMatch(readFileSync(join(repoRoot, 'scripts', 'setup.mjs'), 'utf8'), /^import /m)
  })
})

it('without Node.js bin/userdma says which is needed, and where it is', () => {
  const script = join(repoRoot, 'bin', 'userdma')
  for (const command of ['devices', 'run']) {
    const { status, stdout, stderr } = spawnSync('/bin/sh', [script, command, '--', '/bin/sh'], {
      encoding: 'utf8',
      env: { PATH: '/nonexistent' },
    })
    assert.match(
      stderr,
      /^userdma: there is no Node\.js in PATH: 20\.19 or newer is needed \(https:\/\/nodejs\.org\/.*\)\n$/,
    )
    assert.deepEqual([status, stdout], [127, ''])
  }
})
