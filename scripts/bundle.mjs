/*
 * `userdma run` in one file, for a fast start: dist/run.cjs, and in dist/run.cache the code that V8 compiled of it, which
 * bin/userdma loads. Without esbuild there is neither, and bin/userdma loads dist/src/cli/main.js as for all commands.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { Script } from 'node:vm'
import { filesBelow, inRoot, modified, say } from './common.mjs'

const ENTRY = inRoot('dist', 'src', 'cli', 'main.js')
const BUNDLE = inRoot('dist', 'run.cjs')
const COMPILED = inRoot('dist', 'run.cache')

/** The command line has all commands; those but `run` are imported when they are called, which here they never are. */
const otherCommands = {
  name: 'other commands',
  setup(build) {
    build.onResolve({ filter: /^\.\// }, ({ kind, path }) =>
      kind === 'dynamic-import' && path !== './commands/run.js' ? { path, external: true } : undefined,
    )
  },
}

/** A function of `require` and the folder dist, in which modules find other files as if they were not bundled. */
const WRAPPING = {
  banner: {
    js: "(function (require, dist) { const ENTRY_URL = require('node:url').pathToFileURL(dist + '/src/cli/main.js').href",
  },
  footer: { js: '})' },
}

/** All functions are compiled, since the cache of V8 has only those that are. */
const compile = () => {
  setFlagsFromString('--no-lazy')
  const script = load()
  // The cache is good only for the flags with which it is written.
  setFlagsFromString('--lazy')
  writeFileSync(COMPILED, script.createCachedData())
}

/** The bundle as bin/userdma loads it. */
const load = cachedData => new Script(readFileSync(BUNDLE, 'utf8'), { filename: BUNDLE, cachedData })

/** Whether this version of Node takes the compiled code. */
const isAccepted = () => !load(readFileSync(COMPILED)).cachedDataRejected

const loadEsbuild = () =>
  import('esbuild').catch(() => {
    say('build: esbuild is not installed (npm ci): without it `userdma run` takes longer to start')
    return undefined
  })

/** Makes the bundle if it is older than what is in it. True if all went well. */
export const bundle = async () => {
  const sources = filesBelow(inRoot('dist', 'src'), path => path.endsWith('.js'))
  const newest = Math.max(modified(inRoot('scripts', 'bundle.mjs')), ...sources.map(modified))
  if ((modified(COMPILED) >= newest && isAccepted()) || modified(ENTRY) === 0) return true
  // First, so that a bundle that is half made or out of date is not used.
  rmSync(COMPILED, { force: true })
  const esbuild = await loadEsbuild()
  if (esbuild === undefined) return true
  try {
    await esbuild.build({
      entryPoints: [ENTRY],
      outfile: BUNDLE,
      bundle: true,
      platform: 'node',
      format: 'cjs',
      target: 'node20.19',
      minifySyntax: true,
      minifyWhitespace: true,
      define: { 'import.meta.url': 'ENTRY_URL' },
      plugins: [otherCommands],
      logLevel: 'warning',
      ...WRAPPING,
    })
    compile()
    return true
  } catch (error) {
    say(`build: dist/run.cjs was not made: ${error.message}`)
    return false
  }
}
