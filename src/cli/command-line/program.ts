/*
 * The whole command line: `userdma` with its commands.
 */
import type { Command } from 'commander'
import { exitOnBrokenPipe } from '../fail.ts'
import { versionText } from '../version.ts'
import { type CommandSpec, commandLine } from './command.ts'
import { commands } from './commands.ts'

/** All commands. */
export const allCommands: Readonly<Record<string, CommandSpec>> = {
  ...commands,
  completion: {
    arguments: [['<shell>', 'bash, zsh or fish']],
    description: 'Prints a script that completes the command line in a shell.',
    examples: ['source <(userdma completion bash)', 'userdma completion fish | source'],
    run: async (_, shell) => (await import('../commands/completion.ts')).completion(shell, buildProgram()),
  },
  man: {
    description: 'Prints the manual page.',
    isHidden: true,
    run: async () => (await import('../commands/man.ts')).man(buildProgram()),
  },
}

/** Prints help. If its reader has closed the output, ends the process, also for commands that go on without output. */
export const writeHelp = (text: string): void => {
  exitOnBrokenPipe()
  process.stdout.write(text)
}

/**
 * The whole command line; with `named` only that command: each declaration makes the start slower. `named` is set if
 * the first argument is the name of a command.
 */
export const buildProgram = (named?: string): Command => {
  const program = commandLine(
    'RDMA devices in user space: unmodified programs use them without hardware, kernel modules or root.',
    named === undefined ? allCommands : { [named]: allCommands[named]! },
    [
      'userdma run -- ibv_devinfo -v',
      'userdma run -- ibv_rc_pingpong -g 1            (in one terminal)',
      'userdma run -- ibv_rc_pingpong -g 1 localhost  (in another)',
      'userdma stat',
    ],
    writeHelp,
  )
  // --version is an option of userdma itself, and so never follows the name of a command.
  return named === undefined
    ? program.version(versionText(), '-V, --version', 'print the versions of userdma, Node.js and the preload library')
    : program
}
