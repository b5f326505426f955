/*
 * Bundles, which start faster: of commands, of the library, and of the command line in packages.
 *
 * bundled.json names bundles and their commands, by the modules of src/cli/commands; bin/userdma loads such a command
 * from one file, dist/BUNDLE.cjs, with V8's compiled code in dist/BUNDLE.cache, if this exists. All other commands are
 * loaded from dist/src/cli/main.js; without esbuild there are no bundles, and all commands are loaded from there.
 *
 * The library's entry points (`exports` of package.json) are dist/lib/NAME.js, with common parts in dist/lib/parts: an
 * import of userdma loads some dozen files instead of hundreds, in less than half the time. The code is not minified:
 * Node prints the line that has thrown. Without esbuild the files only pass on what the compiled modules export.
 *
 * Packages have all commands as dist/program, with common parts too, instead of the compiled modules of dist/src. It
 * has the library's entry points once more, for drivers from files, which need the daemon's own objects.
 */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join, relative } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { filesBelow, inRoot, modified, say } from './common.mjs'
import { codeOf, compileBundle, compiledOf, load, optionsOf } from './compile-bundle.cjs'

const ENTRY = inRoot('dist', 'src', 'cli', 'main.js')
/** The commands of each bundle, by its name. */
const BUNDLED = inRoot('scripts', 'bundled.json')

/** The names of the files in LIBRARY, each with the compiled module that it bundles. */
const LIBRARY = inRoot('dist', 'lib')
const entryPoints = () => {
  const { exports } = JSON.parse(readFileSync(inRoot('package.json'), 'utf8'))
  const entries = Object.values(exports).filter(entry => entry.types !== undefined)
  return entries.map(({ types, default: bundled }) => [basename(bundled, '.js'), inRoot(types.replace('.d.ts', '.js'))])
}

/** A plugin of esbuild that leaves all commands but `commands` out of a bundle. */
const otherCommands = commands => ({
  name: 'other commands',
  setup(build) {
    build.onResolve({ filter: /\/commands\/[^/]+\.js$/ }, ({ kind, path }) =>
      kind === 'dynamic-import' && !commands.includes(basename(path, '.js')) ? { path, external: true } : undefined,
    )
  },
})

/**
 * Modules of Node.js that many commands import, but few use: loading them is a third of the start of `userdma devices`.
 */
const LATE = ['node:child_process', 'node:crypto', 'node:dgram', 'node:zlib']

/**
 * A plugin of esbuild: the modules of LATE are loaded when a program first reads one of their exports, which is kept.
 */
const lateModules = {
  name: 'late modules',
  setup(build) {
    const filter = new RegExp(`^(${LATE.join('|')})$`)
    build.onResolve({ filter }, ({ path, namespace }) =>
      namespace === 'late' ? { path, external: true } : { path, namespace: 'late' },
    )
    build.onLoad({ filter, namespace: 'late' }, async ({ path }) => {
      const names = Object.keys(await import(path)).filter(name => name !== 'default')
      const contents = `for (const name of ${JSON.stringify(names)})
        Object.defineProperty(exports, name, { configurable: true, enumerable: true, get() {
          const value = require('${path}')[name]
          Object.defineProperty(exports, name, { value })
          return value
        } })`
      return { contents }
    })
  },
}

/**
 * A bundle is a function of `require` and the folder dist. ENTRY_URL replaces `import.meta.url` of all modules, which
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

const isAccepted = name => {
  for (const option of optionsOf(name)) setFlagsFromString(option)
  try {
    return !load(name, readFileSync(compiledOf(name))).cachedDataRejected
  } finally {
    for (const option of optionsOf(name)) setFlagsFromString(option.replace(/=.*/, '=0'))
  }
}

const loadEsbuild = () =>
  import('esbuild').catch(() => {
    say('build: esbuild is not installed (npm ci): without it some commands take longer to start')
    return undefined
  })

/** `newest`: when a source was last modified. False after a failure. */
const bundleOne = async (name, commands, newest) => {
  if (modified(compiledOf(name)) >= newest && isAccepted(name)) return true
  // Without this file, bin/userdma does not use an outdated bundle.
  for (const path of [codeOf(name), compiledOf(name)]) rmSync(path, { force: true })
  const esbuild = await loadEsbuild()
  if (esbuild === undefined) return true
  const unfinished = `${codeOf(name)}.${process.pid}`
  try {
    await esbuild.build({
      entryPoints: [ENTRY],
      outfile: unfinished,
      bundle: true,
      platform: 'node',
      format: 'cjs',
      target: 'node20.19',
      minifySyntax: true,
      minifyWhitespace: true,
      define: { 'import.meta.url': 'ENTRY_URL' },
      // @grpc/grpc-js loads it for services that are not used
      external: ['@grpc/proto-loader'],
      plugins: [otherCommands(commands), lateModules],
      logLevel: 'warning',
      ...WRAPPING,
    })
    renameSync(unfinished, codeOf(name))
    await compileBundle(name)
    return true
  } catch (error) {
    say(`build: dist/${name}.cjs was not written: ${error.message}`)
    return false
  }
}

/** Options of esbuild for entry points with common parts. */
const WITH_PARTS = {
  chunkNames: 'parts/[hash]',
  bundle: true,
  splitting: true,
  platform: 'node',
  format: 'esm',
  target: 'node20.19',
  // CommonJS, whose `require` of Node's modules an ES module does not have
  external: ['yaml', 'commander'],
  logLevel: 'warning',
}

/** As `bundleOne`, for the library. */
const bundleLibrary = async newest => {
  const entries = entryPoints()
  const isNewer = ([name]) => modified(join(LIBRARY, `${name}.js`)) >= newest
  if (entries.every(isNewer)) return true
  const unfinished = `${LIBRARY}.${process.pid}`
  const esbuild = await loadEsbuild()
  try {
    if (esbuild === undefined)
      for (const [name, module] of entries) {
        mkdirSync(unfinished, { recursive: true })
        writeFileSync(join(unfinished, `${name}.js`), `export * from './${relative(LIBRARY, module)}'\n`)
      }
    else await esbuild.build({ ...WITH_PARTS, entryPoints: Object.fromEntries(entries), outdir: unfinished })
    rmSync(LIBRARY, { recursive: true, force: true })
    renameSync(unfinished, LIBRARY)
    return true
  } catch (error) {
    say(`build: dist/lib was not written: ${error.message}`)
    return false
  } finally {
    rmSync(unfinished, { recursive: true, force: true })
  }
}

/**
 * Makes the bundles that are older than their sources, or whose compiled code this version of Node rejects. Makes none
 * without sources, and none of commands without esbuild. False after a failure.
 */
export const bundle = async () => {
  if (modified(ENTRY) === 0) return true
  const sources = filesBelow(inRoot('dist', 'src'), path => path.endsWith('.js'))
  const newest = Math.max(
    ...[inRoot('scripts', 'bundle.mjs'), BUNDLED, inRoot('package.json'), ...sources].map(modified),
  )
  for (const [name, commands] of Object.entries(JSON.parse(readFileSync(BUNDLED, 'utf8'))))
    if (!(await bundleOne(name, commands, newest))) return false
  return bundleLibrary(newest)
}

/** `userdma device-plugin` has a bundle of its own; the path is that from cli/main.js. */
const devicePluginApart = {
  name: 'device-plugin-apart',
  setup(build) {
    const path = './commands/device-plugin.js'
    build.onResolve({ filter: /\/commands\/device-plugin\.js$/ }, () => ({ path, external: true }))
  },
}

/**
 * Writes the command line of packages into `folder`: files of the same names as the compiled modules that are run,
 * imported by drivers, or known to Node by their path. Rejects without esbuild.
 */
export const bundleProgram = async folder => {
  const esbuild = await import('esbuild')
  const modules = ['cli/main.js', 'daemon/devices/driver-modules.js'].map(name => inRoot('dist', 'src', name))
  await esbuild.build({
    ...WITH_PARTS,
    entryPoints: [...modules, ...entryPoints().map(([, module]) => module)],
    outbase: inRoot('dist', 'src'),
    outdir: folder,
    plugins: [devicePluginApart],
  })
}
