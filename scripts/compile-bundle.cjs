/*
 * V8's compiled code of bundles (bundle.mjs), dist/BUNDLE.cache, beside this folder:
 *
 *   node scripts/compile-bundle.cjs             of all bundles that there are, as at the installation of a package
 *   node scripts/compile-bundle.cjs BUNDLE ARGUMENT...
 *                                               with the functions that V8 has compiled at the end of this command
 *
 * A file with all functions takes 3 times as long to load. Functions that are missing are compiled when they are first
 * called.
 */
const { spawn } = require('node:child_process')
const { once } = require('node:events')
const { chmodSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } = require('node:fs')
const { createRequire } = require('node:module')
const { tmpdir } = require('node:os')
const { join } = require('node:path')
const { setFlagsFromString } = require('node:v8')
const { Script } = require('node:vm')

const root = join(__dirname, '..')
const codeOf = name => join(root, 'dist', `${name}.cjs`)
const compiledOf = name => join(root, 'dist', `${name}.cache`)

/**
 * By bundle, the command whose functions are compiled; without one, all functions are. `socket`: a path without a
 * daemon.
 */
const TYPICAL = {
  run: socket => ['run', '--socket', socket, '--', 'true'],
  client: socket => ['devices', '--socket', socket],
  watch: socket => ['trace', '--socket', socket, '--', 'true'],
  check: () => ['check', '--', 'true'],
  // What programs need of it is compiled when they need it.
  daemon: socket => ['daemon', '--background', '--end-with-last-client', '--socket', socket],
}

/** Milliseconds for a command: a machine may not let it end. */
const LIMIT = 60_000

/**
 * V8's options for the commands of a bundle, as bin/userdma has them: compiled code is valid for the options of its
 * writer.
 */
const optionsOf = name => (['daemon', 'check'].includes(name) ? ['--initial-heap-size=64'] : [])

/** A bundle, as loaded by bin/userdma. */
const load = (name, cachedData) =>
  new Script(readFileSync(codeOf(name), 'latin1'), { filename: codeOf(name), cachedData })

/** For any user to read, whatever the umask is. */
const write = (name, script) => {
  const unfinished = `${compiledOf(name)}.${process.pid}`
  writeFileSync(unfinished, script.createCachedData())
  chmodSync(unfinished, 0o644)
  renameSync(unfinished, compiledOf(name))
}

/** Writes the compiled code of a bundle. After a failure there is none, or it has fewer functions. */
const compileBundle = async name => {
  if (TYPICAL[name] === undefined) {
    setFlagsFromString('--no-lazy')
    const script = load(name)
    setFlagsFromString('--lazy')
    write(name, script)
    return
  }
  const folder = mkdtempSync(join(tmpdir(), 'userdma-build-'))
  const words = [...optionsOf(name), __filename, name, ...TYPICAL[name](join(folder, 'sock'))]
  const child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'ignore'], timeout: LIMIT })
  // A daemon is ready with its first line.
  child.stdout.once('data', () => name === 'daemon' && child.kill())
  await once(child, 'close')
  rmSync(folder, { recursive: true, force: true })
}

const compileAll = async () => {
  const names = Object.keys(JSON.parse(readFileSync(join(__dirname, 'bundled.json'), 'utf8')))
  for (const name of names.filter(name => existsSync(codeOf(name)))) await compileBundle(name)
}

const runCommand = ([name, ...command]) => {
  const main = join(root, 'bin', 'userdma')
  process.argv = [process.execPath, main, ...command]
  const script = load(name)
  process.on('exit', () => write(name, script))
  script.runInThisContext()(createRequire(main), join(root, 'dist'))
}

module.exports = { codeOf, compileBundle, compiledOf, load, optionsOf }
if (require.main === module) {
  if (process.argv.length === 2) void compileAll()
  else runCommand(process.argv.slice(2))
}
