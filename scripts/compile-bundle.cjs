/*
 * node scripts/compile-bundle.cjs BUNDLE ARGUMENT...: runs a command of a bundle (bundle.mjs), and writes dist/BUNDLE.cache
 * with the functions that V8 has compiled meanwhile. A file with all functions takes 3 times as long to load. Functions that
 * are missing are compiled when they are first called.
 */
const { readFileSync, writeFileSync } = require('node:fs')
const { createRequire } = require('node:module')
const { join } = require('node:path')
const { Script } = require('node:vm')

const [bundle, ...command] = process.argv.slice(2)
const root = join(__dirname, '..')
const dist = join(root, 'dist')
const main = join(root, 'bin', 'userdma')
const filename = join(dist, `${bundle}.cjs`)
process.argv = [process.execPath, main, ...command]
const script = new Script(readFileSync(filename, 'latin1'), { filename })
process.on('exit', () => writeFileSync(join(dist, `${bundle}.cache`), script.createCachedData()))
script.runInThisContext()(createRequire(main), dist)
