/*
 * scripts/bundle.mjs: often used commands in bundles (dist/NAME.cjs) with their compiled code (dist/NAME.cache).
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Script } from 'node:vm'
import { repoRoot } from '../paths.ts'
import { scratchFolder } from '../tools.ts'

const dist = join(repoRoot, 'dist')
/** The commands of each bundle. */
const bundles: Record<string, string[]> = JSON.parse(readFileSync(join(repoRoot, 'scripts', 'bundled.json'), 'utf8'))
const skip = !existsSync(join(repoRoot, 'node_modules', 'esbuild')) && 'esbuild is not installed'

/** A checkout that has only the bundles, the preload library and koffi; `run` runs its `bin/userdma`. */
const bareCheckout = () => {
  const folder = scratchFolder()
  mkdirSync(join(folder, 'dist'))
  for (const name of [
    'bin',
    'package.json',
    ...Object.keys(bundles).flatMap(name => [`dist/${name}.cjs`, `dist/${name}.cache`]),
    'scripts/bundled.json',
    'build/native/libuserdma_shim.so',
  ])
    cpSync(join(repoRoot, name), join(folder, name), { recursive: true })
  cpSync(join(repoRoot, 'node_modules', 'koffi'), join(folder, 'node_modules', 'koffi'), { recursive: true })
  cpSync(join(repoRoot, 'node_modules', '@koromix'), join(folder, 'node_modules', '@koromix'), { recursive: true })
  const run = (...args: string[]) => {
    const { status, stderr } = spawnSync(join(folder, 'bin', 'userdma'), args, { encoding: 'utf8' })
    return { status, output: stderr }
  }
  return { folder, run }
}

test('bundled commands work without the compiled modules', { skip }, () => {
  const { folder, run } = bareCheckout()
  const socket = join(folder, 'sock')
  const noDaemon = {
    status: 1,
    output: `userdma: no daemon at ${socket}; start one with \`userdma daemon --socket ${socket}\`\n`,
  }
  const commands = [['run'], ['devices'], ['stat'], ['device', 'remove', 'rxe0'], ['fault', 'show'], ['env'], ['stop']]
  assert.deepEqual(new Set(commands.map(([name]) => name)), new Set(Object.values(bundles).flat()))
  for (const command of commands) {
    const program = command[0] === 'run' ? ['--', 'true'] : []
    assert.deepEqual(run(...command, '--socket', socket, ...program), noDaemon)
  }
  assert.equal(run('run', '--bogus', 'true').status, 2)
  assert.deepEqual(run('run', '--', './none'), { status: 127, output: 'userdma: ./none: there is no such program\n' })
})

for (const name of Object.keys(bundles))
  test(`this version of Node accepts the compiled code of bundle ${name}`, { skip }, () => {
    const filename = join(dist, `${name}.cjs`)
    const cachedData = readFileSync(join(dist, `${name}.cache`))
    assert.equal(new Script(readFileSync(filename, 'utf8'), { filename, cachedData }).cachedDataRejected, false)
  })

test('a bundle works without its compiled code, as in packages', { skip }, () => {
  const { folder, run } = bareCheckout()
  rmSync(join(folder, 'dist', 'run.cache'))
  assert.equal(run('run', '--bogus', 'true').status, 2)
})

test('other commands, and `run` without dist/run.cjs, need the compiled modules', { skip }, () => {
  const { folder, run } = bareCheckout()
  const unbuilt = { status: 1, output: 'userdma: it is not built yet; run `npm run build` in the checkout\n' }
  assert.deepEqual(run('schema'), unbuilt)
  rmSync(join(folder, 'dist', 'run.cjs'))
  assert.deepEqual(run('run', '--', 'true'), unbuilt)
})
