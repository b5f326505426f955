/*
 * `userdma env`: prints commands that export what `userdma run` sets for its program, or that undo it (`--unset`), for
 * shells and for steps of CI jobs. It starts no daemon: that would end with this command, its only client.
 */

import { openToolSession } from '../../daemon/client/tool-session.ts'
import { namedSocket, userSocket } from '../../daemon/client/user-socket.ts'
import { SessionEnv } from '../../spec/session.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { envOptions, shellNames } from '../command-line/options.ts'
import { programEnvironment, withoutShim } from '../program/program.ts'

type EnvOptions = OptionsOf<typeof envOptions>

const quoted = (value: string): string => `'${value.replaceAll("'", "'\\''")}'`

/** In a line of a file a value cannot have a line feed. */
const plain = (value: string): string => {
  if (value.includes('\n')) throw new Error(`the path ${JSON.stringify(value)} has a line feed; choose another socket`)
  return value
}

/** A line that sets a variable, or removes it if its value is undefined. */
type Line = (name: string, value: string | undefined) => string

const posix: Line = (name, value) => (value === undefined ? `unset ${name}` : `export ${name}=${quoted(value)}`)

/** The lines of each shell. `github`: those of the file $GITHUB_ENV, which can only empty a variable. */
const shells: Readonly<Record<keyof typeof shellNames, Line>> = {
  sh: posix,
  bash: posix,
  zsh: posix,
  fish: (name, value) =>
    value === undefined ? `set -e ${name}` : `set -gx ${name} '${value.replace(/[\\']/g, '\\$&')}'`,
  github: (name, value) => `${name}=${plain(value ?? '')}`,
}

/** The variables that `run` sets for its program. Throws an Error if no daemon runs. */
const joined = async (option: string | undefined): Promise<NodeJS.ProcessEnv> => {
  const socket = namedSocket(option) ?? userSocket()
  const client = await openToolSession(socket)
  client.close()
  return programEnvironment(socket)
}

/** The command. For a shell it prints `false` if it fails, so that `eval "$(userdma env)"` fails too. */
export const env = async ({ socket, shell = 'sh', unset = false }: EnvOptions): Promise<void> => {
  const line = shells[shell]
  try {
    const { [SessionEnv.socket]: _, ...own } = withoutShim(process.env)
    const variables = unset ? own : await joined(socket)
    for (const name of [SessionEnv.socket, 'LD_PRELOAD'] as const)
      process.stdout.write(`${line(name, variables[name])}\n`)
  } catch (error) {
    if (shell !== 'github') process.stdout.write('false\n')
    throw error
  }
}
