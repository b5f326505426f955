/*
 * The row of the finding program-died.
 */

export const programDied = {
  severity: 'error',
  needs: ['check', 'preload'],
  title: 'a signal such as SIGSEGV has ended the program',
  why: 'The stack is that at the signal: SIGSEGV, SIGBUS, SIGFPE, SIGILL or SIGABRT. The finding is a warning if no function of libibverbs, librdmacm or a provider is in it, unless the address is near a wr_id that the program has got back. A program that handles the signal itself has no such finding.',
  story: 'events',
  tells: 'death',
} as const
