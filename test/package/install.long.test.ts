/*
 * The lines that install userdma, from nothing to the first completed ibv_rc_pingpong: scripts of test/install with
 * packages that scripts/package.mjs makes.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { repoRoot } from '../paths.ts'
import { requireTool, scratchFolder } from '../tools.ts'

const scratch = scratchFolder()
const packages = join(scratch, 'packages')

const makePackages = (output: string, ...names: string[]): void => {
  const script = join(repoRoot, 'scripts', 'package.mjs')
  execFileSync(process.execPath, [script, ...names, '--arch', process.arch, '--output', output], { stdio: 'pipe' })
}

const install = (script: string): void => {
  const path = join(repoRoot, 'test', 'install', script)
  const { status, stdout, stderr } = spawnSync(path, [packages], { encoding: 'utf8' })
  assert.equal(status, 0, stdout + stderr)
  assert.equal([...stdout.matchAll(/1000 iters in/g)].length, 2, stdout)
}

describe('npm', () => {
  before(() => makePackages(packages, 'npm', 'platform'))

  test('installs userdma', t => {
    if (requireTool('ibv_rc_pingpong', t, 'ibverbs-utils')) install('npm.sh')
  })

  test('a second run makes the same packages', () => {
    const again = join(scratch, 'again')
    makePackages(again, 'npm', 'platform')
    const names = readdirSync(again)
    assert.equal(names.length, 2)
    for (const name of names) execFileSync('cmp', [join(again, name), join(packages, name)])
  })

  test('without the package of the platform, the C libraries are built', t => {
    if (!requireTool('cc', t)) return
    const folder = join(scratch, 'built')
    mkdirSync(folder)
    const [archive = ''] = readdirSync(packages).filter(name => /^userdma-\d/.test(name))
    execFileSync('tar', ['-xzf', join(packages, archive), '-C', folder])
    execFileSync(process.execPath, [join(folder, 'package', 'scripts', 'build-native.mjs')], { stdio: 'pipe' })
    assert.equal(readdirSync(join(folder, 'package', 'build', 'native')).length, 4)
  })
})
