/*
 * The programs that a command line starts, if that can be seen from the command line: the program itself, the
 * interpreter of a script, and programs started by `env`, `timeout` and the like or by `sh -c`. The contents of scripts
 * are not read.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { basename } from 'node:path'
import { findProgram } from './program.ts'

export interface StartedProgram {
  /** As named on the command line or in the script. */
  readonly name: string
  readonly path: string
  readonly args: readonly string[]
  /** Set for an interpreter: the script. */
  readonly interpreterOf?: string
}

/** Linux's limit on the nesting of interpreters. */
const MAX_DEPTH = 4
/** Bytes of a script's first line that Linux reads. */
const FIRST_LINE = 256

/** Programs that run the first of their arguments that names a program. */
const LAUNCHERS = new Set(['env', 'nice', 'nohup', 'numactl', 'setsid', 'stdbuf', 'taskset', 'time', 'timeout'])
const SHELLS = new Set(['ash', 'bash', 'dash', 'ksh', 'sh', 'zsh'])

/** Interpreter and argument in a script's first line; undefined if the file is not a script. */
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

/** Shell words that may precede a command. */
const BEFORE_COMMANDS = /^(?:\w+=.*|if|then|else|elif|while|until|do|!|\{|exec|command)$/
/** Placeholder for quoted text, which is not parsed. */
const QUOTED = '\0'

/** The words of each command in a shell's text; commands whose first word is quoted or expanded are omitted. */
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
  if (path === undefined || depth > MAX_DEPTH) return
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

/** The programs that a command line starts, itself first; empty if the program does not exist. */
export const startedPrograms = (program: string, args: readonly string[]): readonly StartedProgram[] => {
  const found: StartedProgram[] = []
  collect(program, args, 0, found)
  return found
}
