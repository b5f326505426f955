/*
 * Builds only what some tests need, for a checkout that was never built: their first result takes seconds, a full build
 * a minute or more. esbuild puts each test file with all that it imports into its place below dist/; types are not
 * checked. A full build replaces these files.
 *
 * Tests that start programs or threads, or read compiled files, need a full build; their sources tell (NEEDS_MORE).
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, relative } from 'node:path'
import { pathToFileURL } from 'node:url'
import { inRoot, root, say } from './common.mjs'
import { compileStale } from './compile.mjs'
import { nativeTargets } from './native-targets.mjs'

/** The first full build writes this. */
const FULL_BUILD = inRoot('dist', 'all.tsbuildinfo')

/** What sources have that need other programs or compiled files. */
const NEEDS_MORE = {
  src: /'node:(child_process|worker_threads)'|import\.meta/,
  test: /'node:(child_process|worker_threads)'|import\.meta|\bdist\b|'build'/,
}

/** These only find the checkout, and the small C library that Node loads. */
const NATIVE = 'src/host/native.ts'
const NEED_NO_MORE = [NATIVE, 'src/host/library.ts', 'test/paths.ts']

/**
 * Whether a source, a path in the checkout, starts programs or threads, or reads files: an import does not tell what it
 * uses.
 */
export const needsMore = path => {
  const pattern = path.startsWith('src/') ? NEEDS_MORE.src : NEEDS_MORE.test
  return !NEED_NO_MORE.includes(path) && pattern.test(readFileSync(inRoot(path), 'utf8'))
}

const compiledOf = path => inRoot('dist', path.replace(/\.ts$/, '.js'))

/** A plugin of esbuild: `import.meta.url` of each module is that of its compiled file, as after a full build. */
const compiledUrls = {
  name: 'compiled urls',
  setup(build) {
    build.onLoad({ filter: /\.ts$/ }, ({ path }) => {
      const url = JSON.stringify(pathToFileURL(compiledOf(relative(root, path))).href)
      return { contents: readFileSync(path, 'utf8').replaceAll('import.meta.url', url), loader: 'ts' }
    })
  },
}

/**
 * Builds what the test files `sources`, paths in the checkout, need. False, without a change, if there was a full
 * build, if they need one, or if they do not compile: a full build then says why.
 */
export const quickBuild = async sources => {
  if (existsSync(FULL_BUILD)) return false
  const esbuild = await import('esbuild').catch(() => undefined)
  const bundle = {
    absWorkingDir: root,
    entryPoints: sources,
    outbase: root,
    outdir: inRoot('dist'),
    bundle: true,
    packages: 'external',
    platform: 'node',
    format: 'esm',
    target: 'node20.19',
    sourcemap: true,
    metafile: true,
    write: false,
    logLevel: 'silent',
    plugins: [compiledUrls],
  }
  const built = await esbuild?.build(bundle).catch(() => undefined)
  if (built === undefined) return false
  const read = Object.keys(built.metafile.inputs)
  if (read.some(needsMore)) return false
  if (read.includes(NATIVE)) {
    const [native] = nativeTargets()
    if (!(await compileStale([native], [])).isComplete) return false
  }
  for (const { path, contents } of built.outputFiles) {
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, contents)
  }
  say('built only these tests, without a check of types; `npm run build` builds and checks everything')
  return true
}
