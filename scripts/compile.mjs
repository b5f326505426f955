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
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, relative, resolve } from 'node:path'
import { filesBelow, findProgram, inRoot, modified, root, say } from './common.mjs'

export const sourcesIn = folder => filesBelow(inRoot(folder), path => path.endsWith('.c'))

export const C_FLAGS = ['-std=gnu11', '-O2', '-Wall', '-Wextra']

export const VERBS = { header: 'infiniband/verbs.h', package: 'libibverbs-dev' }

/** By the output of each target: the arguments it was compiled with, without those for warnings. */
const COMMANDS = inRoot('build', 'commands.json')
const readCommands = () => (existsSync(COMMANDS) ? JSON.parse(readFileSync(COMMANDS, 'utf8')) : {})

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

/** The compiler's arguments, without the output. `flags`: additional ones. */
const argumentsFor = (target, flags = []) => {
  const sources = target.sources.map(path => relative(root, path))
  const includes = (target.includes ?? []).flatMap(path => ['-include', relative(root, path)])
  return [...target.flags, ...flags, ...includes, ...sources, ...(target.libraries ?? [])]
}

const commandOf = target => argumentsFor(target).join(' ')

/** `command`: as of COMMANDS; undefined: unknown. */
const isCurrent = (target, command) => {
  const built = modified(inRoot('build', target.output))
  const read = new Set()
  for (const source of [...target.sources, ...(target.includes ?? [])]) addIncludes(source, read)
  const isSame = command === undefined || command === commandOf(target)
  return isSame && built > 0 && [...read].every(path => modified(path) <= built)
}

/**
 * Compiles a target: to a temporary name, then renames. This never overwrites a library that a process has mapped.
 * `flags`: additional arguments. True on success.
 */
const compile = async (cc, target, flags) => {
  const output = inRoot('build', target.output)
  const temporary = `${output}.${process.pid}`
  mkdirSync(dirname(output), { recursive: true })
  const args = ['-o', temporary, ...argumentsFor(target, flags)]
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
  const known = readCommands()
  const stale = targets.filter(target => !isCurrent(target, known[target.output]))
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
  const commands = {}
  const compileWaiting = async () => {
    for (let target = waiting.shift(); target !== undefined; target = waiting.shift()) {
      if (await compile(cc, target, flags)) commands[target.output] = commandOf(target)
      else isComplete = false
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, compileWaiting))
  writeFileSync(COMMANDS, JSON.stringify({ ...readCommands(), ...commands }))
  return { isComplete, blocked: allBlocked.size }
}
