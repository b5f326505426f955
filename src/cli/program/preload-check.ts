/*
 * Checks, before a program is started, whether the dynamic linker will load the preload library into it. A program
 * without the library only reports that it finds no devices.
 */
import { constants, type Stats, statSync } from 'node:fs'
import { basename } from 'node:path'
import { readElf } from './elf.ts'
import { isDynamicLinker, ownArguments, startedPrograms } from './started-programs.ts'

/** EM_X86_64 and EM_AARCH64, by `process.arch`. */
const MACHINES: Readonly<Record<string, number>> = { x64: 62, arm64: 183 }
const { S_IXGRP } = constants
const S_ISUID = 0o4000
const S_ISGID = 0o2000

const STATIC = 'so nothing can be preloaded'

/** Whether a program's dynamic linker is that of musl, which loads no library of glibc: the program would not start. */
const usesMusl = (path: string): boolean => basename(readElf(path)?.linker ?? '').startsWith('ld-musl')

/** Why this file will not load the preload library, as in `problemOf`. */
const problemOfFile = (path: string): string | undefined => {
  const file = readElf(path)
  if (file === undefined) return undefined
  const machine = MACHINES[process.arch]
  if (!file.is64Bit || (machine !== undefined && file.machine !== machine))
    return 'it is built for another processor than the preload library'
  if (file.linker === undefined)
    return file.isGo
      ? `it is a static program of Go, ${STATIC}; build it with CGO_ENABLED=1, and call libibverbs through cgo`
      : `it is linked statically, ${STATIC}; link it against glibc without -static`
  if (usesMusl(path)) return 'it uses musl, and the preload library needs glibc; build it for glibc'
  return undefined
}

/** Whether a program gets another user or group when it starts: then the dynamic linker ignores the preload library. */
const changesIdentity = ({ mode, uid, gid }: Stats): boolean => {
  const isSetUid = (mode & S_ISUID) !== 0
  // Without S_IXGRP, Linux ignores S_ISGID.
  const isSetGid = (mode & S_ISGID) !== 0 && (mode & S_IXGRP) !== 0
  return (isSetUid && uid !== process.getuid?.()) || (isSetGid && gid !== process.getgid?.())
}

/**
 * Why this program will not load the preload library: a sentence about "it"; undefined if no reason is known.
 * `isFirst`: it is the program of the command line itself.
 */
const problemOf = (path: string, args: readonly string[], isFirst: boolean): string | undefined => {
  const emptiesEnvironment = /^-[a-zA-Z]*i[a-zA-Z]*$|^--ignore-environment$|^-$/
  if (basename(path) === 'env' && ownArguments(args).some(arg => emptiesEnvironment.test(arg)))
    return 'it starts its program without the environment that names the preload library'
  // It has no PT_INTERP, like a static program, and loads the library into the program that it starts.
  if (isDynamicLinker(path)) return undefined
  try {
    // Checked for the first program only: a script runs many set-id programs that do not use devices.
    if (isFirst && changesIdentity(statSync(path))) return 'it changes its user or group when it starts'
  } catch {
    // It has been removed meanwhile.
    return undefined
  }
  return problemOfFile(path)
}

interface PreloadProblem {
  /** The program, as on the command line. */
  readonly name: string
  /** Why it will not load the preload library: a sentence about "it". */
  readonly problem: string
  /** It would not even start with the preload library. */
  readonly isFatal: boolean
}

/** The programs that a command line starts (started-programs.ts) and that will not load the preload library. */
export const preloadProblems = (program: string, args: readonly string[]): readonly PreloadProblem[] => {
  const problems = new Map<string, Omit<PreloadProblem, 'name'>>()
  for (const started of startedPrograms(program, args)) {
    const { name, path, script } = started
    const problem = problemOf(path, started.args, name === program)
    if (problem === undefined) continue
    const isFatal = usesMusl(path)
    if (script === undefined) problems.set(name, { problem, isFatal })
    else problems.set(script, { problem: `the cause is its interpreter ${path}: ${problem}`, isFatal })
  }
  return [...problems].map(([name, found]) => ({ name, ...found }))
}
