/*
 * The command line of userdma (command-line/): parses the arguments, and runs the command.
 */
import { CommanderError } from 'commander'
import { allCommands, buildProgram, writeHelp } from './command-line/program.ts'
import { exitOnBrokenPipe, fail } from './fail.ts'
import { upToUnknownCommand, withoutHelpCommand } from './help-layout.ts'

/** After `userdma help`: the help of userdma itself. */
const OWN_HELP = ['help', '-h', '--help']

/** Commands that continue when the reader of their output closes it. */
const CONTINUE_WITHOUT_OUTPUT = ['daemon', 'run', 'trace', 'check']

/** A function: bundled modules (scripts/bundle.mjs) cannot have a top-level await. */
const main = async (): Promise<void> => {
  const words = process.argv.slice(2)
  const [first, second] = words
  try {
    if (first === undefined || !CONTINUE_WITHOUT_OUTPUT.includes(first)) exitOnBrokenPipe()
    const program = buildProgram(first !== undefined && Object.hasOwn(allCommands, first) ? first : undefined)
    if (first === undefined) {
      program.outputHelp({ error: true })
      process.exitCode = 2
    } else {
      // For an unknown word after `help`, commander would print the help of userdma on standard error, without a
      // message.
      if (first === 'help' && second !== undefined && !Object.hasOwn(allCommands, second)) {
        if (OWN_HELP.includes(second)) program.help()
        const text = (await import('./pages.ts')).pageText(second)
        if (text === undefined)
          program.error(
            second.startsWith('-')
              ? `error: unknown option '${second}'`
              : `error: unknown command or page '${second}'; \`userdma help pages\` lists the pages`,
          )
        else writeHelp(text)
      } else {
        const asked = withoutHelpCommand(program, words)
        await program.parseAsync(upToUnknownCommand(program, asked) ?? asked, { from: 'user' })
      }
    }
  } catch (error) {
    if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2
    else fail(error)
  }
}

void main()
