/*
 * How a command of ours ends when something is wrong: one line on stderr, status 1 (2 for wrong usage, as the shell's
 * own commands).
 */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** Says what is wrong and ends the process. */
export const fail = (error: unknown): never => {
  const message = error instanceof Error ? error.message : String(error)
  process.stderr.write(`userdma: ${message}\n`)
  process.exit(error instanceof UsageError ? 2 : 1)
}
