#!/usr/bin/env node
/*
 * Builds what is out of date: TypeScript into dist/, the C parts into build/.
 *
 *   build.mjs [--for start|package|test|long|bench]
 *                                        start, package: everything but tests and benchmarks; test (the default), long
 *                                        and bench: everything
 *
 *   dist/                                compiled src, test, bench and examples
 *   dist/BUNDLE.cjs, BUNDLE.cache        often used commands in one file, and its compiled code (scripts/bundle.mjs)
 *   dist/lib/                            the library's entry points, bundled (scripts/bundle.mjs)
 *   dist/page/                           the page of `userdma inspect` (scripts/page.mjs)
 *   src/spec/check/finding-table.ts,
 *   src/tools/check/detector-table.ts    tables of the files of findings/ (generate-findings.mjs)
 *   shim/protocol.h                      session protocol for C, generated from src/spec/preload-events.ts,
 *                                        context-logs.ts, wait-table.ts, lends.ts, clock-page.ts
 *   shim/preload_events.h                a function for each event of the preload library, generated from
 *                                        src/spec/preload-events.ts
 *   shim/host/records.h                  observation file for C, generated from src/tools/observe/file-layout.ts
 *   build/native/libuserdma_native.so    CRC of packets, copies, movers (optional)
 *   build/native/libuserdma_shim.so      preload library that shows the device to an unmodified program
 *   build/native/libuserdma_waits.so     preload library that sees threads wait, for `userdma check --races`
 *   build/native/libuserdma_frees.so     preload library that sees blocks freed, for `userdma check`
 *   build/native/libuserdma_clock.so     preload library of a clock that skips, for `--clock skip`
 *   build/native/libuserdma_host.so      preload library that observes programs on the machine's devices, for `--host`
 *   build/native/userdma-run             starts the program of `userdma run` without Node.js
 *   build/arm64/                         the same for another architecture, if its compiler is here
 *   build/programs/NAME                  test programs (NAME.c below test/programs)
 *   build/findings/NAME, fixed/NAME      programs of findings with their fault and without (docs/findings/NAME.c);
 *   build/findings/srd/NAME              with their fault, and queue pairs of SRD
 *   build/bench/NAME                     C references and C sides of benchmarks (bench/references/NAME.c)
 *
 * If this machine lacks a compiler or headers for a part, the build prints what does not work without the part, and
 * succeeds. A part that does not compile is a failure.
 */
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { basename, extname, join, relative } from 'node:path'
import { bundle } from './bundle.mjs'
import { filesBelow, inRoot, isMain, main, modified, run, runBeside, StepError, say } from './common.mjs'
import { C_FLAGS, compileStale, sourcesIn, VERBS } from './compile.mjs'
import { generateFindings } from './generate-findings.mjs'
import { sourceNames } from './generate-protocol.mjs'
import { nativeTargets } from './native-targets.mjs'
import { compileForPackages } from './package/native.mjs'
import { buildPage } from './page.mjs'
import { step } from './progress.mjs'

/** Removes compiled files without a source: stale tests would run, and stale imports work. */
const removeOrphans = () => {
  const compiled = /\.(js|js\.map|d\.ts)$/
  for (const folder of ['src', 'web', 'test', 'bench', 'examples']) {
    for (const path of filesBelow(inRoot('dist', folder), path => compiled.test(path))) {
      const source = inRoot(relative(inRoot('dist'), path).replace(compiled, '.ts'))
      if (!existsSync(source) && !existsSync(`${source}x`)) rmSync(path)
    }
  }
}

/** Without tests and benchmarks. */
const isForUse = purpose => purpose === 'start' || purpose === 'package'

const buildTypeScript = async purpose => {
  generateFindings()
  // node_modules/.bin may have the tsc of another TypeScript, which a test uses.
  const tsc = inRoot('node_modules', 'typescript', 'bin', 'tsc')
  if (!existsSync(tsc)) {
    say('build: TypeScript is not installed; run `npm ci` (or node scripts/setup.mjs, which does it)')
    return false
  }
  const hasCompiled = await runBeside(process.execPath, [
    tsc,
    '-b',
    inRoot('scripts', isForUse(purpose) ? 'tsconfig.examples.json' : 'tsconfig.all.json'),
  ])
  removeOrphans()
  if (!hasCompiled) say('build: tsc found the errors above')
  return hasCompiled
}

const generateProtocol = () => {
  const generator = inRoot('scripts', 'generate-protocol.mjs')
  const header = inRoot('shim', 'protocol.h')
  const sources = sourceNames.map(name => inRoot('dist', 'src', `${name}.js`))
  const missing = sourceNames.filter((_, i) => !existsSync(sources[i]))
  if (missing.length > 0) {
    const names = missing.map(name => `src/${name}.ts`).join(', ')
    say(`build: the headers of shim/ were not generated, since these did not compile: ${names}`)
    return false
  }
  if (modified(header) >= Math.max(modified(generator), ...sources.map(modified))) return true
  const hasSucceeded = run(process.execPath, [generator])
  if (!hasSucceeded) say('build: scripts/generate-protocol.mjs failed')
  return hasSucceeded
}

const RDMACM = { header: 'rdma/rdma_cma.h', package: 'librdmacm-dev' }

const EFA = { header: 'infiniband/efadv.h', package: 'libibverbs-dev' }

/** userdma.h and userdma_check.h. */
const HEADERS = `-I${inRoot('shim', 'include')}`

const benchNeeds = source => {
  if (source.endsWith('rdmacm_connects.c')) return { libraries: ['-lrdmacm', '-libverbs'], needs: RDMACM }
  if (source.endsWith('lends.c')) return { flags: [...C_FLAGS, HEADERS], libraries: ['-libverbs'], needs: VERBS }
  return source.endsWith('verbs_pair.c') ? { libraries: ['-lefa', '-libverbs'], needs: EFA } : {}
}

const targetsOf = (folder, output, flags, more) =>
  sourcesIn(folder).map(source => ({
    output: join(output, basename(source, extname(source))),
    sources: [source],
    flags,
    ...more,
  }))

/** A program that hangs until an alarm does so for longer on a slow machine. */
const withPatience = target => {
  const { sources, flags } = target
  if (!/\balarm\(/.test(readFileSync(sources[0], 'utf8'))) return target
  return { ...target, sources: [...sources, inRoot('test', 'patience.c')], flags: [...flags, '-Wl,--wrap=alarm'] }
}

const MLX5 = { header: 'infiniband/mlx5dv.h', package: 'libibverbs-dev' }

/** Libraries by what a program's own file includes; cm.h is that of docs/findings. */
const libraries = [
  [/cm\.h"|<rdma\/rdma_cma\.h>/, '-lrdmacm', RDMACM],
  [/infiniband\/mlx5dv\.h/, '-lmlx5', MLX5],
  [/infiniband\/efadv\.h/, '-lefa', EFA],
]

const withLibraries = target => {
  const source = readFileSync(target.sources[0], 'utf8')
  const used = libraries.filter(([pattern]) => pattern.test(source))
  if (used.length === 0) return target
  return { ...target, libraries: [...used.map(([, library]) => library), '-libverbs', '-lpthread'], needs: used[0][2] }
}

/** The programs of docs/findings with queue pairs of SRD: those that use neither rdma_cm nor mlx5. */
const srdTargets = (flags, more) =>
  targetsOf('docs/findings', 'findings/srd', [...flags, '-DSRD'], {
    ...more,
    libraries: ['-lefa', '-libverbs', '-lpthread'],
    needs: EFA,
  }).filter(({ sources: [source] }) => !/"cm\.h"|mlx5dv\.h/.test(readFileSync(source, 'utf8')))

/** The programs of docs/findings, with their faults and without (FIXED). */
const findingTargets = () => {
  const flags = [...C_FLAGS, '-O1', '-g', HEADERS]
  const more = { libraries: ['-libverbs', '-lpthread'], needs: VERBS, without: 'tests of `userdma check` do not run' }
  return [
    ...targetsOf('docs/findings', 'findings', flags, more),
    ...targetsOf('docs/findings', 'findings/fixed', [...flags, '-DFIXED'], more),
  ]
    .map(withLibraries)
    .concat(srdTargets(flags, more))
    .map(withPatience)
}

/** In CI a warning is a failure. Elsewhere it is only printed, because other compilers have others. */
const WARNINGS = process.env.CI ? ['-Werror'] : []

const testTargets = () => [
  ...targetsOf('test/programs', 'programs', [...C_FLAGS, '-g', HEADERS], {
    libraries: ['-libverbs', '-lpthread'],
    needs: VERBS,
    without: 'some tests do not run',
  }).map(target => withPatience(withLibraries(target))),
  ...findingTargets(),
  ...targetsOf('bench/references', 'bench', C_FLAGS, { without: 'some benchmarks do not run' }).map(target => ({
    ...target,
    ...benchNeeds(target.sources[0]),
  })),
]

/**
 * Whether tests whose sources have `text` may use a target: they name its folder of build/, or a program itself. A text
 * with the name of a program as another word gets a program too many.
 */
const isNamed = (text, output) => {
  const [folder] = output.split('/')
  return text.includes(`'${folder}'`) && (folder !== 'programs' || new RegExp(`\\b${basename(output)}\\b`).test(text))
}

const buildC = async (purpose, text) => {
  if (isForUse(purpose)) return (await compileStale(nativeTargets(), [])).isComplete
  if (text !== undefined) {
    const programs = testTargets().filter(({ output }) => isNamed(text, output))
    return (await compileStale([...nativeTargets(), ...programs], WARNINGS)).isComplete
  }
  const areComplete = [await compileForPackages(WARNINGS), (await compileStale(testTargets(), WARNINGS)).isComplete]
  return areComplete.every(Boolean)
}

/**
 * Builds outdated parts that `purpose` needs; the C parts when `hasCompiler` has resolved. Steps run even after the
 * failure of an earlier step. `text`: what the tests that will run consist of (quick-build.mjs); undefined: all may
 * run. True on success.
 */
export const build = async (purpose, hasCompiler = Promise.resolve(), text = undefined) => {
  // It bundles the sources, and needs no compiled files.
  const hasPage = text === undefined || /\binspect\b/.test(text)
  const page = hasPage ? step('build: the page of `userdma inspect`', buildPage) : true
  const successes = [
    await step('build: TypeScript', () => buildTypeScript(purpose)),
    await step('build: bundles', bundle),
    await page,
    generateProtocol(),
  ]
  await hasCompiler
  successes.push(await step('build: C', () => buildC(purpose, text)))
  return successes.every(Boolean)
}

const PURPOSES = ['start', 'package', 'test', 'long', 'bench']

/** The value of `--for PURPOSE`, by default test. Throws StepError for other arguments. */
export const purposeOf = (args, script) => {
  if (args.length === 0) return 'test'
  const [option, purpose] = args
  if (args.length === 2 && option === '--for' && PURPOSES.includes(purpose)) return purpose
  throw new StepError(`usage: node scripts/${script} [--for ${PURPOSES.join('|')}]; got: ${args.join(' ')}`)
}

if (isMain(import.meta.url)) main(async args => ((await build(purposeOf(args, 'build.mjs'))) ? 0 : 1))
