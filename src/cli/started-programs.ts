/*
 * Which programs a command line starts, as far as it shows: the program itself, the interpreter of a script, and what
 * `env`, `timeout` and the like or `sh -c` are told to start. What a script's lines start does not show.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { basename } from 'node:path'
import { findProgram } from './program.ts'

export interface StartedProgram {
  /** As the command line or the script names it. */
  readonly name: string
  readonly path: string
  readonly args: readonly string[]
  /** The script that names it as its interpreter. */
  readonly interpreterOf?: string
}

/** Scripts whose interpreters are scripts: Linux' limit. */
const DEEPEST = 4
/** Bytes of a script's first line that Linux reads. */
const FIRST_LINE = 256

/** Programs whose first argument that is a program is the one that they start. */
const LAUNCHERS = new Set(['env', 'nice', 'nohup', 'numactl', 'setsid', 'stdbuf', 'taskset', 'time', 'timeout'])
const SHELLS = new Set(['ash', 'bash', 'dash', 'ksh', 'sh', 'zsh'])

/** Interpreter and argument of a script's first line; undefined if the file is none. */
const firstLine = (path: string): { readonly interpreter: string; readonly argument?: string } | undefined => {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch {
    return undefined
  }
  try {
    const bytes = Buffer.alloc(FIRST_LINE)
    const text = bytes.toString('latin1', 0, readSync(fd, bytes, 0, FIRST_LINE, 0))
    const [, interpreter, argument] = /^#![ \t]*([^ \t\n]+)[ \t]*([^\n]*?)[ \t]*(?:\n|$)/.exec(text) ?? []
    return interpreter === undefined ? undefined : { interpreter, ...(argument && { argument }) }
  } finally {
    closeSync(fd)
  }
}

/** Words of the shell's that come before a command. */
const BEFORE_COMMANDS = /^(?:\w+=.*|if|then|else|elif|while|until|do|!|\{|exec|command)$/
/** Stands for what is quoted, whose meaning is not looked at. */
const QUOTED = '\0'

/** The commands of a shell's text by their words; those whose first word is quoted or expanded are left out. */
export const shellCommands = (text: string): readonly (readonly string[])[] =>
  text
    .replace(/\\.|'[^']*'|"(?:\\.|[^"\\])*"/gs, QUOTED)
    .split(/[;&|()\n]+/)
    .map(command => command.trim().split(/\s+/))
    .map(words => words.slice(words.findIndex(word => !BEFORE_COMMANDS.test(word))))
    .filter(([word]) => word !== undefined && /^[\w./+-]+$/.test(word))

/** The text of `sh -c TEXT`. */
const shellText = (args: readonly string[]): string | undefined => {
  const option = args.findIndex(arg => /^-[a-zA-Z]*c$/.test(arg))
  return option >= 0 && args.slice(0, option).every(arg => /^[-+]/.test(arg)) ? args[option + 1] : undefined
}

const collect = (
  name: string,
  args: readonly string[],
  depth: number,
  found: StartedProgram[],
  interpreterOf?: string,
): void => {
  const path = findProgram(name)
  if (path === undefined || depth > DEEPEST) return
  found.push({ name, path, args, ...(interpreterOf !== undefined && { interpreterOf }) })
  const script = firstLine(path)
  if (script !== undefined) {
    const { interpreter, argument } = script
    collect(interpreter, [...(argument === undefined ? [] : [argument]), path, ...args], depth + 1, found, name)
    return
  }
  if (LAUNCHERS.has(basename(path))) {
    const at = args.findIndex(arg => !/^-|=/.test(arg) && findProgram(arg) !== undefined)
    if (at >= 0) collect(args[at]!, args.slice(at + 1), depth + 1, found, interpreterOf)
  } else if (SHELLS.has(basename(path))) {
    for (const [command = '', ...rest] of shellCommands(shellText(args) ?? '')) collect(command, rest, depth + 1, found)
  }
}

/** The programs that a command line starts, itself first; none if it is not there. */
export const startedPrograms = (program: string, args: readonly string[]): readonly StartedProgram[] => {
  const found: StartedProgram[] = []
  collect(program, args, 0, found)
  return found
}
