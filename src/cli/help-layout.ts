/*
 * How help is laid out: every line fits into the terminal, or 80 columns outside of one, as far as its words do. Lists
 * have terms at the left; the description of a long term begins below it.
 */
import type { AddHelpTextContext, Command, Help, HelpConfiguration } from 'commander'

/** The width outside of a terminal. */
const COLUMNS = 80
const INDENT = 2
/** Terms that take a larger share of the width have lines of their own. */
const TERM_SHARE = 0.42
/** Descriptions are not wrapped below this width: each word would be a line. */
const MIN_WIDTH = 12

const widthOf = ({ helpWidth = COLUMNS }: Help): number => helpWidth

/** The width of the longest term that stands beside its description. */
const padOf = (terms: readonly string[], width: number): number =>
  Math.max(0, ...terms.map(({ length }) => length).filter(length => length <= width * TERM_SHARE))

/** A term with its description, as the lines of an item. */
const itemText = (term: string, pad: number, description: string, help: Help): string => {
  const margin = ' '.repeat(INDENT + pad + INDENT)
  const lines = help.boxWrap(description, widthOf(help) - margin.length).split('\n')
  const head = ' '.repeat(INDENT) + term
  if (description === '') return head
  const first = term.length > pad ? [head, margin + lines[0]] : [head.padEnd(margin.length) + lines[0]]
  return [...first, ...lines.slice(1).map(line => margin + line)].join('\n')
}

/** For `configureHelp` of the whole command line. Commands are listed by name: their own help has their arguments. */
export const helpLayout: HelpConfiguration = {
  minWidthToWrap: MIN_WIDTH,
  subcommandTerm: command => command.name(),
  padWidth: (command, help) =>
    padOf(
      [
        ...help.visibleOptions(command).map(option => help.optionTerm(option)),
        ...help.visibleCommands(command).map(inner => help.subcommandTerm(inner)),
        ...help.visibleArguments(command).map(argument => help.argumentTerm(argument)),
      ],
      widthOf(help),
    ),
  formatItem: itemText,
}

/** A text after the generated part of a command's help. */
export type HelpText = (context: AddHelpTextContext) => string

/** The help of a command with the width of its output. */
const helpOf = ({ command, error }: AddHelpTextContext): Help => {
  const help = command.createHelp()
  const { getOutHelpWidth, getErrHelpWidth } = command.configureOutput()
  help.helpWidth = (error ? getErrHelpWidth : getOutHelpWidth)?.() ?? COLUMNS
  return help
}

/** Words of a command line; what is quoted stays together, and so does an option with its value. */
const WORD = /(?:--[\w-]+ (?=[^-\s]))?(?:'[^']*'|"[^"]*"|[^\s'"])+/g

/** A command line after a prompt; a long one is on several lines, which a shell takes as they are. */
const commandLines = (command: string, width: number): string => {
  const prompt = '  $'
  if (prompt.length + 1 + command.length <= width) return `${prompt} ${command}`
  const lines: string[] = []
  let last = prompt
  for (const [word] of command.matchAll(WORD)) {
    const wider = `${last} ${word}`
    if (last === prompt || wider.length + ' \\'.length <= width) last = wider
    else {
      lines.push(`${last} \\`)
      last = `${' '.repeat(prompt.length + INDENT)} ${word}`
    }
  }
  return [...lines, last].join('\n')
}

/** Examples of a command. */
export const examples =
  (...all: readonly string[]): HelpText =>
  context => {
    const width = widthOf(helpOf(context))
    return `\nExamples:\n${all.map(command => `${commandLines(command, width)}\n`).join('')}`
  }

/** A paragraph, and a list of terms with their descriptions. */
export const listText =
  (paragraph: string, items: readonly (readonly [term: string, description: string])[]): HelpText =>
  context => {
    const help = helpOf(context)
    const pad = padOf(
      items.map(([term]) => term),
      widthOf(help),
    )
    const lines = items.map(([term, description]) => itemText(term, pad, description, help))
    return `\n${[help.boxWrap(paragraph, widthOf(help)), ...lines].join('\n')}`
  }

/** Whether a command has commands of its own. */
const groupAt = (program: Command, name: string | undefined): Command | undefined =>
  program.commands.find(command => command.name() === name && command.commands.length > 0)

/** `help net up` and `net help up` are `net up --help`. Other words stay. */
export const withoutHelpCommand = (program: Command, words: readonly string[]): readonly string[] => {
  const [first, second, third] = words
  if (third === undefined || third.startsWith('-')) return words
  const group = first === 'help' ? second : second === 'help' ? first : undefined
  return group !== undefined && groupAt(program, group) !== undefined ? [group, third, '--help'] : words
}

/**
 * The words up to the first that should name a command and does not; undefined: there is none. commander would print
 * the help of what is before if `--help` follows.
 */
export const upToUnknownCommand = (program: Command, words: readonly string[]): readonly string[] | undefined => {
  let command: Command | undefined = program
  for (const [i, word] of words.entries()) {
    if (command === undefined || command.commands.length === 0 || word.startsWith('-') || word === 'help')
      return undefined
    const inner: Command | undefined = command.commands.find(one => one.name() === word)
    if (inner === undefined) return words.slice(0, i + 1)
    command = inner
  }
  return undefined
}
