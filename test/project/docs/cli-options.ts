/*
 * The tables of options of docs/reference/cli.md, from the declarations of the commands.
 */
import type { CommandSpec } from '../../../src/cli/command-line/command.ts'
import { commands } from '../../../src/cli/command-line/commands.ts'
import { flagsOf, helpOf, type OptionSpec } from '../../../src/cli/command-line/option.ts'

/** Before and after the generated part of the page. */
export const BEGIN = '<!-- begin: made of src/cli/command-line by `npm run docs` -->\n'
export const END = '<!-- end -->\n'

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('<', '&lt;')

const row = (name: string, option: OptionSpec): string => {
  const byDefault = option.default === undefined ? '' : ` (default: ${option.default})`
  return `| \`${flagsOf(name, option).replaceAll('|', '\\|')}\` | ${cell(helpOf(option))}${byDefault} |\n`
}

const section = (words: string, { options = {}, commands: inner = {}, isHidden }: CommandSpec): string => {
  const rows = Object.entries(options)
    .filter(([, option]) => !option.isHidden)
    .map(([name, option]) => row(name, option))
  const table = rows.length === 0 || isHidden ? '' : `### ${words}\n\n| option | |\n|---|---|\n${rows.join('')}\n`
  return (
    table +
    Object.entries(inner)
      .map(([name, spec]) => section(`${words} ${name}`, spec))
      .join('')
  )
}

/** A table for each command that has options. */
export const optionTables = (): string =>
  Object.entries(commands)
    .map(([name, spec]) => section(`userdma ${name}`, spec))
    .join('')
