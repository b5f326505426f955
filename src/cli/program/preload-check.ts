/*
 * Checks whether the dynamic linker will load the preload library into a program: otherwise the program would only
 * report that it finds no devices.
 */
import { closeSync, openSync, readSync, statSync } from 'node:fs'
import { basename } from 'node:path'
import { startedPrograms } from './started-programs.ts'

/** ELF header constants: class 64-bit, and offsets of the needed fields. */
const MAGIC = 0x7f454c46
const CLASS_64 = 2
const AT = { CLASS: 4, MACHINE: 18, PHOFF: 32, PHENTSIZE: 54, PHNUM: 56 } as const
const HEADER_BYTES = 64
const PT_INTERP = 3
const MACHINES: Readonly<Record<string, number>> = { x64: 62, arm64: 183 }
const LONGEST_INTERPRETER = 256
const SET_ID = 0o6000

const read = (fd: number, length: number, position: number): Buffer => {
  const bytes = Buffer.alloc(length)
  return bytes.subarray(0, readSync(fd, bytes, 0, length, position))
}

/** The path of a program's dynamic linker; undefined if it has none. */
const interpreterOf = (fd: number, header: Buffer): string | undefined => {
  const start = Number(header.readBigUInt64LE(AT.PHOFF))
  const size = header.readUInt16LE(AT.PHENTSIZE)
  for (let i = 0; i < header.readUInt16LE(AT.PHNUM); i++) {
    const entry = read(fd, size, start + i * size)
    if (entry.length < 40 || entry.readUInt32LE(0) !== PT_INTERP) continue
    const length = Math.min(Number(entry.readBigUInt64LE(32)), LONGEST_INTERPRETER)
    return read(fd, length, Number(entry.readBigUInt64LE(8)))
      .toString('latin1')
      .replace(/\0.*$/s, '')
  }
  return undefined
}

const problemOfFile = (fd: number): string | undefined => {
  const header = read(fd, HEADER_BYTES, 0)
  if (header.length < HEADER_BYTES || header.readUInt32BE(0) !== MAGIC) return undefined
  const machine = MACHINES[process.arch]
  if (header[AT.CLASS] !== CLASS_64 || (machine !== undefined && header.readUInt16LE(AT.MACHINE) !== machine))
    return 'it is built for another processor than the preload library'
  const interpreter = interpreterOf(fd, header)
  if (interpreter === undefined) return 'it is linked statically, so nothing can be preloaded'
  if (basename(interpreter).startsWith('ld-musl')) return 'it uses musl; the preload library needs glibc'
  return undefined
}

/** Why this file will not load the preload library, without subject; undefined if no reason is known. */
const problemOf = (path: string, args: readonly string[], isFirst: boolean): string | undefined => {
  if (basename(path) === 'env' && args.some(arg => /^-[a-zA-Z]*i[a-zA-Z]*$|^--ignore-environment$|^-$/.test(arg)))
    return 'it starts its program without the environment that names the preload library'
  let fd: number
  try {
    const { mode, uid } = statSync(path)
    // Checked for the first program only: a script runs many set-id programs that do not use devices.
    if (isFirst && (mode & SET_ID) !== 0 && uid !== process.getuid?.())
      return 'it changes its user or group when it starts'
    fd = openSync(path, 'r')
  } catch {
    // An executable file need not be readable.
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
  /** The reason, without subject. */
  readonly problem: string
}

/** The programs started by a command line that will not load the preload library, with reasons. */
export const preloadProblems = (program: string, args: readonly string[]): readonly PreloadProblem[] => {
  const problems = new Map<string, string>()
  for (const started of startedPrograms(program, args)) {
    const { name, path, interpreterOf } = started
    const problem = problemOf(path, started.args, name === program)
    if (problem === undefined) continue
    if (interpreterOf === undefined) problems.set(name, problem)
    else problems.set(interpreterOf, `the cause is its interpreter ${path}: ${problem}`)
  }
  return [...problems].map(([name, problem]) => ({ name, problem }))
}
