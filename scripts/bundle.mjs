/*
 * `userdma run` in one file, for a fast start: dist/run.cjs, and in dist/run.cache V8's compiled code of it, which
 * bin/userdma loads. Without esbuild there is neither, and bin/userdma loads dist/src/cli/main.js, as for all other
 * commands.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { Script } from 'node:vm'
import { filesBelow, inRoot, modified, say } from './common.mjs'

const ENTRY = inRoot('dist', 'src', 'cli', 'main.js')
const BUNDLE = inRoot('dist', 'run.cjs')
const COMPILED = inRoot('dist', 'run.cache')

/** The command line imports a command when it is used. `run` is bundled; the others, never used here, are not. */
const otherCommands = {
  name: 'other commands',
  setup(build) {
    build.onResolve({ filter: /^\.\// }, ({ kind, path }) =>
      kind === 'dynamic-import' && path !== './commands/run.js' ? { path, external: true } : undefined,
    )
  },
}

/**
 * The bundle is a function of `require` and the folder dist. ENTRY_URL replaces `import.meta.url` of all modules, by
 * which they find other files.
 */
const WRAPPING = {
  banner: {
    js:
      '(function (require, dist) { ' +
      "const ENTRY_URL = require('node:url').pathToFileURL(dist + '/src/cli/main.js').href",
  },
  footer: { js: '})' },
}

/** All functions are compiled eagerly, since V8's cache contains only compiled ones. */
const compile = () => {
  setFlagsFromString('--no-lazy')
  const script = load()
  // The cache is valid only for the flags with which it was written.
  setFlagsFromString('--lazy')
  writeFileSync(COMPILED, script.createCachedData())
}

/** The bundle, as loaded by bin/userdma. */
const load = cachedData => new Script(readFileSync(BUNDLE, 'utf8'), { filename: BUNDLE, cachedData })

/** Whether this version of Node accepts the compiled code. */
const isAccepted = () => !load(readFileSync(COMPILED)).cachedDataRejected

const loadEsbuild = () =>
  import('esbuild').catch(() => {
    say('build: esbuild is not installed (npm ci): without it `userdma run` takes longer to start')
    return undefined
  })

/**
 * Makes the bundle if it is older than its sources, or if this version of Node rejects its compiled code. False if that
 * fails; without esbuild or without the sources true, and no bundle is made.
 */
export const bundle = async () => {
  const sources = filesBelow(inRoot('dist', 'src'), path => path.endsWith('.js'))
  const newest = Math.max(modified(inRoot('scripts', 'bundle.mjs')), ...sources.map(modified))
  if ((modified(COMPILED) >= newest && isAccepted()) || modified(ENTRY) === 0) return true
  // Before the bundle is written, so that an outdated or partial one is never used.
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
    say(`build: dist/run.cjs was not written: ${error.message}`)
    return false
  }
}
