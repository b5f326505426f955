/*
 * The descriptors that a program inherits from the caller of userdma, besides standard input, output and error: a
 * launcher of MPI passes its connection as PMI_FD, make its jobserver. Node.js marks those that it has inherited to be
 * closed by programs (FD_CLOEXEC), and does not tell them from its own. So what starts Node.js, bin/userdma, names them
 * in a variable.
 */

import type { StdioOptions } from 'node:child_process'
import { existsSync } from 'node:fs'

const VARIABLE = 'USERDMA_FDS'
const STANDARD = 3

/** Takes the variable: no program inherits it. Without it, and of descriptors that are closed, nothing. */
const take = (): ReadonlySet<number> => {
  const { [VARIABLE]: text = '' } = process.env
  delete process.env[VARIABLE]
  const numbers = text.split(' ').filter(word => /^\d{1,6}$/.test(word) && existsSync(`/proc/self/fd/${word}`))
  return new Set(numbers.map(Number).filter(number => number >= STANDARD))
}

const inherited = take()

/** For `spawn`: all that this process has inherited, at the same numbers. */
export const inheritedStdio = (): StdioOptions =>
  Array.from({ length: Math.max(STANDARD - 1, ...inherited) + 1 }, (_, number) =>
    number < STANDARD ? 'inherit' : inherited.has(number) ? number : 'ignore',
  )
