/*
 * The C libraries of packages: for x64 and arm64, loadable with glibc 2.28 and newer (shim/old-glibc.h), and without
 * symbols that only debuggers read. This machine's are those of the build; the others are compiled into build/ARCH.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { findProgram, inRoot, StepError, say } from '../common.mjs'
import { compileStale, hasHeader, VERBS } from '../compile.mjs'
import { nativeTargets } from '../native-targets.mjs'

/** By process.arch. `tools`: what the names of its compiler and strip begin with; `debian`: its name in Debian. */
export const ARCHITECTURES = {
  x64: { tools: 'x86_64-linux-gnu-', debian: 'amd64', compiler: 'gcc-x86-64-linux-gnu' },
  arm64: { tools: 'aarch64-linux-gnu-', debian: 'arm64', compiler: 'gcc-aarch64-linux-gnu' },
}

/** The name of gcc or strip for an architecture; undefined if it is missing. */
export const toolFor = (arch, name) =>
  [`${ARCHITECTURES[arch].tools}${name}`, ...(arch === process.arch ? [name] : [])].find(findProgram)

/** Debian packages that are missing to compile for an architecture. */
export const missingForNative = arch => {
  const isOwn = arch === process.arch
  const { compiler: crossCompiler, debian } = ARCHITECTURES[arch]
  const compiler = toolFor(arch, 'gcc')
  // apt-get installs the C library's headers with gcc only if it installs recommended packages.
  const headers = isOwn ? 'libc6-dev' : `libc6-dev-${debian}-cross`
  const hasHeaders = compiler !== undefined && hasHeader(compiler, 'stdio.h')
  return [
    ...(compiler === undefined ? [isOwn ? 'gcc' : crossCompiler] : []),
    ...(hasHeaders || (isOwn && compiler === undefined) ? [] : [headers]),
    ...(!hasHeaders || hasHeader(compiler, VERBS.header) ? [] : [VERBS.package]),
    ...(findProgram('objdump') ? [] : ['binutils']),
  ]
}

const OLDEST_GLIBC = [2, 28]

/** Removes the symbols of an ELF file that only debuggers read: a seventh of Node.js. Throws StepError. */
export const strip = (arch, path) => {
  const { status, error, stderr } = spawnSync(toolFor(arch, 'strip'), [path], { encoding: 'utf8' })
  if (status !== 0) throw new StepError(`strip ${path}: ${error?.message ?? stderr}`)
}

/**
 * The symbols of ELF files that need a newer glibc than 2.28, as `FILE: SYMBOL VERSION`. Throws StepError if objdump
 * fails.
 */
export const tooNewSymbols = files =>
  files.flatMap(file => {
    const { status, stdout, stderr, error } = spawnSync('objdump', ['-T', file], {
      encoding: 'utf8',
      maxBuffer: 1 << 28,
    })
    if (status !== 0) throw new StepError(`objdump -T ${file}: ${error?.message ?? stderr} (Debian: binutils)`)
    return [...stdout.matchAll(/\(?GLIBC_(\d+)\.(\d+)[\d.]*\)?\s+(\S+)$/gm)]
      .filter(([, major, minor]) => major > OLDEST_GLIBC[0] || (+major === OLDEST_GLIBC[0] && minor > OLDEST_GLIBC[1]))
      .map(([, major, minor, symbol]) => `${basename(file)}: ${symbol} GLIBC_${major}.${minor}`)
  })

const targetsFor = arch => nativeTargets(arch === process.arch ? undefined : arch)

/** What is wrong with the symbols of ELF files; undefined if nothing is. */
const newerThanOldest = files => {
  const tooNew = tooNewSymbols(files)
  if (tooNew.length === 0) return undefined
  return `needs a newer glibc than ${OLDEST_GLIBC.join('.')}: ${tooNew.join(', ')}; each belongs into shim/old-glibc.h, or is looked up with dlsym`
}

/**
 * Compiles the libraries for this machine and for the architectures whose compilers are here, and looks whether
 * packages can be made of them: in CI it is a failure if not; elsewhere it is only printed, because a newer C library
 * has newer symbols. `flags`: as for `compileStale`. True on success.
 */
export const compileForPackages = async flags => {
  const check = path => {
    const wrong = newerThanOldest([path])
    if (wrong === undefined || process.env.CI) return wrong
    say(`build: no packages can be made here: ${wrong}`)
  }
  const results = []
  for (const arch of Object.keys(ARCHITECTURES)) {
    const isOwn = arch === process.arch
    if (!isOwn && missingForNative(arch).length > 0) continue
    const targets = targetsFor(arch).map(target => (findProgram('objdump') ? { ...target, check } : target))
    results.push(await compileStale(targets, flags, isOwn ? undefined : toolFor(arch, 'gcc')))
  }
  return results.every(({ isComplete }) => isComplete)
}

/**
 * Copies the libraries of an architecture, compiled if they are out of date, into `folder`; resolves to their paths.
 * Needs all of `missingForNative`. Throws StepError.
 */
export const compileNative = async (arch, folder) => {
  const targets = targetsFor(arch)
  if (!(await compileStale(targets, [], toolFor(arch, 'gcc'))).isComplete)
    throw new StepError('the C libraries did not compile (see above)')
  mkdirSync(folder, { recursive: true })
  const paths = targets.map(({ output }) => {
    const path = join(folder, basename(output))
    cpSync(inRoot('build', output), path)
    strip(arch, path)
    return path
  })
  const wrong = newerThanOldest(paths)
  if (wrong !== undefined) throw new StepError(`a library ${wrong}`)
  return paths
}
