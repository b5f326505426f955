/*
 * Ends a command after an error, with a message on standard error. The exit status is the error's own, otherwise 1.
 * Wrong usage has status 2, as with builtins of shells.
 */
import { existsSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { userText } from '../host/exposure.ts'
import { printable } from '../spec/printable.ts'
import { lowLimits } from './limits.ts'

/** Options or arguments that are wrong. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
  readonly status = 2
}

/** The status that a shell shows for a program killed by SIGPIPE. */
const BROKEN_PIPE = 128 + 13

/**
 * From now on a failure to write the output ends the process; without a message if the reader has closed it (`| head`).
 * A command that serves programs, or runs a program of the user, must continue, and does not call this.
 */
export const exitOnBrokenPipe = (): void => {
  process.stdout.on('error', error => {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EPIPE') process.exit(BROKEN_PIPE)
    fail(new Error(`cannot write to standard output: ${code}`, { cause: error }))
  })
}

/** Advice if another user owns the file's folder. */
const ownerAdvice = (path: string | undefined): string => {
  if (path === undefined) return ''
  const folder = dirname(path)
  let owner: number | undefined
  try {
    owner = statSync(folder).uid
  } catch {
    // It does not exist, or this user may not search the folders above it.
  }
  if (owner === undefined || owner === process.geteuid?.()) return ''
  return `; ${folder} belongs to ${userText(owner)}: use a folder of your own (\`mkdir -m 700 FOLDER\`, --socket FOLDER/sock)`
}

/** The error's message, with a remedy for some errors of the operating system. */
export const messageOf = (error: unknown): string => {
  const { message, code, path } = (error instanceof Error ? error : { message: String(error) }) as NodeJS.ErrnoException
  switch (code) {
    case 'EMFILE':
      return `${message}; this process may open too few files: run \`ulimit -n 1024\` first`
    case 'ENOMEM':
    case 'EAGAIN':
    case 'EFBIG':
      return message + lowLimits()
    case 'ENOSPC':
    case 'EDQUOT':
      return `${message}; free some disk space, or choose another file system with --socket PATH or, for a private daemon, TMPDIR`
    case 'EACCES':
      return message + ownerAdvice(path)
    case 'ENOENT':
      if (path?.startsWith('/proc/') && !existsSync('/proc/self'))
        return `${message}; /proc is not mounted, and the daemon needs it for programs' memory and descriptors: \`mount -t proc proc /proc\``
  }
  return message
}

/** Prints the error and ends the process, with the error's `status` if it has one. */
export const fail = (error: unknown): never => {
  // It may quote a file from somebody else.
  const lines = messageOf(error).split('\n').map(printable)
  process.stderr.write(`userdma: ${lines.join('\n')}\n`)
  process.exit(error instanceof Error && 'status' in error && typeof error.status === 'number' ? error.status : 1)
}
