/*
 * Checks, before a program is started, whether the dynamic linker will load the preload library into it. A program
 * without the library only reports that it finds no devices.
 */
import { closeSync, constants, openSync, readSync, type Stats, statSync } from 'node:fs'
import { basename } from 'node:path'
import { isDynamicLinker, ownArguments, startedPrograms } from './started-programs.ts'

/** \x7fELF, big-endian. */
const ELF_MAGIC = 0x7f454c46
const ELFCLASS64 = 2
/** Offsets in the file header (Elf64_Ehdr): e_ident[EI_CLASS], e_machine, e_phoff, e_phentsize, e_phnum; its size. */
const FILE_HEADER = { CLASS: 4, MACHINE: 18, PHOFF: 32, PHENTSIZE: 54, PHNUM: 56, BYTES: 64 } as const
/** Offsets in a program header (Elf64_Phdr): p_type, p_offset, p_filesz. */
const PROGRAM_HEADER = { TYPE: 0, OFFSET: 8, FILESZ: 32, MIN_BYTES: 40 } as const
const PT_INTERP = 3
/** EM_X86_64 and EM_AARCH64, by `process.arch`. */
const MACHINES: Readonly<Record<string, number>> = { x64: 62, arm64: 183 }
/** Maximum length of a dynamic linker's path, bytes; the rest is not read. */
const MAX_LINKER_PATH = 256
const { S_IXGRP } = constants
const S_ISUID = 0o4000
const S_ISGID = 0o2000

/** Reads up to `length` bytes of a file; fewer at its end. */
const read = (fd: number, length: number, position: number): Buffer => {
  const bytes = Buffer.alloc(length)
  return bytes.subarray(0, readSync(fd, bytes, 0, length, position))
}

/** The path of a program's dynamic linker; undefined if it has none. */
const dynamicLinkerOf = (fd: number, header: Buffer): string | undefined => {
  const start = Number(header.readBigUInt64LE(FILE_HEADER.PHOFF))
  const size = header.readUInt16LE(FILE_HEADER.PHENTSIZE)
  for (let i = 0; i < header.readUInt16LE(FILE_HEADER.PHNUM); i++) {
    const entry = read(fd, size, start + i * size)
    if (entry.length < PROGRAM_HEADER.MIN_BYTES || entry.readUInt32LE(PROGRAM_HEADER.TYPE) !== PT_INTERP) continue
    const length = Math.min(Number(entry.readBigUInt64LE(PROGRAM_HEADER.FILESZ)), MAX_LINKER_PATH)
    return read(fd, length, Number(entry.readBigUInt64LE(PROGRAM_HEADER.OFFSET)))
      .toString('latin1')
      .replace(/\0.*$/s, '')
  }
  return undefined
}

/** Why this file will not load the preload library, as in `problemOf`. */
const problemOfFile = (fd: number): string | undefined => {
  const header = read(fd, FILE_HEADER.BYTES, 0)
  if (header.length < FILE_HEADER.BYTES || header.readUInt32BE(0) !== ELF_MAGIC) return undefined
  const machine = MACHINES[process.arch]
  if (
    header[FILE_HEADER.CLASS] !== ELFCLASS64 ||
    (machine !== undefined && header.readUInt16LE(FILE_HEADER.MACHINE) !== machine)
  )
    return 'it is built for another processor than the preload library'
  const linker = dynamicLinkerOf(fd, header)
  if (linker === undefined) return 'it is linked statically, so nothing can be preloaded'
  if (basename(linker).startsWith('ld-musl')) return 'it uses musl; the preload library needs glibc'
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
  let fd: number
  try {
    // Checked for the first program only: a script runs many set-id programs that do not use devices.
    if (isFirst && changesIdentity(statSync(path))) return 'it changes its user or group when it starts'
    fd = openSync(path, 'r')
  } catch {
    // A file can be executable and not readable.
    return undefined
  }
  try {
    return problemOfFile(fd)
  } catch {
    return undefined
  } finally {
    closeSync(fd)
  }
}

export interface PreloadProblem {
  /** The program, as on the command line. */
  readonly name: string
  /** Why it will not load the preload library: a sentence about "it". */
  readonly problem: string
}

/** The programs that a command line starts (started-programs.ts) and that will not load the preload library. */
export const preloadProblems = (program: string, args: readonly string[]): readonly PreloadProblem[] => {
  const problems = new Map<string, string>()
  for (const started of startedPrograms(program, args)) {
    const { name, path, script } = started
    const problem = problemOf(path, started.args, name === program)
    if (problem === undefined) continue
    if (script === undefined) problems.set(name, problem)
    else problems.set(script, `the cause is its interpreter ${path}: ${problem}`)
  }
  return [...problems].map(([name, problem]) => ({ name, problem }))
}
