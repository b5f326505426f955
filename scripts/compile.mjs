/*
 * Compiles C targets that are out of date into build/.
 *
 * A target: `output`, a path below build/; `sources`; `includes`: headers that the compiler reads first; `flags`,
 * `libraries`: arguments of the compiler. `needs`: a header or a static library (`archive`) of the system, and its
 * Debian package. `without`: what does not work without the target. `check`: gets the path of the compiled file, and
 * returns what is wrong with it.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { filesBelow, findProgram, inRoot, modified, root, say } from './common.mjs'

export const sourcesIn = folder => filesBelow(inRoot(folder), path => path.endsWith('.c'))

export const C_FLAGS = ['-std=gnu11', '-O2', '-Wall', '-Wextra']

export const VERBS = { header: 'infiniband/verbs.h', package: 'libibverbs-dev' }

/** Files whose change makes every target out of date. */
const SCRIPTS = ['compile.mjs', 'native-targets.mjs', 'build.mjs'].map(name =>
  fileURLToPath(new URL(name, import.meta.url)),
)

const compiler = () =>
  (process.env.CC ? findProgram(process.env.CC) : undefined) ||
  findProgram('cc') ||
  findProgram('gcc') ||
  findProgram('clang')

/** Whether a compiler finds a header of the system. */
export const hasHeader = (cc, header) =>
  spawnSync(cc, ['-E', '-x', 'c', '-'], { input: `#include <${header}>\n`, stdio: ['pipe', 'ignore', 'ignore'] })
    .status === 0

/** Whether the compiler finds what a target needs. */
const isThere = (cc, { header, archive }) =>
  header === undefined
    ? spawnSync(cc, [`-print-file-name=${archive}`], { encoding: 'utf8' }).stdout?.includes('/') === true
    : hasHeader(cc, header)

/** Adds a C source, and the files that it includes by `#include "…"`, also indirectly, to `found`. */
const addIncludes = (path, found) => {
  if (found.has(path) || !existsSync(path)) return
  found.add(path)
  for (const [, name] of readFileSync(path, 'utf8').matchAll(/^#include "(.+)"/gm))
    addIncludes(resolve(dirname(path), name), found)
}

const isCurrent = target => {
  const built = modified(inRoot('build', target.output))
  const read = new Set(SCRIPTS)
  for (const source of [...target.sources, ...(target.includes ?? [])]) addIncludes(source, read)
  return built > 0 && [...read].every(path => modified(path) <= built)
}

/**
 * Compiles a target: to a temporary name, then renames. This never overwrites a library that a process has mapped.
 * `flags`: additional arguments. True on success.
 */
const compile = async (cc, target, flags = []) => {
  const output = inRoot('build', target.output)
  const temporary = `${output}.${process.pid}`
  mkdirSync(dirname(output), { recursive: true })
  const sources = target.sources.map(path => relative(root, path))
  const includes = (target.includes ?? []).flatMap(path => ['-include', relative(root, path)])
  const args = [...target.flags, ...flags, ...includes, '-o', temporary, ...sources, ...(target.libraries || [])]
  const hasCompiled = await once(spawn(cc, args, { cwd: root, stdio: 'inherit' }), 'close').then(
    ([status]) => status === 0,
    error => say(`${cc}: ${error.message}`),
  )
  const wrong = hasCompiled ? target.check?.(temporary) : 'did not compile'
  if (wrong === undefined) renameSync(temporary, output)
  else {
    rmSync(temporary, { force: true })
    say(`build: ${relative(root, output)} ${wrong}`)
  }
  return wrong === undefined
}

/**
 * Compiles the targets that are out of date. If this machine lacks a compiler or headers, prints what does not work
 * without the blocked targets, whose number is `blocked`. `flags`: as for `compile`. `isComplete`: all others compiled.
 * `cc`: the compiler, by default this machine's.
 */
export const compileStale = async (targets, flags, cc = compiler()) => {
  const stale = targets.filter(target => !isCurrent(target))
  if (stale.length === 0) return { isComplete: true, blocked: 0 }
  /** Missing prerequisites, with the targets that need them. */
  const missing = []
  if (!cc) missing.push({ name: 'a C compiler (Debian: apt-get install gcc libc6-dev)', targets: stale })
  else if (!hasHeader(cc, 'stdio.h'))
    missing.push({ name: "the C library's headers (Debian: apt-get install libc6-dev)", targets: stale })
  else {
    for (const needs of new Set(stale.map(target => target.needs).filter(Boolean))) {
      if (isThere(cc, needs)) continue
      const name = `${needs.archive ?? `<${needs.header}>`} (Debian: apt-get install ${needs.package})`
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
  const waiting = stale.filter(target => !allBlocked.has(target))
  let isComplete = true
  const compileWaiting = async () => {
    for (let target = waiting.shift(); target !== undefined; target = waiting.shift())
      if (!(await compile(cc, target, flags))) isComplete = false
  }
  await Promise.all(Array.from({ length: availableParallelism() }, compileWaiting))
  return { isComplete, blocked: allBlocked.size }
}
