/*
 * preloadProblems reports programs into which the preload library cannot be loaded.
 */
import assert from 'node:assert/strict'
import { chmodSync, chownSync, copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { checkProgram } from '../../src/cli/commands/run.ts'
import { privateFolder, removeFolder } from '../../src/cli/paths.ts'
import { preloadProblems } from '../../src/cli/program/preload-check.ts'
import { compileC, requireTool } from '../tools.ts'

const folder = privateFolder()
const preloadProblem = (path: string, args: readonly string[]): string | undefined =>
  preloadProblems(path, args).find(({ name }) => name === path)?.problem
after(() => removeFolder(folder))

/** The path of the dynamic linker that a program names (PT_INTERP). */
const linkerOf = (path: string): string | undefined => /\/lib\S*\/ld-[\w.-]+/.exec(readFileSync(path, 'latin1'))?.[0]

test('system programs, scripts, and files that are not programs have no problem', () => {
  for (const path of ['/bin/sh', process.execPath, '/nothing', folder])
    assert.equal(preloadProblem(path, []), undefined)
  const script = join(folder, 'script')
  writeFileSync(script, '#!/bin/sh\n')
  assert.equal(preloadProblem(script, []), undefined)
  for (const args of [
    ['A=1', 'true'],
    ['A=1', 'true', '-i', '1'],
  ])
    assert.equal(preloadProblem('/usr/bin/env', args), undefined)
})

test('a static program and a program for another processor are reported, a truncated file is not', t => {
  if (!requireTool('cc', t, 'gcc libc6-dev')) return
  const source = join(folder, 'main.c')
  writeFileSync(source, 'int main(void) { return 0; }\n')
  const staticProgram = compileC(join(folder, 'static'), [source], ['-static'])
  assert.match(preloadProblem(staticProgram, []) ?? '', /linked statically, .*; link it against glibc without -static$/)
  // As Go's linker marks its programs.
  writeFileSync(
    source,
    'int main(void) { return 0; }\n__asm__(".section .note.go.buildid,\\"a\\",@note\\n.long 4,4,4\\n.asciz \\"Go\\"\\n.byte 0\\n.long 1");\n',
  )
  const go = compileC(join(folder, 'go'), [source], ['-static', '-Wl,--build-id=none'])
  assert.match(preloadProblem(go, []) ?? '', /a static program of Go, .*; build it with CGO_ENABLED=1/)
  const foreign = join(folder, 'foreign')
  // The copy gives the new file its executable mode.
  copyFileSync(process.execPath, foreign)
  // The header of a 64-bit ELF file with e_machine 8, EM_MIPS.
  const bytes = Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, ...new Array(11).fill(0), 8, 0, ...new Array(44).fill(0)])
  writeFileSync(foreign, bytes)
  assert.match(preloadProblem(foreign, []) ?? '', /built for another processor/)
  // EI_CLASS 1: a 32-bit program for the processor of /bin/true.
  writeFileSync(foreign, readFileSync('/bin/true').fill(1, 4, 5))
  assert.match(preloadProblem(foreign, []) ?? '', /built for another processor/)
  writeFileSync(foreign, bytes.subarray(0, 20))
  assert.equal(preloadProblem(foreign, []), undefined)
})

test('a program of musl is refused, the dynamic linker itself is not', t => {
  const linker = linkerOf('/bin/true')
  if (linker === undefined) return t.skip('/bin/true has no dynamic linker')
  const musl = join(folder, 'musl')
  const bytes = readFileSync('/bin/true')
  bytes.write('/lib/ld-musl-x.so.1\0', bytes.indexOf(linker))
  writeFileSync(musl, bytes, { mode: 0o755 })
  const message = 'it uses musl, and the preload library needs glibc; build it for glibc'
  assert.deepEqual(preloadProblems(musl, []), [{ name: musl, problem: message, isFatal: true }])
  assert.throws(() => checkProgram(musl, []), {
    name: 'ProgramError',
    status: 126,
    message: `${musl} cannot run here: ${message}`,
  })
  assert.equal(preloadProblem(linker, ['/bin/true']), undefined)
})

test('an environment emptied by env is reported; a set-uid program of this user is not', () => {
  for (const args of [['-i', 'true'], ['-'], ['--ignore-environment', 'true'], ['-vi']])
    assert.match(preloadProblem('/usr/bin/env', args) ?? '', /environment/)
  const setUid = join(folder, 'set-id')
  copyFileSync('/bin/true', setUid)
  chmodSync(setUid, 0o4755)
  assert.equal(preloadProblem(setUid, []), undefined)
})

test('a program that changes its user or group is reported', t => {
  if (process.getuid?.() !== 0) return t.skip('only root can make such programs')
  const program = join(folder, 'set-id-of-others')
  copyFileSync('/bin/true', program)
  const problemWith = (uid: number, gid: number, mode: number): string | undefined => {
    chownSync(program, uid, gid)
    chmodSync(program, mode)
    return preloadProblem(program, [])
  }
  const [ownUid, ownGid, otherId] = [0, process.getgid!(), 4321]
  const changes = /changes its user or group/
  assert.match(problemWith(otherId, ownGid, 0o4755) ?? '', changes)
  assert.match(problemWith(ownUid, otherId, 0o2755) ?? '', changes)
  assert.equal(problemWith(otherId, ownGid, 0o2755), undefined)
  assert.equal(problemWith(ownUid, otherId, 0o2745), undefined, 'without the right of the group to execute it')
})

test('interpreters of scripts, and programs that launchers and shells start, are checked', t => {
  if (!requireTool('cc', t, 'gcc libc6-dev')) return
  const source = join(folder, 'none.c')
  writeFileSync(source, 'int main(void) { return 0; }\n')
  const staticProgram = compileC(join(folder, 'fixed'), [source], ['-static'])
  const script = (name: string, line: string): string => {
    const path = join(folder, name)
    writeFileSync(path, `${line}\n`, { mode: 0o755 })
    return path
  }
  const problemsOf = (program: string, ...args: readonly string[]): readonly string[] =>
    preloadProblems(program, args).map(({ name, problem }) => `${name}: ${problem}`)
  const reason = 'it is linked statically, so nothing can be preloaded; link it against glibc without -static'
  const direct = [`${staticProgram}: ${reason}`]

  const interpreted = script('interpreted', `#!${staticProgram} -x`)
  const outer = script('outer', `#! ${interpreted}`)
  const byEnv = script('by-env', `#!/usr/bin/env ${staticProgram}`)
  assert.deepEqual(problemsOf(interpreted), [
    `${interpreted}: the cause is its interpreter ${staticProgram}: ${reason}`,
  ])
  assert.deepEqual(problemsOf(outer), [`${interpreted}: the cause is its interpreter ${staticProgram}: ${reason}`])
  assert.deepEqual(problemsOf(byEnv), [`${byEnv}: the cause is its interpreter ${staticProgram}: ${reason}`])
  assert.deepEqual(problemsOf(script('endless', `#!${join(folder, 'endless')}`)), [])
  assert.deepEqual(problemsOf(script('plain', '#!/bin/sh -e')), [])

  assert.deepEqual(problemsOf('sh', '-c', staticProgram), direct)
  assert.deepEqual(problemsOf('sh', '-ec', `cd /; A=1 exec ${staticProgram} --flag && true`), direct)
  for (const options of [['-ce'], ['-c', '-e'], ['-o', 'pipefail', '-c'], ['-euo', 'pipefail', '-c'], ['-c', '--']])
    assert.deepEqual(problemsOf('bash', ...options, staticProgram), direct)
  assert.deepEqual(problemsOf('bash', '-o', 'pipefail', staticProgram), [])
  for (const options of [
    ['-S', `${staticProgram} x`],
    [`-iS${staticProgram} x`],
    [`--split-string=A=1 ${staticProgram}`],
  ])
    assert.ok(problemsOf('env', ...options).includes(direct[0]!))
  const withoutPreload = 'it starts its program without the environment that names the preload library'
  for (const options of [['-iS', 'true'], ['-vi', '-S', 'true'], ['-S', '-i true'], ['-iStrue']])
    assert.deepEqual(problemsOf('env', ...options), [`env: ${withoutPreload}`])
  // Linux passes all that follows the interpreter as one argument.
  const bySplit = script('by-split', `#!/usr/bin/env -S A=1 ${staticProgram} -x`)
  assert.deepEqual(problemsOf(bySplit), [`${bySplit}: the cause is its interpreter ${staticProgram}: ${reason}`])
  assert.deepEqual(problemsOf('bash', '-c', `if ${staticProgram}; then ${staticProgram}; fi`), direct)
  // Quoted and escaped separators do not end a command.
  assert.deepEqual(
    problemsOf('sh', '-c', `echo '; ${staticProgram} x' "\\"; ${staticProgram} x" \\; ${staticProgram} x`),
    [],
  )
  assert.deepEqual(problemsOf('sh', '-c', '"$0" x', staticProgram), [])
  // Here the first argument of sh is a script.
  assert.deepEqual(problemsOf('sh', script('-c', ''), staticProgram), [])
  assert.deepEqual(problemsOf('sh', script('own-arguments', ''), '-c', staticProgram), [])
  const linker = linkerOf('/bin/true')
  if (linker !== undefined) assert.deepEqual(problemsOf(linker, '--argv0', 'x', staticProgram), direct)
  assert.deepEqual(problemsOf('timeout', '-k', '1', '5', staticProgram, 'x'), direct)
  assert.deepEqual(problemsOf('env', 'A=1', 'sh', '-c', `nice ${staticProgram}`), direct)
})
