/*
 * scripts/bundle.mjs: often used commands in bundles (dist/NAME.cjs) with their compiled code (dist/NAME.cache), and
 * the library (dist/lib).
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { Script } from 'node:vm'
import { HEAP_OPTION, userdmaScript } from '../../../src/cli/paths.ts'
import { repoRoot } from '../../paths.ts'
import { scratchFolder } from '../../tools.ts'

const dist = join(repoRoot, 'dist')
/** The commands of each bundle. */
const bundles: Record<string, string[]> = JSON.parse(readFileSync(join(repoRoot, 'scripts', 'bundled.json'), 'utf8'))
const skip = !existsSync(join(repoRoot, 'node_modules', 'esbuild')) && 'esbuild is not installed'

/** A checkout that has only the bundles, the C libraries and koffi; `run` runs its `bin/userdma`. */
const bareCheckout = () => {
  const folder = scratchFolder()
  mkdirSync(join(folder, 'dist'))
  for (const name of [
    'bin',
    'package.json',
    ...Object.keys(bundles).flatMap(name => [`dist/${name}.cjs`, `dist/${name}.cache`]),
    'scripts/bundled.json',
    'build/native',
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
  const underDaemon = [['run'], ['trace'], ['check']]
  const clients = [['devices'], ['stat'], ['device', 'remove', 'rxe0'], ['fault', 'show'], ['env'], ['stop']]
  const others = [
    ['daemon'],
    ['check-files'],
    ['explain'],
    ['explain-slow'],
    ['explain-capture'],
    ['explain-files'],
    ['explain-log'],
    ['torment-search'],
    ['device-plugin'],
  ]
  const named = [...underDaemon, ...clients, ...others].map(([name]) => name)
  assert.deepEqual(new Set(named), new Set(Object.values(bundles).flat()))
  for (const command of underDaemon) assert.deepEqual(run(...command, '--socket', socket, '--', 'true'), noDaemon)
  for (const command of clients) assert.deepEqual(run(...command, '--socket', socket), noDaemon)
  assert.deepEqual(run('daemon', '--link', 'x').status, 2)
  assert.match(run('device-plugin', '--resource', 'x').output, /^userdma: --resource "x" is no name of a resource/)
  assert.equal(run('explain', 'stale-rkey').status, 0)
  assert.equal(run('explain', 'vendor err 129').status, 0)
  assert.equal(run('run', '--bogus', 'true').status, 2)
  for (const command of [['run'], ['check', '--torment-search', '1']])
    assert.deepEqual(run(...command, '--', './none'), {
      status: 127,
      output: 'userdma: ./none: there is no such program\n',
    })
})

for (const name of Object.keys(bundles))
  test(`bundle ${name} has ASCII alone: one other character doubles the memory, and the time to read it`, {
    skip,
  }, () => {
    assert.doesNotMatch(readFileSync(join(dist, `${name}.cjs`), 'utf8'), /[^\0-\x7f]/)
  })

/** Commands whose modules other code imports too. */
const imported = ['run', 'stat']

for (const [name, commands] of Object.entries(bundles))
  test(`bundle ${name} has no other commands`, { skip }, () => {
    const modules = readFileSync(join(dist, `${name}.cjs`), 'utf8').matchAll(
      /"dist\/src\/cli\/commands\/([\w-]+)\.js"\(/g,
    )
    const found = new Set([...modules].map(([, module]) => module!))
    assert.deepEqual(
      commands.filter(command => !found.has(command)),
      [],
    )
    assert.deepEqual(
      [...found].filter(command => !commands.includes(command) && !imported.includes(command)),
      [],
    )
  })

for (const name of Object.keys(bundles))
  test(`this version of Node accepts the compiled code of bundle ${name}`, { skip }, () => {
    const filename = join(dist, `${name}.cjs`)
    const cachedData = readFileSync(join(dist, `${name}.cache`))
    if (['daemon', 'check'].includes(name)) setFlagsFromString(HEAP_OPTION)
    const script = new Script(readFileSync(filename, 'latin1'), { filename, cachedData })
    setFlagsFromString('--initial-heap-size=0')
    assert.equal(script.cachedDataRejected, false)
  })

test('bin/userdma starts daemons and `check` with the option of Node for which their compiled code is valid', () => {
  const script = readFileSync(userdmaScript, 'latin1')
  assert.match(
    script,
    new RegExp(`^if \\[ "\\$1" = daemon \\] \\|\\| \\[ "\\$1" = check \\]; then userdma_heap=${HEAP_OPTION}; fi$`, 'm'),
  )
})

test('all bundles are compiled at the installation of a package', { skip }, () => {
  const { folder } = bareCheckout()
  const compiled = Object.keys(bundles).map(name => join(folder, 'dist', `${name}.cache`))
  for (const path of compiled) rmSync(path)
  const script = join(folder, 'scripts', 'compile-bundle.cjs')
  cpSync(join(repoRoot, 'scripts', 'compile-bundle.cjs'), script)
  assert.equal(spawnSync(process.execPath, [script]).status, 0)
  assert.deepEqual(compiled.filter(existsSync), compiled)
})

test('a bundle works without its compiled code, as in packages of npm', { skip }, () => {
  const { folder, run } = bareCheckout()
  rmSync(join(folder, 'dist', 'run.cache'))
  assert.equal(run('run', '--bogus', 'true').status, 2)
})

test('other commands, a driver from a file, and `run` with options without dist/run.cjs, need the compiled modules', {
  skip,
}, () => {
  const { folder, run } = bareCheckout()
  const unbuilt = { status: 1, output: 'userdma: it is not built yet; run `npm run build` in the checkout\n' }
  assert.deepEqual(run('schema'), unbuilt)
  assert.deepEqual(run('daemon', '--driver', 'x.mjs'), unbuilt)
  rmSync(join(folder, 'dist', 'run.cjs'))
  assert.deepEqual(run('run', '--link', 'memory', '--', 'true'), unbuilt)
})

/** A program that imports the package, with a hook that lists the files that are loaded; ends by printing `result`. */
const importing = (...modules: string[]) => {
  const hook = `import { writeSync } from 'node:fs'
    export const load = (url, context, next) => { if (url.startsWith('file:')) writeSync(1, url + '\\n'); return next(url, context) }`
  const program = `import { register } from 'node:module'
    register('data:text/javascript,' + ${JSON.stringify(encodeURIComponent(hook))})
    const [library, drivers] = await Promise.all(${JSON.stringify(modules)}.map(name => import(name)))
    const network = library.createNetwork()
    if (drivers !== undefined) network.addDevice(core => drivers.createNullDevice(core, 'null0'))
    console.log((await library.open({ network, device: drivers && 'null0' })).name)
    process.exit()`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    cwd: repoRoot,
    encoding: 'utf8',
  })
  const lines = stdout.trim().split('\n')
  return { result: lines.pop() ?? stderr, files: lines }
}

test('the library, with a device in this process, is loaded from few files', { skip }, () => {
  const { result, files } = importing('userdma')
  assert.equal(result, 'rxe0')
  assert.ok(files.length > 1 && files.length <= 90, `${files.length} files: ${files.join(' ')}`)
  assert.ok(!files.some(file => file.includes('/dist/src/')), files.join(' '))
})

test('the entry points of the library share their parts', { skip }, () => {
  assert.equal(importing('userdma', 'userdma/drivers').result, 'null0')
})

test('the library reads a topology file, by a package that is not in its bundle', { skip }, () => {
  const program = `import { readTopology } from 'userdma'
    const { hosts } = await readTopology('examples/sim/incast.yaml')
    console.log(hosts.length)`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    cwd: repoRoot,
    encoding: 'utf8',
  })
  assert.equal(stdout, '65\n', stderr)
})
