/*
 * scripts/bundle.mjs: `userdma run` in one file (dist/run.cjs) with its compiled code (dist/run.cache).
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
const skip = !existsSync(join(repoRoot, 'node_modules', 'esbuild')) && 'esbuild is not installed'

/** A checkout that has only the bundle, the preload library and koffi; `run` runs its `bin/userdma`. */
const bareCheckout = () => {
  const folder = scratchFolder()
  mkdirSync(join(folder, 'dist'))
  for (const name of ['bin', 'package.json', 'dist/run.cjs', 'dist/run.cache', 'build/native/libuserdma_shim.so'])
    cpSync(join(repoRoot, name), join(folder, name), { recursive: true })
  cpSync(join(repoRoot, 'node_modules', 'koffi'), join(folder, 'node_modules', 'koffi'), { recursive: true })
  cpSync(join(repoRoot, 'node_modules', '@koromix'), join(folder, 'node_modules', '@koromix'), { recursive: true })
  const run = (...args: string[]) => {
    const { status, stderr } = spawnSync(join(folder, 'bin', 'userdma'), args, { encoding: 'utf8' })
    return { status, output: stderr }
  }
  return { folder, run }
}

test('`userdma run` works with the bundle alone', { skip }, () => {
  const { folder, run } = bareCheckout()
  const socket = join(folder, 'sock')
  assert.deepEqual(run('run', '--socket', socket, '--', 'true'), {
    status: 1,
    output: `userdma: no daemon at ${socket}; start one with \`userdma daemon --socket ${socket}\`\n`,
  })
  assert.equal(run('run', '--bogus', 'true').status, 2)
  assert.deepEqual(run('run', '--', './none'), { status: 127, output: 'userdma: ./none: there is no such program\n' })
})

test('this version of Node accepts the bundle’s compiled code', { skip }, () => {
  const filename = join(dist, 'run.cjs')
  const cachedData = readFileSync(join(dist, 'run.cache'))
  assert.equal(new Script(readFileSync(filename, 'utf8'), { filename, cachedData }).cachedDataRejected, false)
})

test('other commands, and `run` without dist/run.cache, need the compiled modules', { skip }, () => {
  const { folder, run } = bareCheckout()
  const unbuilt = { status: 1, output: 'userdma: it is not built yet; run `npm run build` in the checkout\n' }
  assert.deepEqual(run('stat'), unbuilt)
  rmSync(join(folder, 'dist', 'run.cache'))
  assert.deepEqual(run('run', '--', 'true'), unbuilt)
})
