/*
 * The clock of a daemon with `--clock skip` (docs/decisions/clock-that-skips.md). The daemon has the library of the clock
 * preloaded, so that its time is that of its programs. The library makes the page of the clock beside the socket, and lets
 * the clock jump.
 *
 * The deadlines of the daemon are its timerfds (host/event-loop/timer.ts): of devices, of the connection manager and of
 * fault rules. Timers of Node are none: they look, write, and limit waits for clients.
 */
import { rmSync } from 'node:fs'
import { SystemError } from '../host/errno.ts'
import { libcFunctions } from '../host/native.ts'
import { clockPageOf } from '../spec/clock-page.ts'
import type { DaemonConfig } from '../uapi/tool.ts'

const library = libcFunctions({ userdma_clock_start: 'int userdma_clock_start(const char *path, int spins)' })

/** Removes the page of a daemon that was killed, too. */
export const endClock = (socket: string): void => rmSync(clockPageOf(socket), { force: true })

/** Throws SystemError, or an Error if the library is not preloaded. */
export const startClock = (socket: string, { clock, clockSpin }: DaemonConfig): void => {
  endClock(socket)
  if (clock !== 'skip') return
  const result = library().userdma_clock_start(clockPageOf(socket), clockSpin === false ? 0 : 1)
  if (result < 0) throw new SystemError('userdma_clock_start', -result, clockPageOf(socket))
}
