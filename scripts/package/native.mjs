/*
 * Compiles the C libraries for packages: for x64 and arm64, loadable with glibc 2.28 and newer (shim/old-glibc.h), and
 * without symbols that only debuggers read.
 */
import { spawnSync } from 'node:child_process'
import { basename, join } from 'node:path'
import { findProgram, inRoot, StepError } from '../common.mjs'
import { compile, hasHeader, VERBS } from '../compile.mjs'
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
  const compiler = toolFor(arch, 'gcc')
  return [
    ...(compiler === undefined ? [arch === process.arch ? 'gcc' : ARCHITECTURES[arch].compiler] : []),
    ...(compiler === undefined || hasHeader(compiler, VERBS.header) ? [] : [VERBS.package]),
    ...(findProgram('objdump') ? [] : ['binutils']),
  ]
}

const OLDEST_GLIBC = [2, 28]

const FLAGS = ['-s', '-include', inRoot('shim', 'old-glibc.h')]
/** By file: `-ldl` and `-lpthread` name static libraries, which are empty. */
const OLD_LIBRARIES = ['-Wl,--push-state,--no-as-needed', '-l:libdl.so.2', '-l:libpthread.so.0', '-Wl,--pop-state']

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

/** Compiles the libraries for an architecture into `folder`; resolves to their paths. Needs all of `missingForNative`. Throws StepError. */
export const compileNative = async (arch, folder) => {
  const compiler = toolFor(arch, 'gcc')
  const paths = []
  for (const { libraries: _, ...target } of nativeTargets()) {
    const path = join(folder, basename(target.output))
    if (!(await compile(compiler, { ...target, libraries: OLD_LIBRARIES }, path, FLAGS)))
      throw new StepError(`${compiler} failed (see above)`)
    paths.push(path)
  }
  const tooNew = tooNewSymbols(paths)
  if (tooNew.length > 0)
    throw new StepError(`these symbols need a newer glibc than ${OLDEST_GLIBC.join('.')}: ${tooNew.join(', ')}`)
  return paths
}
