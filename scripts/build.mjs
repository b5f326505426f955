#!/usr/bin/env node
/*
 * Builds what is out of date: TypeScript into dist/, the C parts into build/.
 *
 *   build.mjs [--for start|test|long|bench]
 *                                        start: everything but tests and benchmarks; test (the default), long and
 *                                        bench: everything
 *
 *   dist/                                compiled src, test, bench and examples
 *   dist/BUNDLE.cjs, BUNDLE.cache        often used commands in one file, and its compiled code (scripts/bundle.mjs)
 *   shim/protocol.h                      session protocol for C, generated from src/spec/session.ts
 *   build/native/libuserdma_native.so    CRC of packets, copies, movers (optional)
 *   build/native/libuserdma_shim.so      preload library that shows the device to an unmodified program
 *   build/native/libuserdma_waits.so     preload library that sees threads wait, for `userdma check --races`
 *   build/native/libuserdma_frees.so     preload library that sees blocks freed, for `userdma check`
 *   build/programs/NAME                  test programs (NAME.c below test/programs)
 *   build/findings/NAME, fixed/NAME      programs of findings with their fault and without (docs/findings/NAME.c)
 *   build/bench/NAME                     C references and C sides of benchmarks (bench/references/NAME.c)
 *
 * If this machine lacks a compiler or headers for a part, the build prints what does not work without the part, and
 * succeeds. A part that does not compile is a failure.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { basename, dirname, extname, join, relative, resolve, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { bundle } from './bundle.mjs'
import { filesBelow, findProgram, inRoot, isMain, main, modified, root, run, StepError, say } from './common.mjs'

const SCRIPT = fileURLToPath(import.meta.url)
const sourcesIn = (folder, end) => filesBelow(inRoot(folder), path => path.endsWith(end))

/** True for sources of shim/ that belong to a separate library. */
const isOwnLibrary = path => ['waits', 'frees'].some(name => path.startsWith(inRoot('shim', name) + sep))

/** Removes compiled files without a source: stale tests would run, and stale imports work. */
const removeOrphans = () => {
  const compiled = /\.(js|js\.map|d\.ts)$/
  for (const folder of ['src', 'test', 'bench', 'examples']) {
    for (const path of filesBelow(inRoot('dist', folder), path => compiled.test(path))) {
      const source = inRoot(relative(inRoot('dist'), path).replace(compiled, '.ts'))
      if (!existsSync(source)) rmSync(path)
    }
  }
}

const buildTypeScript = purpose => {
  // node_modules/.bin may have the tsc of another TypeScript, which a test uses.
  const tsc = inRoot('node_modules', 'typescript', 'bin', 'tsc')
  if (!existsSync(tsc)) {
    say('build: TypeScript is not installed; run `npm ci` (or node scripts/setup.mjs, which does it)')
    return false
  }
  const hasCompiled = run(process.execPath, [
    tsc,
    '-b',
    inRoot('scripts', purpose === 'start' ? 'tsconfig.examples.json' : 'tsconfig.all.json'),
  ])
  removeOrphans()
  if (!hasCompiled) say('build: tsc found the errors above')
  return hasCompiled
}

const generateProtocol = () => {
  const generator = inRoot('scripts', 'generate-protocol.mjs')
  const header = inRoot('shim', 'protocol.h')
  const source = inRoot('dist', 'src', 'spec', 'session.js')
  if (!existsSync(source)) {
    say('build: shim/protocol.h was not generated: src/spec/session.ts did not compile')
    return false
  }
  if (modified(header) >= Math.max(modified(generator), modified(source))) return true
  const hasSucceeded = run(process.execPath, [generator])
  if (!hasSucceeded) say('build: scripts/generate-protocol.mjs failed')
  return hasSucceeded
}

const C_FLAGS = ['-std=gnu11', '-O2', '-Wall', '-Wextra']
const SHARED = ['-shared', '-fPIC', '-fvisibility=hidden']

const VERBS = { header: 'infiniband/verbs.h', package: 'libibverbs-dev' }
const RDMACM = { header: 'rdma/rdma_cma.h', package: 'librdmacm-dev' }

const benchNeeds = source =>
  source.endsWith('rdmacm_connects.c') ? { libraries: ['-lrdmacm', '-libverbs'], needs: RDMACM } : {}

const targetsOf = (folder, output, flags, more) =>
  sourcesIn(folder, '.c').map(source => ({
    output: join(output, basename(source, extname(source))),
    sources: [source],
    flags,
    ...more,
  }))

/** The programs of docs/findings, with their faults and without (FIXED). */
const findingTargets = () => {
  const flags = [...C_FLAGS, '-O1', '-g']
  const more = { libraries: ['-libverbs'], needs: VERBS, without: 'tests of `userdma check` do not run' }
  return [
    ...targetsOf('docs/findings', 'findings', flags, more),
    ...targetsOf('docs/findings', 'findings/fixed', [...flags, '-DFIXED'], more),
  ]
}

const testTargets = () => [
  ...targetsOf('test/programs', 'programs', C_FLAGS, {
    libraries: ['-libverbs', '-lpthread'],
    needs: VERBS,
    without: 'some tests do not run',
  }),
  ...findingTargets(),
  ...targetsOf('bench/references', 'bench', C_FLAGS, { without: 'some benchmarks do not run' }).map(target => ({
    ...target,
    ...benchNeeds(target.sources[0]),
  })),
]

/**
 * The C targets. `output`: path below build/. `needs`: a header of the system, and its Debian package. `without`: what
 * does not work without the target.
 */
const targets = purpose =>
  [
    {
      output: 'native/libuserdma_native.so',
      sources: sourcesIn('native', '.c'),
      flags: [...C_FLAGS, ...SHARED],
      without: 'packets are checked with zlib, which is slower, and memory that never answers keeps the daemon waiting',
    },
    {
      output: 'native/libuserdma_shim.so',
      sources: sourcesIn('shim', '.c').filter(path => !isOwnLibrary(path)),
      flags: [...C_FLAGS, ...SHARED],
      libraries: ['-ldl', '-lpthread'],
      needs: VERBS,
      without: 'only programs in TypeScript can use the device',
    },
    {
      output: 'native/libuserdma_waits.so',
      sources: sourcesIn('shim/waits', '.c'),
      flags: [...C_FLAGS, ...SHARED],
      libraries: ['-ldl', '-lpthread'],
      without: '`userdma check --races` does not run',
    },
    {
      output: 'native/libuserdma_frees.so',
      sources: sourcesIn('shim/frees', '.c'),
      flags: [...C_FLAGS, ...SHARED],
      libraries: ['-ldl'],
      without: '`userdma check` does not run',
    },
    ...(purpose === 'start' ? [] : testTargets()),
  ].filter(target => target.sources.length > 0)

const compiler = () =>
  (process.env.CC ? findProgram(process.env.CC) : undefined) ||
  findProgram('cc') ||
  findProgram('gcc') ||
  findProgram('clang')

const hasHeader = (cc, header) =>
  spawnSync(cc, ['-E', '-x', 'c', '-'], { input: `#include <${header}>\n`, stdio: ['pipe', 'ignore', 'ignore'] })
    .status === 0

/** Adds a C source, and the files that it includes by `#include "…"`, also indirectly, to `found`. */
const addIncludes = (path, found) => {
  if (found.has(path) || !existsSync(path)) return
  found.add(path)
  for (const [, name] of readFileSync(path, 'utf8').matchAll(/^#include "(.+)"/gm))
    addIncludes(resolve(dirname(path), name), found)
}

const isCurrent = target => {
  const built = modified(inRoot('build', target.output))
  const read = new Set([SCRIPT])
  for (const source of target.sources) addIncludes(source, read)
  return built > 0 && [...read].every(path => modified(path) <= built)
}

/** Compiles to a temporary name, then renames: this never overwrites a library that a process has mapped. */
const compile = (cc, target) => {
  const output = inRoot('build', target.output)
  const temporary = `${output}.${process.pid}`
  mkdirSync(dirname(output), { recursive: true })
  const hasCompiled = run(cc, [
    ...target.flags,
    '-o',
    temporary,
    ...target.sources.map(path => relative(root, path)),
    ...(target.libraries || []),
  ])
  if (hasCompiled) renameSync(temporary, output)
  else {
    rmSync(temporary, { force: true })
    say(`build: ${relative(root, output)} did not compile`)
  }
  return hasCompiled
}

const buildC = purpose => {
  const stale = targets(purpose).filter(target => !isCurrent(target))
  if (stale.length === 0) return true
  const cc = compiler()
  /** Missing prerequisites, with the targets that need them. */
  const missing = []
  if (!cc) missing.push({ name: 'a C compiler (Debian: apt-get install gcc libc6-dev)', targets: stale })
  else if (!hasHeader(cc, 'stdio.h'))
    missing.push({ name: "the C library's headers (Debian: apt-get install libc6-dev)", targets: stale })
  else {
    for (const needs of new Set(stale.map(target => target.needs).filter(Boolean))) {
      if (hasHeader(cc, needs.header)) continue
      const name = `<${needs.header}> (Debian: apt-get install ${needs.package})`
      missing.push({ name, targets: stale.filter(target => target.needs === needs) })
    }
  }
  for (const { name, targets: blocked } of missing) {
    say(`build: ${name} is missing, so these parts were not built:`)
    for (const without of new Set(blocked.map(target => target.without))) {
      const outputs = blocked.filter(target => target.without === without).map(target => `build/${target.output}`)
      say(`  ${outputs.join(', ')}: without it ${without}`)
    }
  }
  const allBlocked = new Set(missing.flatMap(entry => entry.targets))
  let hasFailed = false
  for (const target of stale) if (!allBlocked.has(target) && !compile(cc, target)) hasFailed = true
  return !hasFailed
}

/** Builds outdated parts that `purpose` needs. Steps run even after the failure of an earlier step. True on success. */
export const build = async purpose => {
  const successes = [buildTypeScript(purpose), await bundle(), generateProtocol(), buildC(purpose)]
  return successes.every(Boolean)
}

/** The value of `--for start|test|long|bench`, by default test. Throws StepError for other arguments. */
export const purposeOf = (args, script) => {
  if (args.length === 0) return 'test'
  const [option, purpose] = args
  if (args.length === 2 && option === '--for' && ['start', 'test', 'long', 'bench'].includes(purpose)) return purpose
  throw new StepError(`usage: node scripts/${script} [--for start|test|long|bench]; got: ${args.join(' ')}`)
}

if (isMain(import.meta.url)) main(async args => ((await build(purposeOf(args, 'build.mjs'))) ? 0 : 1))
