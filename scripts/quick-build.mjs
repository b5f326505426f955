/*
 * Builds only what some tests need: their result takes a second, a build of everything a minute or more. esbuild puts
 * each test file with all that it imports below dist/quick/; types are not checked.
 *
 * Tests that start programs or threads, or read compiled files, need the compiled sources; their sources tell
 * (NEEDS_MORE), and which programs of build/ they name.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, relative } from 'node:path'
import { pathToFileURL } from 'node:url'
import { inRoot, root, say } from './common.mjs'
import { compileStale } from './compile.mjs'
import { nativeTargets } from './native-targets.mjs'

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
 * Builds what the test files `sources`, paths in the checkout, need. `files`: the built ones, as paths in the checkout;
 * undefined if they need the compiled sources, or do not compile: the compiler then says why. `text`: of the files of
 * test/ that they consist of; undefined if it is not known.
 */
export const quickBuild = async sources => {
  const esbuild = await import('esbuild').catch(() => undefined)
  const bundle = {
    absWorkingDir: root,
    entryPoints: sources,
    outbase: root,
    outdir: inRoot('dist', 'quick'),
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
  if (built === undefined) return {}
  const read = Object.keys(built.metafile.inputs)
  const tests = read.filter(path => path.startsWith('test/'))
  const text = tests.map(path => readFileSync(inRoot(path), 'utf8')).join('\n')
  if (read.some(needsMore)) return { text }
  if (read.includes(NATIVE)) {
    const [native] = nativeTargets()
    if (!(await compileStale([native], [])).isComplete) return { text }
  }
  for (const { path, contents } of built.outputFiles) {
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, contents)
  }
  say('built only these tests, without a check of types; `npm run build` builds and checks everything')
  return { text, files: sources.map(path => `dist/quick/${path.replace(/\.ts$/, '.js')}`) }
}
