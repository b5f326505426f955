/*
 * Finds the programs that a command line starts, without running it: the program itself, the interpreter of a script
 * (its #! line), and programs that `env`, `timeout` and similar launchers or `sh -c` start. Other lines of scripts are
 * not read.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { basename } from 'node:path'
import { findProgram } from './program.ts'

interface StartedProgram {
  /** As the command line or the script names it. */
  readonly name: string
  readonly path: string
  readonly args: readonly string[]
  /** Of a program that the #! line of a script starts: the name of the script. */
  readonly script?: string
}

/** Maximum nesting of interpreters, as in Linux (execve(2)), and of launchers. */
const MAX_DEPTH = 4
/** Bytes of a script's first line that Linux reads (BINPRM_BUF_SIZE). */
const FIRST_LINE_BYTES = 256

/** Programs that run the first of their arguments that names a program. */
const LAUNCHERS = new Set(['env', 'nice', 'nohup', 'numactl', 'setsid', 'stdbuf', 'taskset', 'time', 'timeout'])
/** The file names of the dynamic linker of glibc, which is a launcher too. */
const DYNAMIC_LINKER = /^ld(?:-linux[\w-]*|-[\d.]+)?\.so/
const SHELLS = new Set(['ash', 'bash', 'dash', 'ksh', 'sh', 'zsh'])

export const isDynamicLinker = (path: string): boolean => DYNAMIC_LINKER.test(basename(path))

/**
 * The interpreter in a file's #! line, and its argument; undefined without such a line, or if we cannot open the file.
 */
const interpreterLine = (path: string): { readonly interpreter: string; readonly argument?: string } | undefined => {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch {
    return undefined
  }
  try {
    const bytes = Buffer.alloc(FIRST_LINE_BYTES)
    const text = bytes.toString('latin1', 0, readSync(fd, bytes, 0, FIRST_LINE_BYTES, 0))
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

/** The words of each command in the text of `sh -c`; commands whose first word is quoted or expanded are omitted. */
const shellCommands = (text: string): readonly (readonly string[])[] =>
  text
    .replace(/\\.|'[^']*'|"(?:\\.|[^"\\])*"/gs, QUOTED)
    .split(/[;&|()\n]+/)
    .map(command => command.trim().split(/\s+/))
    .map(words => words.slice(words.findIndex(word => !BEFORE_COMMANDS.test(word))))
    .filter(([word]) => word !== undefined && /^[\w./+-]+$/.test(word))

/** Options of shells whose value is the next argument. */
const SHELL_OPTION_WITH_VALUE = /^(?:[-+][a-zA-Z]*[oO]|--(?:rcfile|init-file))$/

/** COMMANDS of `sh -c COMMANDS`; undefined without `-c`. Other options may stand before and after `-c`. */
const shellText = (args: readonly string[]): string | undefined => {
  let hasText = false
  let index = 0
  for (; index < args.length && /^[-+]./.test(args[index]!); index++) {
    const option = args[index]!
    if (option === '--') {
      index++
      break
    }
    if (/^-[a-zA-Z]*c/.test(option)) hasText = true
    if (SHELL_OPTION_WITH_VALUE.test(option)) index++
  }
  return hasText ? args[index] : undefined
}

/** Option -S of `env`, after other options in the same argument, and its value if that is in the same argument. */
const SPLIT_STRING = /^(?:(-[0iv]*)S|--split-string=?)(.*)$/s

/** The arguments of `env` with the words of `-S TEXT` in the place of this option; quotes in TEXT are not parsed. */
const withSplitStrings = (args: readonly string[]): readonly string[] => {
  const index = args.findIndex(arg => SPLIT_STRING.test(arg))
  const before = args.slice(0, Math.max(index, 0))
  if (index < 0 || startedIndex(before) >= 0) return args
  const [, others = '-', attached] = SPLIT_STRING.exec(args[index]!) ?? []
  const [text = '', ...rest] = attached ? [attached, ...args.slice(index + 1)] : args.slice(index + 1)
  return [...before, ...(others === '-' ? [] : [others]), ...text.trim().split(/\s+/), ...rest]
}

/** The index of the program among a launcher's arguments; -1 if the launcher starts none. */
const startedIndex = (args: readonly string[]): number =>
  args.findIndex(arg => !/^-|=/.test(arg) && findProgram(arg) !== undefined)

/** A launcher's own arguments, without the program that it starts and what follows. */
export const ownArguments = (args: readonly string[]): readonly string[] => {
  const index = startedIndex(args)
  return index < 0 ? args : args.slice(0, index)
}

/** Adds a program, and the programs that it starts, to `found`. `script`: as in StartedProgram. */
const collect = (
  name: string,
  givenArgs: readonly string[],
  depth: number,
  found: StartedProgram[],
  script?: string,
): void => {
  const path = findProgram(name)
  if (path === undefined || depth > MAX_DEPTH) return
  const args = basename(path) === 'env' ? withSplitStrings(givenArgs) : givenArgs
  found.push({ name, path, args, ...(script !== undefined && { script }) })
  const line = interpreterLine(path)
  if (line !== undefined) {
    const { interpreter, argument } = line
    collect(interpreter, [...(argument === undefined ? [] : [argument]), path, ...args], depth + 1, found, name)
    return
  }
  if (LAUNCHERS.has(basename(path)) || isDynamicLinker(path)) {
    const index = startedIndex(args)
    if (index >= 0) collect(args[index]!, args.slice(index + 1), depth + 1, found, script)
  } else if (SHELLS.has(basename(path))) {
    for (const [command = '', ...words] of shellCommands(shellText(args) ?? ''))
      collect(command, words, depth + 1, found)
  }
}

/** The programs that a command line starts, its own program first; empty if that does not exist. */
export const startedPrograms = (program: string, args: readonly string[]): readonly StartedProgram[] => {
  const found: StartedProgram[] = []
  collect(program, args, 0, found)
  return found
}
