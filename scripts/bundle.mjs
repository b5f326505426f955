/*
 * For a fast start, bin/userdma loads the commands of bundled.json from one file, dist/cli.cjs, with V8's compiled
 * code in dist/cli.cache. Without esbuild, these files do not exist, and bin/userdma loads dist/src/cli/main.js, as for
 * all other commands.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { Script } from 'node:vm'
import { filesBelow, inRoot, modified, say } from './common.mjs'

const ENTRY = inRoot('dist', 'src', 'cli', 'main.js')
const COMMANDS = inRoot('scripts', 'bundled.json')
const BUNDLE = inRoot('dist', 'cli.cjs')
const COMPILED = inRoot('dist', 'cli.cache')

const bundledModules = JSON.parse(readFileSync(COMMANDS, 'utf8')).map(name => `./commands/${name}.js`)

/** The bundle does not have the other commands. */
const otherCommands = {
  name: 'other commands',
  setup(build) {
    build.onResolve({ filter: /^\.\/commands\// }, ({ kind, path }) =>
      kind === 'dynamic-import' && !bundledModules.includes(path) ? { path, external: true } : undefined,
    )
  },
}

/**
 * The bundle is a function of `require` and the folder dist. ENTRY_URL replaces `import.meta.url` of all modules, which
 * use it to find other files.
 */
const WRAPPING = {
  banner: {
    js:
      '(function (require, dist) { ' +
      "const ENTRY_URL = require('node:url').pathToFileURL(dist + '/src/cli/main.js').href",
  },
  footer: { js: '})' },
}

/** Compiles all functions: V8's cache has only compiled functions. */
const compile = () => {
  setFlagsFromString('--no-lazy')
  const script = load()
  // A cache is valid only for the flags at the time of writing.
  setFlagsFromString('--lazy')
  writeFileSync(COMPILED, script.createCachedData())
}

/** The bundle, as loaded by bin/userdma. */
const load = cachedData => new Script(readFileSync(BUNDLE, 'utf8'), { filename: BUNDLE, cachedData })

const isAccepted = () => !load(readFileSync(COMPILED)).cachedDataRejected

const loadEsbuild = () =>
  import('esbuild').catch(() => {
    say('build: esbuild is not installed (npm ci): without it some commands take longer to start')
    return undefined
  })

/**
 * Makes the bundle if it is older than its sources, or if this version of Node rejects its compiled code. Makes no
 * bundle without esbuild or without sources. False after a failure.
 */
export const bundle = async () => {
  const sources = filesBelow(inRoot('dist', 'src'), path => path.endsWith('.js'))
  const newest = Math.max(modified(inRoot('scripts', 'bundle.mjs')), modified(COMMANDS), ...sources.map(modified))
  if ((modified(COMPILED) >= newest && isAccepted()) || modified(ENTRY) === 0) return true
  // Without this file, bin/userdma does not use an outdated or partial bundle.
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
    say(`build: dist/cli.cjs was not written: ${error.message}`)
    return false
  }
}
