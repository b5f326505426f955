/*
 * `userdma env`: prints commands that export what `userdma run` sets for its program, for shells and for steps of CI
 * jobs. It starts no daemon: that would end with this command, its only client.
 */

import { openToolSession } from '../../session/tool-session.ts'
import { namedSocket, userSocket } from '../../session/user-socket.ts'
import { SessionEnv } from '../../spec/session.ts'
import { UsageError } from '../fail.ts'
import { programEnvironment } from '../program/program.ts'

/** As commander parses them. */
export interface EnvOptions {
  readonly socket?: string
  readonly shell?: string
}

const quoted = (value: string): string => `'${value.replaceAll("'", "'\\''")}'`

/** In a line of a file a value cannot have a line feed. */
const plain = (value: string): string => {
  if (value.includes('\n')) throw new Error(`the path ${JSON.stringify(value)} has a line feed; choose another socket`)
  return value
}

const posix = (name: string, value: string): string => `export ${name}=${quoted(value)}`

/** How each shell sets a variable. `github`: the lines of the file $GITHUB_ENV. */
const shells: Readonly<Record<string, (name: string, value: string) => string>> = {
  sh: posix,
  bash: posix,
  zsh: posix,
  fish: (name, value) => `set -gx ${name} '${value.replace(/[\\']/g, '\\$&')}'`,
  github: (name, value) => `${name}=${plain(value)}`,
}

/** The command. For a shell it prints `false` if it fails, so that `eval "$(userdma env)"` fails too. */
export const env = async ({ socket: option, shell = 'sh' }: EnvOptions): Promise<void> => {
  const line = Object.hasOwn(shells, shell) ? shells[shell] : undefined
  if (line === undefined) throw new UsageError(`--shell "${shell}" is not one of ${Object.keys(shells).join(', ')}`)
  try {
    const socket = namedSocket(option) ?? userSocket()
    const client = await openToolSession(socket)
    client.close()
    const variables = programEnvironment(socket)
    for (const name of [SessionEnv.socket, 'LD_PRELOAD'] as const)
      process.stdout.write(`${line(name, variables[name] ?? '')}\n`)
  } catch (error) {
    if (shell !== 'github') process.stdout.write('false\n')
    throw error
  }
}
