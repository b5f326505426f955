/*
 * `userdma man`: the manual page userdma(1), for packages, made from the declarations that `--help` shows.
 */
import type { Command, Help } from 'commander'
import { packageVersion } from '../paths.ts'

/** Text of a page: a line that begins with a dot or an apostrophe would be a request. */
const escapeRoff = (text: string): string =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('…', '...')
    .replaceAll(/^(?=[.'])/gm, '\\&')

/** What follows the generated part of a command's help: its examples. */
const textAfter = (command: Command): string => {
  let text = ''
  const { writeOut } = command.configureOutput()
  command.configureOutput({ writeOut: written => (text += written) })
  command.outputHelp()
  command.configureOutput({ ...(writeOut && { writeOut }) })
  return text.slice(command.helpInformation().length).trim()
}

/** `separator`: a request between the usage and the description. */
const sectionOf = (command: Command, help: Help, heading: string, separator = '.PP'): string => {
  const usage = help.commandUsage(command)
  const terms = [
    ...help
      .visibleArguments(command)
      .map(found => [help.argumentTerm(found), help.argumentDescription(found)] as const),
    ...help.visibleOptions(command).map(found => [help.optionTerm(found), help.optionDescription(found)] as const),
  ]
  const after = textAfter(command)
  return [
    heading,
    `.B ${escapeRoff(usage)}`,
    separator,
    escapeRoff(help.commandDescription(command)),
    ...terms.flatMap(([term, text]) => ['.TP', `.B ${escapeRoff(term)}`, escapeRoff(text)]),
    ...(after === '' ? [] : ['.PP', '.nf', escapeRoff(after), '.fi']),
  ].join('\n')
}

const hasCommands = (command: Command): boolean => command.commands.length > 0

/** The command. `program`: the whole command line. */
export const man = (program: Command): void => {
  const help = program.createHelp()
  const inner = (command: Command): readonly Command[] =>
    help
      .visibleCommands(command)
      .filter(inner => inner.name() !== 'help')
      .flatMap(found => (hasCommands(found) ? [found, ...inner(found)] : [found]))
  const page = [
    `.TH USERDMA 1 "" "userdma ${packageVersion()}" "User Commands"`,
    '.SH NAME',
    'userdma \\- RDMA devices in user space for unmodified programs',
    sectionOf(program, help, '.SH SYNOPSIS', '.SH DESCRIPTION'),
    '.SH COMMANDS',
    ...inner(program).map(command => {
      const name = command.parent === program ? command.name() : `${command.parent?.name()} ${command.name()}`
      return sectionOf(command, help, `.SS userdma ${name}`)
    }),
    '.SH FILES',
    '.TP\n.I $XDG_RUNTIME_DIR/userdma/sock\nthe socket of your daemon; without that folder, userdma\\-UID/sock in the temporary directory',
    '.SH ENVIRONMENT',
    '.TP\n.B USERDMA_SOCKET\nthe socket of the daemon that programs use; userdma run sets it',
    '.SH SEE ALSO\n.BR ibv_devinfo (1),\n.BR ibv_rc_pingpong (1),\n.BR rping (1)',
  ]
  process.stdout.write(`${page.join('\n')}\n`)
}
