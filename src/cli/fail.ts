/*
 * How a command of ours ends when something is wrong: one line on stderr, status 1 (2 for wrong usage, as the shell's
 * own commands).
 */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** What a shell shows for a program that SIGPIPE has ended. */
const BROKEN_PIPE = 128 + 13

/**
 * Whoever read our output has gone (`| head`): there is nobody to work for any more, and nothing is wrong. For commands
 * that only print; one that runs a program goes on.
 */
export const endWithReader = (): void => {
  process.stdout.on('error', error => {
    if ((error as NodeJS.ErrnoException).code === 'EPIPE') process.exit(BROKEN_PIPE)
    fail(error)
  })
}

/** Says what is wrong and ends the process. */
export const fail = (error: unknown): never => {
  const message = error instanceof Error ? error.message : String(error)
  process.stderr.write(`userdma: ${message}\n`)
  process.exit(error instanceof UsageError ? 2 : 1)
}
